"""What must never be written down, and finding it in each form in which it could be."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

PREFIX_BYTES = 12
"""By so many first bytes a form is sought; all of it must follow."""


class Taints:
    """Private keys and secrets of this session, by the beginning of each of their forms."""

    def __init__(self) -> None:
        self._forms: dict[bytes, list[tuple[str, str, bytes]]] = {}
        self._values: set[bytes] = set()
        self._read: dict[Path, int] = {}

    def __len__(self) -> int:
        return len(self._values)

    def learn(self, kind: str, value: bytes) -> None:
        """Remember one."""
        if value not in self._values:
            self._values.add(value)
            for name, form in forms_of(value):
                self._forms.setdefault(form[:PREFIX_BYTES], []).append((kind, name, form))

    def learn_from(self, folder: Path) -> None:
        """Remember what other processes have written down there (`learning`), since the last time."""
        for path in folder.iterdir():
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                lines = file.read().splitlines(keepends=True)
            whole = [line for line in lines if line.endswith(b"\n")]
            self._read[path] = self._read.get(path, 0) + sum(map(len, whole))
            for line in whole:
                kind, _, value = line.decode().strip().partition(" ")
                self.learn(kind, bytes.fromhex(value))

    def find(self, text: bytes) -> str:
        """Return what stands in a text, and in which form, never the value itself; empty where nothing does."""
        one_line = text.replace(b"\\n", b"").replace(b"\n", b"").replace(b"\r", b"")
        for each in (text, one_line) if one_line != text else (text,):
            for at in range(len(each) - PREFIX_BYTES + 1):
                for kind, name, form in self._forms.get(each[at : at + PREFIX_BYTES], ()):
                    if each.startswith(form, at):
                        return f"a {kind} ({name})"
        return ""


def forms_of(value: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the forms in which bytes may be written down: alone, or inside of a longer encoding such as DER and PEM."""
    yield "raw", value
    yield "hex", value.hex().encode()
    yield "hex in capitals", value.hex().upper().encode()
    yield "decimal", str(int.from_bytes(value, "big")).encode()
    yield "escaped", repr(value)[2:-1].encode()
    for before, mixed in enumerate((0, 2, 3)):  # the first digits may stand for what comes before it, too
        digits = base64.b64encode(bytes(before) + value)[mixed:].rstrip(b"=")[:-2]
        yield "base64", digits
        yield "base64url", digits.replace(b"+", b"-").replace(b"/", b"_")
