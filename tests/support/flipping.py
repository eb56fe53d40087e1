"""Flipping the bytes of a file, one at a time: those that hold something, and a sample of the empty ones."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

SAMPLE = 100
"""Of the bytes that are zero, so many; VANADIUM_TEST_EVERY_BYTE=1 takes all."""


def places(content: bytes, seed: int = 0, every: int = 1) -> list[int]:
    """Return where to flip: each, or each `every`-th, byte that holds something, and some of the others, always the same."""
    if os.environ.get("VANADIUM_TEST_EVERY_BYTE"):
        return list(range(len(content)))
    holding = [at for at, byte in enumerate(content) if byte]
    empty = [at for at, byte in enumerate(content) if not byte]
    draw = random.Random(seed)
    return sorted({*holding[::every], *draw.sample(empty, min(SAMPLE, len(empty)))})


def flipped(content: bytes, at: int) -> bytes:
    """Return the content with one byte changed: all of its bits at even places, a single one at odd ones."""
    mask = 1 << at % 8 if at % 2 else 0xFF
    return content[:at] + bytes((content[at] ^ mask,)) + content[at + 1 :]


def flips(path: Path, every: int = 1) -> Iterator[int]:
    """Flip each of those bytes of a file in place, yield where, and put it back."""
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for at in places(content, every=every):
            file.seek(at)
            file.write(flipped(content, at)[at : at + 1])
            yield at
            file.seek(at)
            file.write(content[at : at + 1])
