"""The files of an audit log: appended to durably, rotated by size, recovered after a crash. Everything here blocks.

audit.jsonl                  what is being written
audit-000000000001.jsonl     older ones, by the number of their first line; the oldest are removed
audit-damaged-….jsonl        one that was damaged, set aside: what is left of it is evidence
"""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

from vanadium_node.errors import DecodeError, StorageError
from vanadium_node.storage.chain import BEGINNING, MAX_LINE_BYTES, Link, Verdict, next_line, read_line, verify
from vanadium_node.storage.files import PRIVATE_FILE, explained, sync_directory

DIGITS: Final = 12


class AuditFile:
    """The end of an audit log. A failed append leaves it as it was; the next one tries again.

    A file that somebody else moved, removed or changed while it is written goes on as a new one, after the last line written.
    """

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        self.path = path
        self.recovered: list[str] = []
        """What was found wrong when it was opened, and what was done about it."""
        self.last = BEGINNING
        self._max_bytes = max_bytes
        self._keep = keep
        self._descriptor: int | None = None
        self._first = 1
        self._size = 0
        self._after: Link | None = None

    def append(self, entries: Sequence[Mapping[str, object]]) -> None:
        """Write entries, each as a line, and make them durable: all of them, or none.

        Raises:
            StorageError: they could not be written.
        """
        with explained("write the audit log", self.path):
            descriptor = self._open()
            noted = [
                {"time": entries[0].get("time", ""), "event": "recovered", "reason": why} for why in self.recovered
            ]
            data, last = _lines([*noted, *entries], self.last)
            if self._size and self._size + len(data) > self._max_bytes:
                descriptor = self._rotate()
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            except OSError:
                self._take_back()
                raise
        self.recovered.clear()
        self.last = last
        self._size += len(data)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        """Return the open file, recovered and made if need be."""
        if self._descriptor is not None:
            if self._is_as_left(self._descriptor):
                return self._descriptor
            self.close()
            self._after = self.last
            self.recovered.append(f"it was moved, removed or changed by somebody else after line {self.last.seq}")
        self.last, self._first, self._size = self._recover() if self._after is None else self._go_on(self._after)
        descriptor = os.open(
            self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE
        )
        try:
            sync_directory(self.path.parent)
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor, self._after = descriptor, None
        return descriptor

    def _is_as_left(self, descriptor: int) -> bool:
        """Tell whether the open file is still the one at the path, and no longer or shorter than the last append left it."""
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor)) and there.st_size == self._size

    def _go_on(self, after: Link) -> tuple[Link, int, int]:
        """Put aside what somebody else left at the path. Return what `_recover` does."""
        if self.path.exists() and self.path.stat().st_size:
            self.path.rename(self._damaged_path())
        return after, after.seq + 1, 0

    def _recover(self) -> tuple[Link, int, int]:
        """Remove a line that a crash left unfinished; set a damaged file aside. Return the end, the first number, the size."""
        size = self.path.stat().st_size if self.path.exists() else 0
        whole = _end_of_last_line(self.path, size) if size else 0
        if whole < size:
            os.truncate(self.path, whole)
            self.recovered.append(f"a line of {size - whole} bytes without an end was removed: the agent died in it")
        if whole == 0:
            last = self._end_of_rotated()
            return last, last.seq + 1, 0
        try:
            last = _last_link(self.path)
            first, _ = read_line(_first_line(self.path))
        except DecodeError as error:
            return self._set_aside(error)
        return last, first.seq, whole

    def _set_aside(self, error: DecodeError) -> tuple[Link, int, int]:
        found, aside = verify_file(self.path), self._damaged_path()
        self.path.rename(aside)
        self.recovered.append(
            f"the file was damaged and set aside as '{aside.name}': line {found.line or found.lines}: {found.problem or error.message}"
        )
        last = found.last or self._end_of_rotated()
        return last, last.seq + 1, 0

    def _damaged_path(self) -> Path:
        return self.path.with_name(f"{self.path.stem}-damaged-{secrets.token_hex(4)}{self.path.suffix}")

    def _end_of_rotated(self) -> Link:
        for path in reversed(rotated(self.path)):
            with suppress(DecodeError):
                return _last_link(path)
            self.recovered.append(f"the end of '{path.name}' is damaged")
        return BEGINNING

    def _rotate(self) -> int:
        """Begin a new file, and remove the oldest ones."""
        older = self.path.with_name(f"{self.path.stem}-{self._first:0{DIGITS}}{self.path.suffix}")
        self.path.rename(older)
        self.close()
        if self._keep:
            for path in rotated(self.path)[: -self._keep]:
                path.unlink(missing_ok=True)
        return self._open()

    def _take_back(self) -> None:
        """Remove what a failed write left. Where even that fails, the next append begins with a recovery."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
                return
        self.close()


def rotated(path: Path) -> list[Path]:
    """Return the older files of an audit log, the oldest first."""
    digits = "[0-9]" * DIGITS
    return sorted(path.parent.glob(f"{path.stem}-{digits}{path.suffix}"))


def verify_file(path: Path, after: Link | None = None) -> Verdict:
    """Check the lines of one file; `after` is the last line of the file before it, None if unknown.

    Raises:
        StorageError: it cannot be read.
    """
    with explained("read", path):
        return verify(_read_lines(path), after)


def first_number(path: Path) -> int:
    """Return the number of a file's first line; 0 where there is none that can be read.

    Raises:
        StorageError: it cannot be read.
    """
    with explained("read", path):
        try:
            return read_line(_first_line(path))[0].seq
        except DecodeError:
            return 0


def _lines(entries: Sequence[Mapping[str, object]], last: Link) -> tuple[bytes, Link]:
    parts = []
    for entry in entries:
        line, last = next_line(last, entry)
        if len(line) > MAX_LINE_BYTES:
            raise StorageError(f"an entry of the audit log is longer than {MAX_LINE_BYTES} bytes")
        parts.append(line + b"\n")
    return b"".join(parts), last


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line


def _first_line(path: Path) -> bytes:
    return next(islice(_read_lines(path), 1), b"").removesuffix(b"\n")


def _end_of_last_line(path: Path, size: int) -> int:
    """Return where the last whole line ends; 0 where there is none in the part that one append may have left unfinished."""
    with path.open("rb") as file:
        position = size
        while position > 0:
            start = max(0, position - MAX_LINE_BYTES)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            position = start
    return 0


def _last_link(path: Path) -> Link:
    """Return the place of the last line, which has an end. Raises DecodeError."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * MAX_LINE_BYTES))
        tail = file.read()
    return read_line(tail.removesuffix(b"\n").rpartition(b"\n")[2])[0]
