"""Programs that stand in for others and note what they are told, and the command line run in this process."""

import json
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
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

    async def __call__(self, *arguments: str) -> Finished:
        """Run a command to its end."""
        command = [sys.executable, "-m", "vanadium_node", "controller", *self.options, *arguments]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("V23_")}
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, cwd=self.folder, env=environment
        )
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())
