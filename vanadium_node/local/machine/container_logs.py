"""What containers print: a file per run of a container, line by line with the time, of limited size, followed by readers.

A line of the file is `TIME F TEXT` or, for a piece of a line that goes on, `TIME P TEXT`, as container runtimes write it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import trio

MAX_LOG_BYTES: Final = 10 * 1024 * 1024
"""After so many bytes a log goes on in a new file; the one before is kept. The same as a kubelet's default."""

MAX_LINE_BYTES: Final = 16 * 1024
_READ_BYTES: Final = 256 * 1024


class ContainerLog:
    """The output of one run of a container."""

    def __init__(self, path: Path, now: Callable[[], datetime], *, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._path = path
        self._now = now
        self._max_bytes = max_bytes
        self._rest = b""
        self._written = 0
        self._rotations = 0
        self._grown = trio.Event()
        self.is_closed = False
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    @property
    def _older(self) -> Path:
        return self._path.with_suffix(".old")

    def write(self, data: bytes) -> None:
        """Add what a container has printed."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        out = bytearray()
        stamp = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode() + b"000Z"
        for line in lines:
            _add(out, stamp, line, is_whole=True)
        while len(self._rest) >= MAX_LINE_BYTES:
            _add(out, stamp, self._rest[:MAX_LINE_BYTES], is_whole=False)
            self._rest = self._rest[MAX_LINE_BYTES:]
        self._append(bytes(out))

    def close(self) -> None:
        """Write a last line without an end, and let readers who follow go."""
        if self.is_closed:
            return
        if self._rest:
            out = bytearray()
            stamp = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode() + b"000Z"
            _add(out, stamp, self._rest, is_whole=False)
            self._append(bytes(out))
        os.close(self._file)
        self.is_closed = True
        self._grown.set()

    def remove(self) -> None:
        """Remove the files."""
        self.close()
        for path in (self._path, self._older):
            path.unlink(missing_ok=True)

    def last_lines(self, count: int, max_bytes: int) -> str:
        """Return the end of the log as text."""
        text = b"".join(_payload(line) for line in self._lines())[-max_bytes:]
        return "\n".join(text.decode(errors="replace").splitlines()[-count:])

    async def read(
        self, *, follow: bool, tail_lines: int | None, timestamps: bool, since: datetime | None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the log in pieces, each of whole lines, from its last `tail_lines`, or since a time; then what follows."""
        rotations, offset = self._rotations, self._written
        piece = self._selected(tail_lines, since, timestamps=timestamps)
        if piece:
            yield piece
        while follow:
            grown = self._grown
            if self._rotations > rotations + 1:  # too slow: what was in between is gone
                rotations, offset = self._rotations - 1, 0
            has_rotated = self._rotations != rotations
            data = _tail(self._older if self._rotations == rotations + 1 else self._path, offset)
            offset += len(data)
            if data:
                yield _rendered(_split(data), timestamps=timestamps)
            elif has_rotated:
                rotations, offset = self._rotations, 0
            elif self.is_closed:
                return
            else:
                await grown.wait()

    def _append(self, data: bytes) -> None:
        if not data:
            return
        if self._written + len(data) > self._max_bytes and self._written:
            self._rotate()
        os.write(self._file, data)
        self._written += len(data)
        self._grown.set()
        self._grown = trio.Event()

    def _rotate(self) -> None:
        os.close(self._file)
        self._path.replace(self._older)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._written = 0
        self._rotations += 1

    def _lines(self) -> Iterator[bytes]:
        for path in (self._older, self._path):
            with suppress(FileNotFoundError):
                yield from _split(path.read_bytes())

    def _selected(self, tail_lines: int | None, since: datetime | None, *, timestamps: bool) -> bytes:
        lines = list(self._lines())
        if since is not None:
            bound = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
            lines = [line for line in lines if line >= bound]
        if tail_lines is not None:
            lines = lines[_start_of_last(lines, tail_lines) :]
        return _rendered(lines, timestamps=timestamps)


def seconds_ago(now: datetime, seconds: int | None) -> datetime | None:
    """Return the time so many seconds before `now`."""
    return None if seconds is None else now - timedelta(seconds=seconds)


def _add(out: bytearray, stamp: bytes, text: bytes, *, is_whole: bool) -> None:
    out += stamp + (b" F " if is_whole else b" P ") + text + b"\n"


def _payload(line: bytes) -> bytes:
    """Return what the container printed, from a line of the file."""
    _, kind, text = line.split(b" ", 2)
    return text if kind == b"F" else text[:-1]


def _rendered(lines: list[bytes], *, timestamps: bool) -> bytes:
    if not timestamps:
        return b"".join(map(_payload, lines))
    out, continues = bytearray(), False
    for line in lines:
        stamp, kind, _ = line.split(b" ", 2)
        out += (b"" if continues else stamp + b" ") + _payload(line)
        continues = kind == b"P"
    return bytes(out)


def _start_of_last(lines: list[bytes], count: int) -> int:
    """Return the index at which the last `count` lines begin, each of which may be in several pieces."""
    position, seen = len(lines), 0
    while position > 0 and seen < count:
        position -= 1
        seen += position == 0 or lines[position - 1].split(b" ", 2)[1] == b"F"
    return position


def _split(data: bytes) -> list[bytes]:
    """Return whole lines, with their ends; unlike `splitlines`, only a line feed ends one."""
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _tail(path: Path, offset: int) -> bytes:
    """Return whole lines from a place in a file on."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(_READ_BYTES)
    return data[: data.rfind(b"\n") + 1]
