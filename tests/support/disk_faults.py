"""Disks that refuse, and bytes that change on them.

Without privileges a limit on the size of files stands in for a disk that is full; whoever may mount has a real one, in memory.
"""

import os
import random
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

EVERY_BYTE = bool(os.environ.get("VANADIUM_TEST_EVERY_BYTE"))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes: writing further fails, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def unwritable(file: Path) -> Iterator[None]:
    """Let nothing more be appended to a file that others have open: its size is as large as files may be."""
    with file_size_limit(file.stat().st_size):
        yield


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system in memory, mounted at a path."""

    path: Path

    def resize(self, size: str) -> None:
        """Make it larger or smaller, while it is in use."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.path / "ballast").open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    def empty(self) -> None:
        """Make room again."""
        (self.path / "ballast").unlink()


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[SmallDisk]:
    """Mount a small disk at a path, or skip the test where nothing may be mounted."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a full disk needs the right to mount one: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def flipped(data: bytes, at: int, bit: int) -> bytes:
    """Return data with one bit changed."""
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def flips(data: bytes, *, rest: int = 200) -> Iterator[tuple[int, int]]:
    """Yield the place and the bit of a flip for each byte: the same ones each time. Of the bytes that are zero, which are mostly
    free space, the plain run takes some; VANADIUM_TEST_EVERY_BYTE=1 takes each.
    """
    chance = random.Random(20260101)
    free = [at for at, byte in enumerate(data) if not byte and at >= 100]
    left_out = set() if EVERY_BYTE else set(free) - set(chance.sample(free, min(rest, len(free))))
    for at in range(len(data)):
        bit = chance.randrange(8)
        if at not in left_out:
            yield at, bit
