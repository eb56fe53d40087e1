"""Programs that stand in for others and note what they are told, and the command line run in this process."""

import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import trio


def program(folder: Path, name: str, body: str) -> str:
    """Write a program that appends its arguments and KUBECONFIG to `calls`, then does something."""
    path = folder / name
    note = (
        f"open({str(folder / 'calls')!r}, 'a').write(json.dumps([sys.argv[1:], os.environ.get('KUBECONFIG')]) + '\\n')"
    )
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\n{note}\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def calls(folder: Path) -> list[tuple[list[str], str | None]]:
    """Return the arguments and KUBECONFIG of each call, in order."""
    return [tuple(json.loads(line)) for line in (folder / "calls").read_text().splitlines()]


def run_cli(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `vanadium-node controller …` and return its status and what it printed."""
    from vanadium_node.__main__ import main

    with pytest.raises(SystemExit) as ended:
        main(["controller", *arguments])
    printed = capfd.readouterr()
    code: Any = ended.value.code
    return (code or 0), printed.out, printed.err


@dataclass
class Finished:
    """How a process ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass
class ControllerProcess:
    """`vanadium-node controller OPTIONS …` in a process of its own, in a folder with settings."""

    folder: Path
    options: tuple[str, ...]

    def _start(self, arguments: tuple[str, ...]) -> tuple[list[str], dict[str, Any]]:
        command = [sys.executable, "-m", "vanadium_node", "controller", *self.options, *arguments]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("V23_")}
        return command, {"cwd": self.folder, "env": environment}

    async def __call__(self, *arguments: str) -> Finished:
        """Run a command to its end."""
        command, how = self._start(arguments)
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, **how)
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator["Running"]:
        """Run a command while the block lasts."""
        command, how = self._start(arguments)
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, command, stdout=PIPE, stderr=PIPE, check=False, **how)
            yield Running(await nursery.start(run))
            nursery.cancel_scope.cancel()


@dataclass
class Running:
    """A command that runs, read line by line."""

    process: trio.Process
    _rest: bytes = b""

    async def line(self) -> str:
        """Return the next line of its standard output."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            data = await self.process.stdout.receive_some(4096)
            assert data, "the command ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def interrupted(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit status and what it said on standard error."""
        assert self.process.stderr is not None
        self.process.send_signal(signal.SIGINT)
        status = await self.process.wait()
        return status, (await self.process.stderr.receive_some(4096)).decode()
