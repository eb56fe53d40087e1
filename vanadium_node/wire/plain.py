"""The frames that nearly all are, read and written by hand: requests, responses and items of plain values.

Plain is a value that is no array, no map, no float and no negative number. The general way costs twice as much, since it decodes
what may be anything, encodes it again to see that the encoding was the shortest, and looks up its types. What is read here is
exactly what the general way accepts, to the same frame; all else is left to it, malformed frames too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from vanadium_node import cbor
from vanadium_node.wire.frames import LARGE_BYTES, MAX_STREAM, Item, Request, Response, Wire, frame_header

_REQUEST: Final = b"\x8a\x01"
_RESPONSE: Final = b"\x84\x02"
_ITEM: Final = b"\x83\x03"
"""How the arrays of these kinds begin (RFC 8949 §3): their number of fields, and the kind."""

_NULL: Final = 0xF6
_USUAL_END: Final = b"\xf4\xf6\x80\x60"
"""A request without items, granted blessings, discharges and trace."""

_SIMPLE: Final = {0xF4: False, 0xF5: True, _NULL: None}
_SIMPLE_BYTES: Final = {value: bytes((byte,)) for byte, value in _SIMPLE.items()}
_DIGITS: Final = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}
"""What the lower bits of a head say: a number of so many bytes follows, and the least that is to be written in so many."""

_MAX_HEAD: Final = 20
"""The kind, the stream and the head of a value have less than so many bytes."""


def decode_plain(content: bytes | memoryview) -> Request | Response | Item | None:
    """Return the frame in the content of a byte string; None for one that is to be decoded the general way."""
    try:
        if type(content) is memoryview:
            return _large(content)
        begin = content[:2]
        if begin == _RESPONSE:
            return _response(content)
        if begin == _REQUEST:
            return _request(content)
        if begin == _ITEM:
            return _item(content)
    except (IndexError, UnicodeDecodeError):
        pass
    return None


def _large(content: memoryview) -> Response | Item | None:
    """Return the response or item that is nearly all one byte string, which is copied out of the content here."""
    head = bytes(content[:_MAX_HEAD])
    stream, at = _number(head, 2)
    if not at or head[at] & 0xE0 != 0x40 or head[at] & 0x1F not in _DIGITS:
        return None
    digits, least = _DIGITS[head[at] & 0x1F]
    begin = at + 1 + digits
    length = int.from_bytes(head[at + 1 : begin])
    value, rest = content[begin : begin + length], bytes(content[begin + length :][:2])
    if length < max(least, _MAX_HEAD):
        return None
    if head[:2] == _ITEM and not rest and len(value) == length:
        return Item(stream, bytes(value))
    if head[:2] == _RESPONSE and rest == b"\xf6":
        return Response(stream, bytes(value), None)
    return None


def _response(content: bytes) -> Response | None:
    stream, at = _number(content, 2)
    result, at = _value(content, at)
    if at and content[at] == _NULL and at + 1 == len(content):
        return Response(stream, result, None)
    return None


def _item(content: bytes) -> Item | None:
    stream, at = _number(content, 2)
    value, at = _value(content, at)
    return Item(stream, value) if at == len(content) else None


def _request(content: bytes) -> Request | None:
    stream, at = _number(content, 2)
    method, at = _value(content, at)
    suffix, at = _value(content, at)
    count = content[at] - 0x80
    if type(method) is not str or type(suffix) is not str or not 0 <= count < 24:
        return None
    at += 1
    arguments: list[Wire] = []
    while count:
        value, at = _value(content, at)
        arguments.append(value)
        count -= 1
    deadline: int | None = None
    if at and content[at] == _NULL:
        at += 1
    else:
        deadline, at = _number(content, at)
    if at and content[at:] == _USUAL_END:
        return Request(stream, method, suffix, arguments, deadline, False, None, [], "")
    return None


def _number(content: bytes, at: int) -> tuple[int, int]:
    """Return the stream, or other number of a frame, at a place, and where it ends; 0 where there is none."""
    if content[at] == 0x19 and at:  # of nearly all streams and deadlines
        value = content[at + 1] << 8 | content[at + 2]
        return (value, at + 3) if value > 0xFF else (0, 0)
    number, end = _value(content, at)
    return (number, end) if type(number) is int and number <= MAX_STREAM else (0, 0)


def _value(content: bytes, at: int) -> tuple[Wire, int]:
    """Return the plain value at a place, and where it ends; 0 where there is none, or it is not in its shortest form.

    At place 0 there is none, so that what follows a value which is not plain is not plain either.
    """
    if not at:
        return None, 0
    first, begin = content[at], at + 1
    if 0x40 <= first < 0x58:
        end = begin + first - 0x40
        return (content[begin:end], end) if end <= len(content) else (None, 0)
    if 0x60 <= first < 0x78:
        end = begin + first - 0x60
        return (str(content[begin:end], "utf-8"), end) if end <= len(content) else (None, 0)
    if first < 0x18:
        return first, begin
    if first in _SIMPLE:
        return _SIMPLE[first], begin
    return _long_value(content, first, begin)


def _long_value(content: bytes, first: int, begin: int) -> tuple[Wire, int]:
    """Return the value whose length, or which itself, is a number of 1 to 8 bytes after its head, and where it ends."""
    kind = first & 0xE0
    if first & 0x1F not in _DIGITS or kind not in (0x00, 0x40, 0x60):
        return None, 0
    digits, least = _DIGITS[first & 0x1F]
    at = begin + digits
    number = int.from_bytes(content[begin:at])
    end = at if kind == 0 else at + number
    if number < least or end > len(content):
        return None, 0
    if kind == 0:
        return number, end
    return (content[at:end] if kind == 0x40 else str(content[at:end], "utf-8")), end


def encode_plain_request(
    stream: int, method: str, suffix: str, arguments: list[Wire], deadline_ms: int | None
) -> bytes | None:
    """Return the bytes of a request that carries nothing but plain arguments; None where one is not plain.

    Raises InputError when the method or the suffix is no text that CBOR can carry.
    """
    count = len(arguments)
    if count >= 24:
        return None
    parts = [b"", _REQUEST, _encoded(stream), _target(method, suffix), bytes((0x80 + count,))]
    for argument in arguments:
        if isinstance(argument, bytes):
            parts += cbor.bytes_head(len(argument)), argument
        elif argument is None or isinstance(argument, bool):
            parts.append(_SIMPLE_BYTES[argument])
        elif isinstance(argument, int) and 0 <= argument < 1 << 64:
            parts.append(_encoded(argument))
        elif isinstance(argument, str):
            parts.append(cbor.encode_frame(argument))
        else:
            return None
    parts.append(b"\xf6" if deadline_ms is None else _encoded(deadline_ms))
    parts.append(_USUAL_END)
    parts[0] = frame_header(sum(map(len, parts)))
    return b"".join(parts)


@lru_cache(maxsize=256)
def _target(method: str, suffix: str) -> bytes:
    return cbor.encode_frame(method) + cbor.encode_frame(suffix)


def encode_bytes_response(stream: int, result: bytes) -> tuple[bytes, ...]:
    """Return the parts of a response whose result is a byte string, which is one of them."""
    return _framed(_RESPONSE, stream, result, b"\xf6")


def encode_bytes_item(stream: int, value: bytes) -> tuple[bytes, ...]:
    """Return the parts of an item that is a byte string: it is neither copied nor looked at."""
    return _framed(_ITEM, stream, value, b"")


def _framed(begin: bytes, stream: int, value: bytes, end: bytes) -> tuple[bytes, ...]:
    head = begin + _encoded(stream) + cbor.bytes_head(len(value))
    header = frame_header(len(head) + len(value) + len(end))
    if len(value) < LARGE_BYTES:
        return (b"".join((header, head, value, end)),)
    return (header + head, value, end) if end else (header + head, value)


def _encoded(number: int) -> bytes:
    """Return a number from 0 on in its shortest form."""
    if number < 24:
        return bytes((number,))
    if number < 1 << 8:
        return bytes((0x18, number))
    if number < 1 << 16:
        return b"\x19" + number.to_bytes(2)
    return b"\x1a" + number.to_bytes(4) if number < 1 << 32 else b"\x1b" + number.to_bytes(8)
