"""Processes of containers: started in a group of their own, watched, ended with everything they started.

A container here is a process group. When its first process ends, so does the rest of the group, as in a container. A process that
leaves its group (a daemon) escapes; nothing less than a container runtime would hold it. So does one that was started in the very
moment in which the machine is killed, before the watchdog has heard of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from vanadium_node.local.machine import private_names, watchdog
from vanadium_node.local.machine.mounts import Mounts

READ_BYTES: Final = 64 * 1024
DRAIN_SECONDS: Final = 0.5
"""How long to go on reading after a process has ended: whatever left its group may hold the pipe open for ever."""


class Watchdog:
    """The machine's end of the pipe to the process that ends the others when the machine dies."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Watchdog]:
        """Run a watchdog while the block lasts; what is still running at its end is killed."""
        argv = [sys.executable, "-I", "-S", str(Path(watchdog.__file__))]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            yield cls(process)

    def began(self, group: int) -> None:
        """Tell of a process group that has begun."""
        self._write(f"+{group}\n")

    def ended(self, group: int) -> None:
        """Tell of a process group of which nothing is left."""
        self._write(f"-{group}\n")

    def _write(self, line: str) -> None:
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):  # somebody killed the watchdog: the machine goes on without
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run: arguments, the whole environment, the directory to start in, and what mount paths in them stood for."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    mounts: Mounts = field(default_factory=Mounts)
    private_hosts: Path | None = None
    """What is to be the process's own /etc/hosts; None: it has the system's."""


class StartFailed(Exception):
    """A process could not be started; the text is what a container runtime says then."""


class Process:
    """A running process group."""

    def __init__(self, popen: subprocess.Popen[bytes], dog: Watchdog, handle: int | None) -> None:
        self._popen = popen
        self._watchdog = dog
        self._handle = handle
        self._is_over = False

    @classmethod
    def start(cls, command: Command, dog: Watchdog) -> Process:
        """Start a command with its output and errors in one pipe.

        Raises:
            StartFailed: there is no such program, or it cannot be run.
        """
        try:
            argv = [program(command), *command.argv[1:]]
            if command.private_hosts is not None:
                argv = private_names.command_line(command.private_hosts, argv)
            popen = subprocess.Popen(
                argv,
                env=dict(command.environment),
                cwd=command.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StartFailed(f'exec: "{command.argv[0]}": {(error.strerror or str(error)).lower()}') from error
        except ValueError as error:  # a NUL in an argument or variable, a "=" in a variable's name
            raise StartFailed(f'exec: "{command.argv[0]}": invalid argument: {error}') from error
        dog.began(popen.pid)
        try:
            handle = os.pidfd_open(popen.pid) if hasattr(os, "pidfd_open") else None
        except OSError as error:
            cls(popen, dog, None).kill()
            if popen.stdout is not None:
                popen.stdout.close()
            raise StartFailed(f'exec: "{command.argv[0]}": {(error.strerror or str(error)).lower()}') from error
        return cls(popen, dog, handle)

    @property
    def pid(self) -> int:
        """Return the number of the process, which is that of its group."""
        return self._popen.pid

    async def output(self) -> AsyncGenerator[bytes, None]:
        """Yield what the process writes, until all that write into its pipe have ended."""
        pipe = self._popen.stdout
        if pipe is None:
            return
        with pipe:
            os.set_blocking(pipe.fileno(), False)
            while True:
                try:
                    data = os.read(pipe.fileno(), READ_BYTES)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(pipe.fileno())
                    continue
                if not data:
                    return
                yield data

    async def wait(self) -> int:
        """Wait for the end of the process, end the rest of its group, and return its exit code (128 + signal when killed)."""
        if self._handle is not None:
            await trio.lowlevel.wait_readable(self._handle)
        else:  # not on Linux: a thread for each process
            waiting = trio.CapacityLimiter(1)
            await trio.to_thread.run_sync(self._popen.wait, abandon_on_cancel=True, limiter=waiting)
        return self._reap()

    def signal(self, number: int) -> None:
        """Send a signal to the whole group."""
        if not self._is_over:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def ask_to_end(self) -> None:
        """Send SIGTERM to the first process alone, as container runtimes do: what it started is its own to end."""
        if not self._is_over:
            with suppress(ProcessLookupError):
                os.kill(self._popen.pid, signal.SIGTERM)

    async def terminate(self) -> None:
        """Ask the process to end, and wait until it has."""
        if not self._is_over:
            self.ask_to_end()
            await self.wait()

    def kill(self) -> None:
        """End the whole group at once, and wait for its first process, which takes no time."""
        if not self._is_over:
            self.signal(signal.SIGKILL)
            self._reap()

    def _reap(self) -> int:
        """End what is left of the group before its first process is reaped: until then nobody else can have its number."""
        if not self._is_over:
            self.signal(signal.SIGKILL)
            self._is_over = True
            self._popen.wait()
            if self._handle is not None:
                os.close(self._handle)
            self._watchdog.ended(self._popen.pid)
        code = self._popen.returncode
        return 128 - code if code < 0 else code


def program(command: Command) -> str:
    """Return the path of the program that a command names.

    Raises:
        StartFailed: there is none, or it may not be run.
    """
    name = command.argv[0]
    if "/" not in name:
        for directory in command.environment.get("PATH", "").split(":"):
            candidate = Path(directory or ".") / name
            if candidate.is_file() and os.access(candidate, os.X_OK):
                return str(candidate)
        raise StartFailed(f'exec: "{name}": executable file not found in $PATH')
    path = command.directory / name
    if not path.exists():
        raise StartFailed(f'exec: "{name}": stat {name}: no such file or directory')
    if not path.is_file() or not os.access(path, os.X_OK):
        raise StartFailed(f'exec: "{name}": permission denied')
    return str(path)
