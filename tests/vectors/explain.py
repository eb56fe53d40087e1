"""Explains the bytes of a frame one by one, with a reader of CBOR of its own (RFC 8949 §3), which knows nothing of the code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import unpack

WIDTH = 16
"""Bytes in a line."""
MAJOR = ("unsigned", "negative", "bytes", "text", "array", "map", "tag", "simple")
SIMPLE = {0xF4: "false", 0xF5: "true", 0xF6: "null"}
ALGORITHMS = {-7: "ES256"}
TYPE_HEADER = 16


@dataclass(frozen=True)
class Part:
    """What a value is, and what is in it."""

    name: str
    items: tuple[Part, ...] = ()
    """Of an array: each in turn."""
    each: Part | None = None
    """Of an array: all alike."""
    inside: Part | None = None
    """Of a byte string that is CBOR itself."""
    pieces: tuple[tuple[int, str], ...] = ()
    """Of a byte string that is none: its lengths and meanings."""
    meanings: tuple[tuple[int, str], ...] = ()
    """Of a number."""


KEY = Part(
    "public key, a SubjectPublicKeyInfo in DER (RFC 5480)",
    pieces=(
        (23, "SEQUENCE of AlgorithmIdentifier (id-ecPublicKey, prime256v1) …"),
        (3, "… and a BIT STRING of 66 bytes, no bits unused"),
        (1, "a point, uncompressed"),
        (32, "its x"),
        (32, "its y"),
    ),
)
CAVEAT = Part("caveat", items=(Part("id", meanings=((0, "constant"),)), Part("parameter")))


def sign1(name: str, payload: Part) -> Part:
    """Return what a COSE_Sign1 is (RFC 9052 §4.2)."""
    return Part(
        f"{name}: a COSE_Sign1",
        items=(
            Part("protected header", inside=Part("header")),
            Part("unprotected header"),
            Part("payload", inside=payload),
            Part("signature", pieces=((32, "r"), (32, "s, the smaller of the two possible"))),
        ),
    )


CERTIFICATE = sign1("certificate", Part("certified", items=(Part("extension"), KEY, Part("caveats", each=CAVEAT))))
PROOF = sign1(
    "proof",
    Part(
        "signed",
        items=(Part("role"), Part("channel binding"), Part("SHA-256 of [versions, key, blessings, discharges]")),
    ),
)
STREAM = Part("stream")
FIELDS = {
    0: ("auth", (Part("versions"), KEY, Part("blessings", inside=Part("chains", each=Part("chain", each=Part("link", inside=CERTIFICATE)))), Part("discharges"), Part("proof", inside=PROOF))),
    1: ("request", (Part("method"), Part("suffix"), Part("arguments"), Part("deadline in ms"), Part("items follow"), Part("granted blessings"), Part("discharges"), Part("trace"))),
    2: ("response", (Part("result"), Part("error", items=(Part("code"), Part("sentence"), Part("fields"))))),
    3: ("item", (Part("value"),)),
    4: ("end", ()),
    5: ("cancel", ()),
    6: ("credit", (Part("bytes"),)),
    7: ("ping", (Part("number"),)),
    8: ("pong", (Part("number"),)),
    9: ("goaway", (Part("code; empty: draining"), Part("reason"))),
}  # fmt: skip


def explain(frame: bytes) -> list[str]:
    """Return lines of `hex  # meaning`, which together are the frame's bytes."""
    kind = _number(frame, _head(frame, 0)[2] + 1)[0]
    name, fields = FIELDS.get(kind, ("unknown", (Part("whatever it means"),)))
    array = Part(f"{name} frame", items=(Part("kind", meanings=((kind, name),)), STREAM, *fields))
    reader = _Reader(frame)
    reader.value(Part("frame", inside=array), 0)
    assert reader.at == len(frame), "bytes after the frame"
    return list(_aligned(reader.lines))


def _aligned(lines: list[tuple[int, bytes, str]]) -> Iterator[str]:
    for depth, data, meaning in lines:
        for start in range(0, len(data), WIDTH):
            indent = "  " * depth
            text = meaning if start == 0 else "…"
            yield f"{indent}{data[start : start + WIDTH].hex(' ')}".ljust(70) + f"# {indent}{text}"


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the major type, the number and where what follows begins."""
    first = data[at]
    extra = first & 0x1F
    digits = {24: 1, 25: 2, 26: 4, 27: 8}.get(extra, 0)
    number = int.from_bytes(data[at + 1 : at + 1 + digits]) if digits else extra
    return first >> 5, number, at + 1 + digits


def _number(data: bytes, at: int) -> tuple[int, int]:
    major, number, end = _head(data, at)
    return (number if major == 0 else -1 - number), end


class _Reader:
    """Walks over CBOR, and takes note of what each byte is."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.lines: list[tuple[int, bytes, str]] = []

    def take(self, end: int, depth: int, meaning: str) -> None:
        self.lines.append((depth, self.data[self.at : end], meaning))
        self.at = end

    def value(self, part: Part, depth: int) -> None:
        """Explain one value."""
        major, number, begin = _head(self.data, self.at)
        kind = MAJOR[major]
        match kind:
            case "unsigned" | "negative":
                value = number if kind == "unsigned" else -1 - number
                meaning = dict(part.meanings).get(value)
                self.take(begin, depth, f"{part.name}: {value}" + (f", {meaning}" if meaning else ""))
            case "simple":
                meaning = (
                    SIMPLE.get(self.data[self.at]) or f"{unpack('>d', self.data[begin - 8 : begin])[0]} in 64 bits"
                )
                self.take(begin, depth, f"{part.name}: {meaning}")
            case "bytes":
                self.byte_string(part, depth, number, begin)
            case "text":
                text = self.data[begin : begin + number].decode()
                self.take(begin, depth, f"{part.name}: text of {number} bytes" + ("" if text else ", empty"))
                self.take(begin + number, depth + 1, repr(text))
            case "array":
                self.take(begin, depth, f"{part.name}: array of {number}")
                for place in range(number):
                    known = part.items[place] if place < len(part.items) else part.each
                    self.value(known or Part(f"[{place}]"), depth + 1)
            case "map":
                self.take(begin, depth, f"{part.name}: map of {number}")
                for _ in range(number):
                    self.pair(depth + 1)
            case "tag":
                self.take(begin, depth, f"{part.name}, tag {number}")
                self.value(replace(part, name="its parts"), depth)

    def byte_string(self, part: Part, depth: int, size: int, begin: int) -> None:
        """Explain a byte string, and what is in it."""
        self.take(begin, depth, f"{part.name}: byte string of {size}")
        end = begin + size
        if part.inside is not None:
            self.value(part.inside, depth + 1)
            assert self.at == end, part.name
        elif part.pieces:
            assert sum(length for length, _ in part.pieces) == size, part.name
            for length, meaning in part.pieces:
                self.take(self.at + length, depth + 1, meaning)
        elif size:
            self.take(end, depth + 1, "its bytes")

    def pair(self, depth: int) -> None:
        """Explain a key of a map and its value; keys that are numbers are COSE's headers."""
        if MAJOR[self.data[self.at] >> 5] == "text":
            self.value(Part("key"), depth)
            self.value(Part("value"), depth)
            return
        key, _ = _number(self.data, self.at)
        is_type = key == TYPE_HEADER
        self.value(Part("header", meanings=((1, "alg"), (TYPE_HEADER, "typ (RFC 9596)"))), depth)
        self.value(Part("what is signed" if is_type else "algorithm", meanings=tuple(ALGORITHMS.items())), depth)
