"""The user's embedded cluster as a daemon: start it, end it, ask whether it runs.

What runs inside is in `running`, which is imported by the daemon alone: asking is cheap.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from vanadium_node.errors import StorageError, VanadiumError
from vanadium_node.local.directory import ClusterDirectory, State, default_directory
from vanadium_node.storage.files import explained, locked

__all__ = ["AlreadyUpError", "default_directory", "down", "ensure_up", "kubeconfig_path", "running_state"]

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
"""How long the daemon may take to end its pods; then it is killed."""

_POLL_SECONDS: Final = 0.02


class AlreadyUpError(VanadiumError):
    """A cluster runs in this directory already."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"an embedded cluster runs in '{directory}' already",
            hint="use it, or end it with 'vanadium-node local down'",
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """What `down` found: a daemon that had to be ended, and whether it had to be killed."""

    was_running: bool
    was_killed: bool


def kubeconfig_path(directory: Path | None = None) -> Path:
    """Return the path of the kubeconfig of the cluster in a directory (default: the user's)."""
    return ClusterDirectory(directory or default_directory()).kubeconfig


def running_state(directory: Path) -> State | None:
    """Return who runs the cluster in a directory, or None where nobody does, whatever old files say.

    Raises:
        StorageError: the directory cannot be looked at.
    """
    files = ClusterDirectory(directory)
    return files.read_state() if files.holder() is not None else None


async def ensure_up(directory: Path, *, port: int | None = None) -> bool:
    """Start the cluster of a directory unless it runs, wait until it answers, and tell whether it was started.

    Raises:
        StorageError: the directory cannot be used.
        VanadiumError: the daemon did not start; the sentence says why.
    """
    files = ClusterDirectory(directory)
    files.make()
    async with locked(files.starting):
        if files.holder() is not None:
            return False
        await _start(files, port)
    return True


async def down(directory: Path) -> Ended:
    """End the cluster of a directory, with all its pods, and remove everything it made there.

    Raises:
        StorageError: the directory cannot be looked at.
        VanadiumError: the daemon cannot be ended.
    """
    files = ClusterDirectory(directory)
    if not await trio.Path(directory).is_dir():
        return Ended(False, False)
    async with locked(files.starting):
        pid = files.holder()
        was_killed = pid is not None and await _end(files, pid)
        await trio.to_thread.run_sync(files.clear)
    return Ended(pid is not None, was_killed)


async def _start(files: ClusterDirectory, port: int | None) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    command = [sys.executable, "-m", "vanadium_node.local.daemon", str(files.path), str(writer)]
    with explained("write the log", files.log), files.log.open("ab") as log:
        files.log.chmod(0o600)
        try:
            await trio.run_process(
                command if port is None else [*command, str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(writer,),
                check=False,
            )
        finally:
            os.close(writer)
    async with trio.lowlevel.FdStream(reader) as stream:
        with trio.move_on_after(START_SECONDS):
            answer = b"".join([piece async for piece in stream])
            _check_started(files, answer)
            return
    raise VanadiumError(
        f"the embedded cluster in '{files.path}' did not answer within {START_SECONDS:.0f} s",
        hint=f"see '{files.log}'",
    )


def _check_started(files: ClusterDirectory, answer: bytes) -> None:
    """Raise what the daemon said went wrong."""
    try:
        message: Any = json.loads(answer)
    except ValueError:
        raise VanadiumError(
            f"the embedded cluster in '{files.path}' ended before it answered", hint=f"see '{files.log}'"
        ) from None
    if "error" in message:
        raise VanadiumError(str(message["error"]), hint=str(message.get("hint", "")))


async def _end(files: ClusterDirectory, pid: int) -> bool:
    """End the daemon, and tell whether it had to be killed."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
        if pid == 0 or not _signalled(pid, number):
            break
        with trio.move_on_after(seconds):
            while files.holder() == pid:  # noqa: ASYNC110 - the lock of another process sends no event
                await trio.sleep(_POLL_SECONDS)
            return number is signal.SIGKILL
    if files.holder() is not None:
        raise StorageError(
            f"the embedded cluster in '{files.path}' cannot be ended: its process does not stop",
            hint=f"see '{files.log}', and end process {pid} by hand",
        )
    return False


def _signalled(pid: int, number: signal.Signals) -> bool:
    """Send a signal; tell whether there was a process of ours to send it to."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise VanadiumError(
            f"may not end process {pid}, which runs the embedded cluster", hint="it belongs to another user"
        ) from error
    return True
