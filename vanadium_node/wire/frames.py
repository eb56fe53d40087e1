"""Frames as values, and their bytes.

Each kind is a named tuple whose fields are the frame's array without the kind, in order; the stream comes first. Named
tuples and not dataclasses, because a frame is made and taken apart for every call (0.3 µs against 1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, ErrorCode, ProtocolError, clip
from vanadium_node.wire.limits import MAX_DEPTH

Wire: TypeAlias = object
"""A value that CBOR carries: None, bool, int, float, str, bytes, and lists and maps with text keys of them."""

CRITICAL_KINDS: Final = 32
"""Unknown kinds below this close the connection; the others are ignored, so that later versions can add some."""


class Kind(IntEnum):
    """What a frame says."""

    AUTH = 0
    REQUEST = 1
    RESPONSE = 2
    ITEM = 3
    END = 4
    CANCEL = 5
    CREDIT = 6
    PING = 7
    PONG = 8
    GOAWAY = 9


class Auth(NamedTuple):
    """Who the sender is: its key, its blessings if it has any, and a signature that binds them to this connection."""

    stream: int
    versions: list[int]
    public_key: bytes
    blessings: bytes | None
    discharges: list[bytes]
    signature: bytes


class Request(NamedTuple):
    """A call. `deadline_ms` is what remains of the caller's patience; `has_items`: items and an `end` follow."""

    stream: int
    method: str
    suffix: str
    arguments: list[Wire]
    deadline_ms: int | None
    has_items: bool
    granted: bytes | None
    discharges: list[bytes]
    trace_id: str


class Response(NamedTuple):
    """The answer that ends a call: a result, or an error `[code, sentence, fields]`."""

    stream: int
    result: Wire
    error: list[Wire] | None


class Item(NamedTuple):
    """One item of a stream, in either direction; it spends credit."""

    stream: int
    value: Wire


class End(NamedTuple):
    """The caller sends no more items."""

    stream: int


class Cancel(NamedTuple):
    """The caller no longer wants the answer."""

    stream: int


class Credit(NamedTuple):
    """The receiver has read so many bytes of items; stream 0 is the whole connection."""

    stream: int
    size: int


class Ping(NamedTuple):
    """Are you there? Answered by a pong with the same number."""

    stream: int
    number: int


class Pong(NamedTuple):
    """Yes."""

    stream: int
    number: int


class Goaway(NamedTuple):
    """The sender takes no new streams, and ends the connection when the running ones are done; or it says why it ends now."""

    stream: int
    code: str
    reason: str


Frame: TypeAlias = Auth | Request | Response | Item | End | Cancel | Credit | Ping | Pong | Goaway

MAX_STREAM: Final = (1 << 53) - 1


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_STREAM


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_bytes(value: object) -> bool:
    return type(value) is bytes


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_anything(_value: object) -> bool:
    return True


def _is_list(value: object) -> bool:
    return type(value) is list


def _optional(check: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or check(value)


def _list_of(check: Callable[[object], bool], limit: int) -> Callable[[object], bool]:
    return lambda value: type(value) is list and len(value) <= limit and all(map(check, value))


_DISCHARGES: Final = _list_of(_is_bytes, 64)
_NUMBER: Final = _is_number

FIELDS: Final[Mapping[int, tuple[Callable[..., Frame], tuple[Callable[[object], bool], ...]]]] = {
    Kind.AUTH: (Auth, (_NUMBER, _list_of(_is_number, 16), _is_bytes, _optional(_is_bytes), _DISCHARGES, _is_bytes)),
    Kind.REQUEST: (
        Request,
        (
            _NUMBER,
            _is_text,
            _is_text,
            _is_list,
            _optional(_is_number),
            _is_bool,
            _optional(_is_bytes),
            _DISCHARGES,
            _is_text,
        ),
    ),
    Kind.RESPONSE: (Response, (_NUMBER, _is_anything, _optional(_is_list))),
    Kind.ITEM: (Item, (_NUMBER, _is_anything)),
    Kind.END: (End, (_NUMBER,)),
    Kind.CANCEL: (Cancel, (_NUMBER,)),
    Kind.CREDIT: (Credit, (_NUMBER, _is_number)),
    Kind.PING: (Ping, (_NUMBER, _is_number)),
    Kind.PONG: (Pong, (_NUMBER, _is_number)),
    Kind.GOAWAY: (Goaway, (_NUMBER, _is_text, _is_text)),
}
"""Kind → the frame's type and a check for each of its fields."""

KIND_OF: Final[Mapping[type[Frame], int]] = {
    Auth: 0, Request: 1, Response: 2, Item: 3, End: 4, Cancel: 5, Credit: 6, Ping: 7, Pong: 8, Goaway: 9,
}  # fmt: skip


def encode_frame(frame: Frame) -> bytes:
    """Return the frame's bytes, header included. Raises InputError when a value in it has no CBOR form."""
    content = cbor.encode_frame((KIND_OF[type(frame)], *frame))
    return frame_header(len(content)) + content


def frame_header(size: int) -> bytes:
    """Return the header of a CBOR byte string of `size` bytes, in its shortest form."""
    if size < 24:
        return bytes((0x40 + size,))
    if size < 0x100:
        return bytes((0x58, size))
    if size < 0x10000:
        return b"\x59" + size.to_bytes(2)
    return b"\x5a" + size.to_bytes(4)


def decode_frame(content: bytes) -> Frame | None:
    """Return the frame in the content of a byte string; None for a kind to be ignored. Raises ProtocolError."""
    try:
        fields = cbor.decode_frame(content, max_bytes=len(content), max_depth=MAX_DEPTH)
    except DecodeError as error:
        raise ProtocolError(f"a frame is not valid: {clip(error.message)}") from error
    if type(fields) is not list or len(fields) < 2 or type(fields[0]) is not int:
        raise ProtocolError("a frame is not an array of a kind, a stream and more")
    known = FIELDS.get(fields[0])
    if known is None:
        if 0 <= fields[0] < CRITICAL_KINDS:
            raise ProtocolError(f"a frame has the critical kind {fields[0]}, which is unknown here")
        return None
    frame, checks = known
    if len(fields) != len(checks) + 1:
        raise ProtocolError(
            f"a frame of kind {Kind(fields[0]).name} has {len(fields) - 2} fields instead of {len(checks) - 1}"
        )
    at = 1
    for check in checks:
        if not check(fields[at]):
            raise ProtocolError(f"field {at} of a frame of kind {Kind(fields[0]).name} is of the wrong type")
        at += 1
    return frame(*fields[1:])


def error_fields(code: ErrorCode, sentence: str, fields: Mapping[str, str | int]) -> list[Wire]:
    """Return an error as a response carries it."""
    return [code.value, sentence, dict(fields)]


class FrameSplitter:
    """Cuts a stream of bytes into the contents of frames, however the bytes come.

    Holds at most one incomplete frame, and looks at it again only when it is complete: a peer that sends a byte at a time
    costs a byte's work each time, not a frame's.
    """

    __slots__ = ("_held", "_wanted", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._held = bytearray()
        self._wanted = 1

    @property
    def is_clean(self) -> bool:
        """Whether the bytes so far end with a whole frame, as they must when the peer closes."""
        return not self._held

    def split(self, data: bytes) -> Iterator[bytes]:
        """Yield the content of each frame that `data` completes. Raises ProtocolError, after which nothing more is right.

        `max_frame_bytes` is read at each frame, so that it can be raised between two of them.
        """
        held = self._held
        if held:
            held += data
            if len(held) < self._wanted:
                return
            data = bytes(held)
            held.clear()
        start, size = 0, len(data)
        while start < size:
            begin, end = self._bounds(data, start, size)
            if end > size:
                held += data[start:]
                self._wanted = end - start
                return
            yield data[begin:end]
            start = end

    def _bounds(self, data: bytes, start: int, size: int) -> tuple[int, int]:
        """Return where the content of the frame at `start` begins and ends; beyond `size` when more bytes are needed."""
        first = data[start]
        if 0x40 <= first < 0x58:
            return start + 1, start + 1 + first - 0x40
        if not 0x58 <= first <= 0x5A:
            raise ProtocolError(
                "the peer does not speak this protocol: its bytes are no CBOR byte string"
                if first != 0x5B
                else f"a frame is larger than the limit of {self.max_frame_bytes} bytes"
            )
        digits = 1 << (first - 0x58)
        begin = start + 1 + digits
        if begin > size:
            return begin, begin
        length = int.from_bytes(data[start + 1 : begin])
        if length > self.max_frame_bytes:
            raise ProtocolError(f"a frame of {length} bytes is larger than the limit of {self.max_frame_bytes} bytes")
        if length < (24, 0x100, 0x10000)[first - 0x58]:
            raise ProtocolError("a frame's length is not in its shortest form")
        return begin, begin + length
