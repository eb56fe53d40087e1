"""The forms in which a key or a secret may be written down, and a search for all forms of very many of them at once.

What is searched for is cut into pieces of 32 bytes (a private key is one, a secret eight), so that a part of a secret is found too.
A text is compared by its aligned words of 8 bytes: a form of which the first eight words, at each alignment, are known cannot be in
a text without one of them standing there. That takes 10 ns for a word, however many secrets there are.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

PIECE = 32
WORD = 8

_STANDARD = bytes.maketrans(b"-_", b"+/")
_BETWEEN = b" \t\r\n:\"'"
"""Between the parts of a form that goes over lines, or groups its digits."""
_LINE_ENDS = re.compile(rb"\\+[rn]")
_ESCAPES = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0abtnvfr\\'\"])")
_PEM = re.compile(rb"LS0tLS1CRUdJTi[A-Za-z0-9+/]+")
"""What is encoded once more, such as a file in the data of a Kubernetes Secret; its lines end inside of the key."""
_NAMED = dict(zip(b"0abtnvfr\\'\"", b"\0\a\b\t\n\v\f\r\\'\"", strict=True))


@dataclass(frozen=True, slots=True)
class Taint:
    """Something secret: what it is, and its bytes."""

    kind: str
    value: bytes = field(repr=False)

    @classmethod
    def of(cls, kind: str, value: bytes | str) -> Taint:
        """Return the taint of a key's or secret's bytes, or of the base64url text that stands for them."""
        if isinstance(value, str):
            value = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
        return cls(kind, value)


@dataclass(frozen=True, slots=True)
class Found:
    """That something secret is in a text, and how it is written there."""

    kind: str
    form: str


class TaintSearch:
    """Finds everything that it was told about."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._raw = _Words()
        self._text = _Words()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, taint: Taint) -> None:
        """Look for this one too from now on."""
        if taint.value in self._seen:
            return
        self._seen.add(taint.value)
        text = base64.urlsafe_b64encode(taint.value).rstrip(b"=")
        for piece in _pieces(taint.value):
            self._raw.add(piece, Found(taint.kind, "bytes"))
            for form, written in _forms_of(piece):
                self._text.add(written, Found(taint.kind, form))
            if len(taint.value) <= PIECE:
                self._text.add(str(int.from_bytes(piece, "big")).encode(), Found(taint.kind, "decimal"))
        for piece in _pieces(text):
            for written in _base64_of(piece):
                self._text.add(written, Found(taint.kind, "base64 of base64"))

    def find(self, data: bytes) -> set[Found]:
        """Return what is in a text, in any form."""
        text = data.translate(_STANDARD, _BETWEEN)
        found = self._raw.find(data) | self._text.find(text)
        for word in _PEM.findall(text):
            found |= self.find(base64.b64decode(word[: len(word) // 4 * 4]))
        if b"\\" in data:
            found |= self._raw.find(_ESCAPES.sub(_unescaped, data))
            found |= self._text.find(_LINE_ENDS.sub(b"", data).translate(_STANDARD, _BETWEEN))
        return found


class _Words:
    """The first words of many patterns, at each alignment that they may have in a text."""

    def __init__(self) -> None:
        self._patterns: list[tuple[bytes, Found]] = []
        self._at: dict[int, int | list[int]] = {}

    def add(self, pattern: bytes, found: Found) -> None:
        """Look for a pattern, which has 16 bytes at least."""
        number = len(self._patterns) * WORD
        self._patterns.append((pattern, found))
        for start in range(WORD):
            word = int.from_bytes(pattern[start : start + WORD], _ORDER)
            others = self._at.setdefault(word, number + start)
            if isinstance(others, list):
                others.append(number + start)
            elif others != number + start:
                self._at[word] = [others, number + start]

    def find(self, data: bytes) -> set[Found]:
        """Return what is in the text as it is."""
        words = memoryview(data)[: len(data) // WORD * WORD].cast("Q")
        if self._at.keys().isdisjoint(words):
            return set()
        return {found for at, word in enumerate(words) if word in self._at for found in self._check(data, at, word)}

    def _check(self, data: bytes, at: int, word: int) -> Iterator[Found]:
        candidates = self._at[word]
        for candidate in [candidates] if isinstance(candidates, int) else candidates:
            pattern, found = self._patterns[candidate // WORD]
            start = at * WORD - candidate % WORD
            if start >= 0 and data.startswith(pattern, start):
                yield found


_ORDER: Literal["little", "big"] = "little" if memoryview(b"\1" + bytes(7)).cast("Q")[0] == 1 else "big"


def _pieces(value: bytes) -> list[bytes]:
    """Return the parts of a value that are searched for, none short."""
    starts = range(0, max(1, len(value) - PIECE + 1), PIECE)
    return [value[start : start + PIECE] for start in starts]


def _forms_of(piece: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the forms of some bytes in a text without spaces, in the standard alphabet of base64."""
    yield "hex", piece.hex().encode()
    yield "hex", piece.hex().upper().encode()
    yield "list of numbers", ",".join(map(str, piece)).encode()
    for written in _base64_of(piece):
        yield "base64", written


def _base64_of(piece: bytes) -> Iterator[bytes]:
    """Yield what base64 writes for bytes wherever they stand in what is encoded; what depends on their neighbours is left out."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + piece + bytes(3))
        yield encoded[-(-before * 8 // 6) : (before + len(piece)) * 8 // 6]


def _unescaped(escape: re.Match[bytes]) -> bytes:
    """Return the byte that an escape in a literal stands for."""
    code = escape[1]
    return bytes.fromhex(code[1:].decode()) if code.startswith(b"x") else bytes([_NAMED[code[0]]])
