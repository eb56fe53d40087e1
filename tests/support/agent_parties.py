"""Principals, settings and processes for the tests of the agents."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio

from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal

START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE_SECONDS = 60.0


def mock_now() -> datetime:
    """Return the wall clock's time that goes with trio's clock, for tests on a MockClock."""
    return START + timedelta(seconds=trio.current_time())


async def blessed(by: Principal, extension: str, *caveats: Caveat) -> Principal:
    """Return a fresh principal that another one blessed, with the same roots."""
    principal = Principal((await Principal.create(PrivateKey.generate(), "temporary")).signer)
    await principal.adopt(await bless(by, principal, extension, *caveats))
    return principal


async def bless(by: Principal, whom: Principal, extension: str, *caveats: Caveat) -> Blessings:
    """Return the default blessings of one principal extended to the key of another."""
    own = by.store.default
    assert own is not None
    return await by.bless(whom.public_key, own, extension, list(caveats) or [Caveat.unconstrained()])


async def new_root(name: str = "root") -> Principal:
    """Return a fresh principal that is its own root."""
    return await Principal.create(PrivateKey.generate(), name)


def default_of(principal: Principal) -> Blessings:
    """Return the default blessings of a principal that has some."""
    assert principal.store.default is not None
    return principal.store.default


@contextmanager
def short_directory() -> Iterator[Path]:
    """Make a temporary directory with a short name: paths of sockets end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="va-") as name:
        yield Path(name)


def clean_environment(**added: str) -> dict[str, str]:
    """Return this process's environment without what names principals, and with what is added."""
    ours = ("V23_", "VANADIUM_", "AGENT_NAME", "ROOT_BLESSINGS", "CLAIMER", "ADMIN")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | added


@dataclass(slots=True)
class Daemon:
    """A daemon of ours in a process of its own, with its output in files."""

    process: "subprocess.Popen[bytes]"
    output: Path
    log: Path

    def announced(self, what: str) -> str:
        """Wait for the line `WHAT=value` on standard output and return the value."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for line in self.output.read_text().splitlines(keepends=True):
                if line.startswith(f"{what}=") and line.endswith("\n"):
                    return line.removeprefix(f"{what}=").strip()
            assert self.process.poll() is None, f"it ended: {self.log.read_text()}"
            time.sleep(0.02)
        raise AssertionError(f"no {what}= within {PATIENCE_SECONDS} s: {self.log.read_text()}")

    def logged(self, what: str) -> str:
        """Wait until something is in the log, and return the log."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if what in (log := self.log.read_text()):
                return log
            time.sleep(0.02)
        raise AssertionError(f"'{what}' is not in the log: {self.log.read_text()}")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@dataclass(slots=True)
class Machine:
    """Where a test's processes run."""

    folder: Path
    daemons: list[Daemon] = field(default_factory=list)

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()
    ) -> Daemon:
        """Start `vanadium-node ARGUMENTS…`, within another program where there is one."""
        number = len(self.daemons)
        output, log = self.folder / f"out-{number}", self.folder / f"log-{number}"
        with output.open("wb") as out, log.open("wb") as err:
            process = subprocess.Popen(
                [*within, sys.executable, "-m", "vanadium_node", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=self.folder,
                env=dict(environment or clean_environment()),
            )
        daemon = Daemon(process, output, log)
        self.daemons.append(daemon)
        return daemon

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run `vanadium-node ARGUMENTS…` to its end."""
        return run_module(self.folder, arguments, environment or clean_environment(), stdin)

    def run_under(self, prefix: Sequence[str], *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `vanadium-node ARGUMENTS…` to its end, under another command."""
        return subprocess.run(
            [*prefix, sys.executable, "-m", "vanadium_node", *arguments],
            cwd=self.folder, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip

    def end(self) -> None:
        """Kill whatever still runs."""
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(PATIENCE_SECONDS)


def run_module(
    folder: Path, arguments: Sequence[str], environment: Mapping[str, str], stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run `python -m vanadium_node ARGUMENTS…` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "vanadium_node", *arguments],
        cwd=folder,
        env=dict(environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


async def eventually(is_true: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a function returns something true."""
    with trio.fail_after(seconds):
        while not is_true():  # noqa: ASYNC110 - files and other processes give no event
            await trio.sleep(0.01)
