"""The directory of an embedded cluster: where its files are, and what they say about it.

kubeconfig   for kubectl and every other client       state.json   who runs it, and where
tls.crt/key  the API server's                         lock         held by the daemon as long as it lives
log          what the daemon has to say               starting     held while one is being started
run/         the pods' files and the disks
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vanadium_node.errors import StorageError
from vanadium_node.storage.files import explained, make_private_directory, storage_error, write_private

MAX_PATH_BYTES: Final = 76
"""The longest path of a cluster's directory: a unix socket in a pod's volume has 31 more bytes, and may have 107."""

_MAX_STATE_BYTES: Final = 64 * 1024


def default_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of the user's embedded cluster: $VANADIUM_LOCAL_DIR, or one under $XDG_STATE_HOME."""
    if given := environ.get("VANADIUM_LOCAL_DIR"):
        return Path(given).absolute()
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state).absolute() / "vanadium-node" / "local"


@dataclass(frozen=True, slots=True)
class State:
    """Who runs a cluster and where: the daemon's process, the API's port, and when it began (RFC 3339)."""

    pid: int
    port: int
    since: str

    @classmethod
    def decode(cls, data: bytes) -> State | None:
        """Read a state file; None where it says nothing that makes sense."""
        try:
            value: Any = json.loads(data)
            return cls(int(value["pid"]), int(value["port"]), str(value["since"]))
        except (ValueError, KeyError, TypeError):
            return None

    def encode(self) -> bytes:
        """Return the content of a state file."""
        return json.dumps({"pid": self.pid, "port": self.port, "since": self.since}).encode()


@dataclass(frozen=True, slots=True)
class ClusterDirectory:
    """The files of one embedded cluster."""

    path: Path

    @property
    def kubeconfig(self) -> Path:
        """Return the path of the kubeconfig."""
        return self.path / "kubeconfig"

    @property
    def log(self) -> Path:
        """Return the path of the daemon's log."""
        return self.path / "log"

    @property
    def run(self) -> Path:
        """Return the directory of everything that pods have."""
        return self.path / "run"

    @property
    def starting(self) -> Path:
        """Return the path of the lock that whoever starts the cluster holds."""
        return self.path / "starting"

    @property
    def _lock(self) -> Path:
        return self.path / "lock"

    @property
    def _state(self) -> Path:
        return self.path / "state.json"

    def make(self) -> None:
        """Make the directory if need be.

        Raises:
            StorageError: it cannot be made, or not be written into, or its path is too long.
        """
        size = len(os.fsencode(self.path))
        if size > MAX_PATH_BYTES:
            raise StorageError(
                f"cannot use '{self.path}' for the embedded cluster: its path is {size} bytes long, and the paths of pods' "
                "unix sockets in it would be longer than the system's 107",
                hint=f"set VANADIUM_LOCAL_DIR to a directory whose path has at most {MAX_PATH_BYTES} bytes",
            )
        make_private_directory(self.path)
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise StorageError(
                f"cannot use '{self.path}' for the embedded cluster: permission denied",
                hint="set VANADIUM_LOCAL_DIR to a directory of yours",
            )

    def read_state(self) -> State | None:
        """Return what the state file says, which may be about a daemon that is gone."""
        try:
            with self._state.open("rb") as file:
                return State.decode(file.read(_MAX_STATE_BYTES))
        except OSError:
            return None

    def write_state(self, state: State) -> None:
        """Write the state file."""
        write_private(self._state, state.encode())

    def holder(self) -> int | None:
        """Return the process of the living daemon, or None: the kernel keeps its lock exactly as long as it lives.

        Raises:
            StorageError: the lock file cannot be looked at.
        """
        try:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error("look at the lock", self._lock, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.pread(descriptor, 20, 0)
            return int(written) if written.isdigit() else 0
        finally:
            os.close(descriptor)
        return None

    def lock(self) -> int | None:
        """Take the daemon's lock for as long as the descriptor returned is open; None where another one lives.

        Raises:
            StorageError: the lock file cannot be made.
        """
        with explained("lock", self._lock):
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor

    def clear(self) -> None:
        """Remove everything that a cluster made here, and the directory when nothing else is in it."""
        shutil.rmtree(self.run, ignore_errors=True)
        for name in ("kubeconfig", "tls.crt", "tls.key", "log", "state.json", "starting", "lock"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()
