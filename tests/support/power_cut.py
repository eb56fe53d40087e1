"""What is on a disk after the power is cut, worked out from the system calls of a program: only what was flushed with success.

After a flush that failed, all that was written to the file since the one before is lost for good, as it is on Linux, where the
pages count as written from then on: a later flush that succeeds does not bring them back.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CALLS = ("pwrite64", "write", "ftruncate", "fsync", "fdatasync")

_CALL = re.compile(rb"(?P<time>[\d.]+) (?P<name>\w+)\(\d+<(?P<path>[^>]*)>(?P<arguments>.*)\) += (?P<result>-?\d+)")
_DATA = re.compile(rb', "(?P<data>(?:[^"\\]|\\.)*)", \d+(?:, (?P<at>\d+))?')


@dataclass(slots=True)
class _File:
    """A file as programs see it, and as it is on the disk."""

    seen: bytearray
    flushed: bytes = field(init=False)
    unflushed: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.flushed = bytes(self.seen)

    def write(self, at: int, data: bytes) -> None:
        """Write; not yet to the disk."""
        self.unflushed.append((at, data))
        self.seen = bytearray(_written(bytes(self.seen), at, data))

    def truncate(self, size: int) -> None:
        """Change the size, at once on the disk too: of what the tests look at, only growth is acknowledged."""
        self.seen = bytearray(bytes(self.seen[:size]).ljust(size, b"\0"))
        self.flushed = self.flushed[:size]

    def flush(self, is_done: bool) -> None:
        """Bring to the disk what was written; or lose it."""
        for at, data in self.unflushed if is_done else []:
            self.flushed = _written(self.flushed, at, data)
        self.unflushed.clear()


def _written(content: bytes, at: int, data: bytes) -> bytes:
    return content[:at].ljust(at, b"\0") + data + content[at + len(data) :]


def options(record: Path, files: Iterable[Path]) -> list[str]:
    """Return the options with which strace records the calls on some files, each thread's in a file of its own."""
    of_files = [part for file in files for part in ("-P", str(file))]
    return ["-ff", "-ttt", "-y", "-s", "1000000", "-e", f"trace={','.join(CALLS)}", *of_files, "-o", str(record)]


def cut(record: Path, before: dict[Path, bytes]) -> dict[Path, bytes]:
    """Return what is on the disk of some files, by what they were before the recorded calls."""
    files = {path: _File(bytearray(data)) for path, data in before.items()}
    for name, path, arguments, result in _calls(record):
        file = files.get(path)
        if file is None:
            continue
        match name:
            case b"fsync" | b"fdatasync":
                file.flush(result == 0)
            case b"ftruncate" if result == 0:
                file.truncate(int(arguments.strip(b", ")))
            case b"write" | b"pwrite64" if result > 0:
                found = _DATA.fullmatch(arguments)
                assert found is not None, arguments[:200]
                data, _ = codecs.escape_decode(found["data"])
                file.write(len(file.seen) if found["at"] is None else int(found["at"]), data[:result])
    return {path: file.flushed for path, file in files.items()}


def _calls(record: Path) -> Iterator[tuple[bytes, Path, bytes, int]]:
    """Yield the calls of all threads in their order."""
    lines = [line for path in record.parent.glob(f"{record.name}.*") for line in path.read_bytes().splitlines()]
    calls = [found for found in map(_CALL.match, lines) if found is not None]
    for call in sorted(calls, key=lambda found: float(found["time"])):
        yield call["name"], Path(call["path"].decode()), call["arguments"], int(call["result"])
