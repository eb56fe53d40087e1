"""Frames as values, and their bytes.

Each kind is a named tuple whose fields are the frame's array without the kind, in order; the stream comes first. Named
tuples and not dataclasses, because a frame is made and taken apart for every call (0.3 µs against 1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from itertools import product
from typing import Final, NamedTuple, TypeAlias

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, ErrorCode, InputError, ProtocolError, clip
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


_T = type(None)

_TYPES: Final[Mapping[type[Frame], tuple[tuple[type, ...], ...]]] = {
    Auth: ((int,), (list,), (bytes,), (bytes, _T), (list,), (bytes,)),
    Request: ((int,), (str,), (str,), (list,), (int, _T), (bool,), (bytes, _T), (list,), (str,)),
    Response: ((int,), (object,), (list, _T)),
    Item: ((int,), (object,)),
    End: ((int,),),
    Cancel: ((int,),),
    Credit: ((int,), (int,)),
    Ping: ((int,), (int,)),
    Pong: ((int,), (int,)),
    Goaway: ((int,), (str,), (str,)),
}
"""The types of each frame's fields; object: whatever CBOR carries."""

_HOLDS_ANYTHING: Final = frozenset({Kind.RESPONSE.value, Kind.ITEM.value})
"""Kinds whose second field is a value of the application's."""

LARGE_BYTES: Final = 1 << 12
"""Contents from this size on are not copied before somebody has looked at them."""

_OF_CONNECTION: Final = frozenset({Kind.AUTH.value, Kind.PING.value, Kind.PONG.value, Kind.GOAWAY.value})
"""Kinds whose stream is 0: what a signature of an `auth` frame covers has one encoding, too."""

MAX_LISTED: Final = 64
"""Versions and discharges that a frame may list; more would only cost time."""


def _is_listed(value: Sequence[Wire], kind: type) -> bool:
    """Tell whether a list holds only one kind of thing, and few of it."""
    return not value or (len(value) <= MAX_LISTED and all(type(each) is kind for each in value))


KIND_OF: Final[Mapping[type[Frame], int]] = {
    Auth: 0, Request: 1, Response: 2, Item: 3, End: 4, Cancel: 5, Credit: 6, Ping: 7, Pong: 8, Goaway: 9,
}  # fmt: skip


def _signatures() -> Mapping[tuple[object, ...], tuple[Callable[..., Frame], tuple[int, ...]]]:
    """Return, for each way in which a frame's fields may be typed, its type and where its numbers are.

    One look into this table checks all fields of a frame; a function for each field cost a fifth of a whole call.
    """
    return {
        (KIND_OF[frame], *chosen): (frame, tuple(at for at, kind in enumerate(chosen, 1) if kind is int))
        for frame, types in _TYPES.items()
        for chosen in product(*types)
    }


_SIGNATURES: Final = _signatures()


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


def decode_frame(content: bytes | memoryview) -> Frame | None:
    """Return the frame in the content of a byte string; None for a kind to be ignored. Raises ProtocolError."""
    content = bytes(content)
    try:
        fields = cbor.decode_frame(content, max_bytes=len(content), max_depth=MAX_DEPTH)
    except DecodeError as error:
        raise ProtocolError(f"a frame is not valid: {clip(error.message)}") from error
    if type(fields) is not list or len(fields) < 2 or type(fields[0]) is not int:
        raise ProtocolError("a frame is not an array of a kind, a stream and more")
    kind = fields[0]
    types = [kind, *map(type, fields[1:])]
    if kind in _HOLDS_ANYTHING and len(types) > 2:
        types[2] = object
    known = _SIGNATURES.get(tuple(types))
    if known is None:
        _refuse_unknown(kind)
        return None
    make, numbers = known
    for at in numbers:
        if not 0 <= fields[at] <= MAX_STREAM:
            raise ProtocolError(f"field {at} of a frame of kind {Kind(kind).name} is out of range")
    if fields[1] and kind in _OF_CONNECTION:
        raise ProtocolError(
            f"a frame of kind {Kind(kind).name} is about the connection, and not about stream {fields[1]}"
        )
    frame = make(*fields[1:])
    if type(frame) is Request:
        is_right = _is_listed(frame.discharges, bytes)
    elif type(frame) is Auth:
        is_right = _is_listed(frame.versions, int) and _is_listed(frame.discharges, bytes)
    else:
        return frame
    if not is_right:
        raise ProtocolError(f"a list in a frame of kind {Kind(kind).name} is too long, or holds something else")
    return frame


def _refuse_unknown(kind: int) -> None:
    """Say what is wrong with a frame that has no signature; nothing is, for kinds that are to be ignored."""
    if kind in KIND_OF.values():
        raise ProtocolError(f"the fields of a frame of kind {Kind(kind).name} are not what they should be")
    if 0 <= kind < CRITICAL_KINDS:
        raise ProtocolError(f"a frame has the critical kind {kind}, which is unknown here")


def error_fields(code: ErrorCode, sentence: str, fields: Mapping[str, str | int]) -> list[Wire]:
    """Return an error as a response carries it. Raises InputError for a field that is neither a text nor an integer of 64 bits."""
    given: list[tuple[object, object]] = [*fields.items()]  # an application's author may have paid no heed to the types
    for name, value in given:
        is_integer = isinstance(value, int) and -cbor.END_OF_INTEGERS <= value < cbor.END_OF_INTEGERS
        if not isinstance(name, str) or not (is_integer or isinstance(value, str)):
            raise InputError(f"a field of an error is of type {type(value).__name__}, or has more than 64 bits")
    return [code.value, sentence, dict(fields)]
