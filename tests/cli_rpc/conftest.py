"""A shell with principals, and `fortuned` as real processes."""

import os
import re
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typing_shell import Shell

Fortuned = Callable[..., str]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A shell with principals: root, friend (blessed by root, and trusting it), and stranger (who trusts root)."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("V23_", "VANADIUM_"))}
    environment["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    shell = Shell(tmp_path, environment)
    for name in ("root", "stranger"):
        shell.type(f"vanadium-node principal create --with-passphrase=false {name} {name}")
    shell.environment["V23_CREDENTIALS"] = "root"
    shell.type("vanadium-node principal fork --with-passphrase=false --for 1h friend friend")
    shell.type("vanadium-node principal get default >root.blessings")
    shell.type("V23_CREDENTIALS=stranger vanadium-node principal recognize root.blessings")
    return shell


@pytest.fixture
def fortuned(shell: Shell) -> Iterator[Fortuned]:
    """Start `fortuned` as root and return its address; every one must end well on SIGTERM."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, host: str = "127.0.0.1") -> str:
        process = subprocess.Popen(
            ["fortuned", "--listen", "127.0.0.1:0", *arguments],
            executable=str(Path(sysconfig.get_path("scripts")) / "fortuned"),
            cwd=shell.folder,
            env=shell.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(rf"NAME=/({re.escape(host)}:\d+)\n", line)
        assert found, line
        return found[1]

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert process.stdout is not None
        process.stdout.close()
