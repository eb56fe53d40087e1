"""A terminal for programs that talk to a person: what they print is waited for, and answered."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE_SECONDS = 30.0
CTRL_C = "\x03"
NO_ECHO_NEEDS_A_MOMENT = 0.05


@dataclass
class Terminal:
    """A program with a terminal of its own."""

    process: "subprocess.Popen[bytes]"
    screen: int
    shown: str = ""
    _read: int = 0

    def expect(self, text: str) -> str:
        """Wait until the program has printed the text, after what was expected before, and return all up to it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.shown[self._read :]:
            assert time.monotonic() < deadline, f"no '{text}' in: {self.shown}"
            assert self._take() or text in self.shown[self._read :], f"it ended without '{text}': {self.shown}"
        end = self.shown.index(text, self._read) + len(text)
        before, self._read = self.shown[self._read : end], end
        return before

    def type(self, text: str) -> None:
        """Type keys. A prompt turns the echo off just before it is printed, or just after: wait for a moment."""
        time.sleep(NO_ECHO_NEEDS_A_MOMENT)
        os.write(self.screen, text.encode())

    def end(self) -> int:
        """Read to the end and return the exit status."""
        while self._take():
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _take(self) -> bool:
        """Read what is there; tell whether there may be more."""
        assert select.select([self.screen], [], [], PATIENCE_SECONDS)[0], f"nothing happens: {self.shown}"
        try:
            data = os.read(self.screen, 4096)
        except OSError:  # Linux says so when the last program of the terminal has ended
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


@contextmanager
def on_terminal(folder: Path, environment: Mapping[str, str], *arguments: str) -> Iterator[Terminal]:
    """Run `vanadium-node ARGUMENTS…` on a terminal."""
    screen, end = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "vanadium_node", *arguments],
            stdin=end,
            stdout=end,
            stderr=end,
            cwd=folder,
            env=dict(environment),
            preexec_fn=lambda: os.login_tty(end),  # noqa: PLW1509 - no thread of the tests holds a lock that it takes
        ) as process:
            os.close(end)
            try:
                yield Terminal(process, screen)
            finally:
                process.kill()
    finally:
        os.close(screen)
