"""The machine's own log: what it has to say that is about no object, and bugs with their tracebacks."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

MAX_JOURNAL_BYTES: Final = 4 * 1024 * 1024


class Journal:
    """Lines in a file, the older half of which is dropped when it grows too long."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._path = path
        self._now = now

    def note(self, text: str) -> None:
        """Write a line. A disk that is full loses it: the machine goes on."""
        with suppress(OSError):
            self._write(text)

    def _write(self, text: str) -> None:
        line = f"{self._now().isoformat(timespec='milliseconds')} {text}\n"
        if self._path.exists() and self._path.stat().st_size > MAX_JOURNAL_BYTES:
            self._path.replace(self._path.with_suffix(".1"))
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line)

    def bug(self, where: str, error: BaseException) -> None:
        """Write down an exception that should not have happened."""
        self.note(f"bug in {where}: {''.join(traceback.format_exception(error)).rstrip()}")


def cause_of(error: BaseException) -> BaseException:
    """Return the first error in a group of groups of errors; any other error is its own cause."""
    return cause_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
