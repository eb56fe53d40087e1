"""Canonical CBOR: the one encoding of everything that is signed, stored or sent.

Encoding is RFC 8949 §4.2.1 (core deterministic). Decoding is strict: a value has exactly one accepted encoding, so that
two parties never disagree about what was signed. This module knows nothing about what the values mean.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import cbor2

from vanadium_node.errors import DecodeError, InputError

Value = Any
"""None, bool, int (64 bits and a sign), float, str, bytes, or a list or map of these.

The keys of one map are all text, or all integers ≥ 0. So the two orders of keys that the RFC knows (§4.2.1 by bytes, §4.2.3
by length first) are the same one, and every library agrees on it.
"""

MAX_DEPTH: Final = 16
"""Nesting that no honest value needs; a deeper one would cost a stack frame per byte."""


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("a tag where none is allowed")


_NO_TAGS: Final[Mapping[int, Callable[..., Any]]] = dict.fromkeys(
    (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), _refuse_tag
)
"""The tags that cbor2 would turn into dates, bignums, addresses, regular expressions, cyclic references, … (a hook refuses the rest)."""


def encode(value: Value) -> bytes:
    """Return the canonical encoding of a value.

    Raises:
        InputError: the value has a part that has no encoding here.
    """
    try:
        _check(value)
        return cbor2.dumps(value, canonical=True)
    except (DecodeError, cbor2.CBOREncodeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"a value of type {type(value).__name__} has no CBOR encoding here") from error


def decode(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> Value:
    """Return the value whose canonical encoding is `data`.

    Raises:
        DecodeError: it is longer than `max_bytes`, nested deeper than `max_depth`, or not the canonical encoding.
    """
    value = _load(data, max_bytes, max_depth)
    _check(value)
    if cbor2.dumps(value, canonical=True) != data:
        raise DecodeError("the data is not canonical CBOR: the value it stands for has another encoding")
    return value


def encode_frame(value: Value) -> bytes:
    """Return the encoding of a value that is sent and not signed: maps in the order given, floats in 64 bits.

    Raises:
        InputError: the value has a part that has no encoding here.
    """
    try:
        return cbor2.dumps(value)
    except (cbor2.CBOREncodeError, ValueError, OverflowError) as error:
        raise InputError(f"a value of type {type(value).__name__} has no CBOR encoding here") from error


def decode_frame(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> Value:
    """Return the value whose `encode_frame` is `data`: as strict as `decode`, but for the order of maps, and cheaper.

    Whoever reads the value checks the types it needs; only tags and their relatives are sure to be absent.

    Raises:
        DecodeError: it is longer than `max_bytes`, nested deeper than `max_depth`, or not such an encoding.
    """
    value = _load(data, max_bytes, max_depth)
    if cbor2.dumps(value) != data:
        raise DecodeError("the data is not CBOR in its shortest form")
    return value


def text(data: bytes) -> str:
    """Return the text form of bytes: base64url without padding (RFC 4648 §5), one line."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_text(line: str, *, max_bytes: int) -> bytes:
    """Return the bytes whose text form is `line`; white space around it is ignored.

    Raises:
        DecodeError: it is none, or stands for more than `max_bytes`.
    """
    word = line.strip()
    if len(word) > max_bytes * 4 // 3 + 4:
        raise DecodeError(f"the text stands for more than the {max_bytes} bytes that are accepted")
    try:
        data = base64.b64decode(word + "=" * (-len(word) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError("the text is not base64url without padding") from error
    if text(data) != word:
        raise DecodeError("the text is not base64url without padding")
    return data


def _load(data: bytes, max_bytes: int, max_depth: int) -> Value:
    if len(data) > max_bytes:
        raise DecodeError(f"the data is {len(data)} bytes long; at most {max_bytes} are accepted")
    try:
        return cbor2.loads(
            data,
            max_depth=max_depth,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
            allow_indefinite=False,
            allow_duplicate_keys=False,
        )
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError) as error:
        raise DecodeError("the data is not CBOR as it is accepted here") from error


def _check(value: Value) -> None:
    """Refuse what cbor2 takes and the data model here does not have: tags, undefined, other simple values, odd keys."""
    kind = type(value)
    if kind is list or kind is tuple:
        for item in value:
            if type(item) not in _PLAIN:
                _check(item)
    elif kind is dict:
        if not (all(type(key) is str for key in value) or all(type(key) is int and key >= 0 for key in value)):
            raise DecodeError("a CBOR map has keys that are neither all text nor all integers from 0 on")
        for item in value.values():
            _check(item)
    elif isinstance(value, int):
        if not -END_OF_INTEGERS <= value < END_OF_INTEGERS:
            raise DecodeError("an integer has more than 64 bits")
    elif value is not None and not isinstance(value, _SCALARS):
        raise DecodeError("a value is of a kind that is not accepted in CBOR here")


def bytes_head(length: int) -> bytes:
    """Return what comes before the content of a byte string of this length: its shortest form (RFC 8949 §3)."""
    if length < 1 << 8:
        return _SHORT_HEADS[length]
    if length < 1 << 16:
        return b"\x59" + length.to_bytes(2, "big")
    return b"\x5a" + length.to_bytes(4, "big")


def bytes_at(data: bytes, start: int) -> tuple[bytes, int]:
    """Return the byte string that begins at `start`, and where it ends.

    Raises:
        DecodeError: there is none, it is cut off, or its length has a shorter form.
    """
    head = data[start] if start < len(data) else 0
    if head == 0x58 and start + 1 < len(data) and 24 <= data[start + 1] <= len(data) - start - 2:
        end = start + 2 + data[start + 1]  # nearly all of them are of this form
        return data[start + 2 : end], end
    size = {0x58: 1, 0x59: 2, 0x5A: 4}.get(head, 0)
    length = int.from_bytes(data[start + 1 : start + 1 + size], "big") if size else head - 0x40
    begin = start + 1 + size
    if not (size or 0 <= length < 24) or data[start:begin] != bytes_head(length) or begin + length > len(data):
        raise DecodeError("there is no byte string where one must be")
    return data[begin : begin + length], begin + length


_SHORT_HEADS: Final = tuple(bytes((0x40 | n,)) if n < 24 else bytes((0x58, n)) for n in range(1 << 8))
_SCALARS: Final = (bytes, str, float)
_PLAIN: Final = frozenset({bytes, str, bool, float, type(None)})
"""What needs no further look; all else goes through `_check`."""
END_OF_INTEGERS: Final = 1 << 64
"""Integers from its negative on, and below it, need no tag."""
