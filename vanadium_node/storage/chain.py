"""A chain of JSON lines: each names the hash of the one before, so that none can be changed, removed or put in unseen.

    {"seq":1,"time":"…","event":"…",…,"prev":"<hash of the line before>","hash":"<SHA-256 of all before this field>"}

`hash` is over the bytes of the line up to `,"hash":`, closed by `}`. The first line of all has 64 zeros as `prev`. Lines cut
off at the end leave no gap: who wants to notice that too keeps the last `hash` elsewhere, such as in the program's log.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from vanadium_node.errors import DecodeError

MAX_LINE_BYTES: Final = 64 * 1024
_HASH_FIELD: Final = b',"hash":"'
_SUFFIX_BYTES: Final = len(_HASH_FIELD) + 64 + len(b'"}')


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the chain: the number and the hash of a line."""

    seq: int
    hash: str


BEGINNING: Final = Link(0, "0" * 64)


def next_line(before: Link, entry: Mapping[str, object]) -> tuple[bytes, Link]:
    """Return the line for an entry, without its end, and its place in the chain."""
    seq = before.seq + 1
    body = json.dumps({"seq": seq, **entry, "prev": before.hash}, separators=(",", ":")).encode()
    link = Link(seq, hashlib.sha256(body).hexdigest())
    return body[:-1] + _HASH_FIELD + link.hash.encode() + b'"}', link


def read_line(line: bytes) -> tuple[Link, str]:
    """Return the place of a line, without its end, in the chain, and the hash of the line before it.

    Raises:
        DecodeError: it is no line of a chain, or was changed.
    """
    if len(line) > MAX_LINE_BYTES:
        raise DecodeError(f"it is longer than {MAX_LINE_BYTES} bytes")
    body, suffix = line[:-_SUFFIX_BYTES] + b"}", line[-_SUFFIX_BYTES:]
    try:
        entry = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DecodeError("it is not a JSON object that ends with a hash") from error
    match entry:
        case {"seq": int(seq), "prev": str(prev)}:
            pass
        case _:
            raise DecodeError("it has no number and no hash of the line before")
    link = Link(seq, hashlib.sha256(body).hexdigest())
    if suffix != _HASH_FIELD + link.hash.encode() + b'"}':
        raise DecodeError("it was changed: its hash is another one")
    return link, prev


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a check of lines found: where they begin and end, and the first thing that is wrong, `line` counted from 1."""

    first: Link | None = None
    last: Link | None = None
    lines: int = 0
    problem: str = ""
    line: int = 0


def verify(lines: Iterable[bytes], after: Link | None = None) -> Verdict:
    """Check lines, each with its end, up to the first that is broken. `after` is the line before, None if unknown."""
    first: Link | None = None
    before, count = after, 0
    for line in lines:
        problem, link = _problem(line, before)
        if link is None or problem:
            return Verdict(first=first, last=before, lines=count, problem=problem, line=count + 1)
        count += 1
        first, before = first or link, link
    return Verdict(first=first, last=before, lines=count)


def _problem(line: bytes, before: Link | None) -> tuple[str, Link | None]:
    if not line.endswith(b"\n"):
        return "it has no end: the program stopped in the middle of it; its next start removes it", None
    try:
        link, prev = read_line(line[:-1])
    except DecodeError as error:
        return error.message, None
    if before is None:
        return "", link
    if link.seq != before.seq + 1:
        return f"it is number {link.seq}, after number {before.seq}: lines were removed, put in or moved", link
    if prev != before.hash:
        return "it does not continue the line before it: that one, or all before it, were replaced", link
    return "", link
