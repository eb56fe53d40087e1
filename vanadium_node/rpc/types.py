"""From annotations to types on the wire: what a value becomes in CBOR, and what is accepted back.

A `Shape` says what a type is, as a value that can be sent (for `__signature`) and printed. A `Codec` turns values of the
type into what CBOR carries and back, checking everything a peer could have sent. Numbers, texts and bytes are themselves;
tuples and dataclasses are arrays, enums their values, datetimes microseconds since 1970 in UTC, blessings their encoding.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Self

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError, clip
from vanadium_node.security.blessing import Blessings
from vanadium_node.wire.frames import Wire
from vanadium_node.wire.limits import MAX_DEPTH

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
MAX_SHAPE_DEPTH: Final = 8
"""How deep a type may be made of others; a frame nests 16 deep at most, and a dataclass that holds itself has no shape."""

MAX_SHAPE_BYTES: Final = 1 << 16
"""More than the description of any sensible type."""

MAX_VALUE_DEPTH: Final = MAX_DEPTH - 4
"""How deep a value may be nested, with room for the frame, its arguments and their own containers."""

_PARTS: Final[Mapping[str, int]] = {"list": 1, "map": 2, "optional": 1}
"""How many parts a type of these kinds has."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a type is: its kind, its name if it has one, and its parts, each with a label where parts have labels."""

    kind: str
    name: str = ""
    parts: tuple[tuple[str, Shape], ...] = ()

    def __str__(self) -> str:
        inner = [str(shape) for _, shape in self.parts]
        match self.kind:
            case "list":
                return f"[]{inner[0]}"
            case "map":
                return f"map[{inner[0]}]{inner[1]}"
            case "optional":
                return f"?{inner[0]}"
            case "tuple":
                return f"({', '.join(inner)})"
            case "struct" | "enum":
                return self.name
            case _:
                return self.kind

    def to_wire(self) -> Wire:
        """Return the encoding of `[kind, name, [[label, shape], …]]`, as bytes: it may nest deeper than a frame may."""
        return cbor.encode_frame(self._value())

    def _value(self) -> Wire:
        return [self.kind, self.name, [[label, shape._value()] for label, shape in self.parts]]

    @classmethod
    def from_wire(cls, value: Wire) -> Self:
        """Read `to_wire`. Raises InputError."""
        if type(value) is not bytes:
            raise InputError("a type is not given as bytes")
        return cls._from_value(cbor.decode_frame(value, max_bytes=MAX_SHAPE_BYTES, max_depth=3 * MAX_SHAPE_DEPTH + 4))

    @classmethod
    def _from_value(cls, value: Wire, depth: int = 0) -> Self:
        match value:
            case [str(kind), str(name), list(parts)] if depth <= MAX_SHAPE_DEPTH:
                found = []
                for part in parts:
                    match part:
                        case [str(label), shape]:
                            found.append((label, cls._from_value(shape, depth + 1)))
                        case _:
                            raise InputError("a part of a type is not [label, type]")
                if len(found) != _PARTS.get(kind, len(found)):
                    raise InputError(f"a type of the kind '{clip(kind, 20)}' has {len(found)} parts")
                return cls(kind, name, tuple(found))
            case _:
                raise InputError("a type is not [kind, name, parts]")


@dataclass(frozen=True, slots=True)
class Codec:
    """Both directions for one type. `is_plain`: values go onto the wire as they are."""

    shape: Shape
    to_wire: Callable[[Any], Wire] = field(repr=False)
    from_wire: Callable[[Any], Any] = field(repr=False)
    is_plain: bool = False


def _expected(shape: Shape, value: object) -> InputError:
    return InputError(f"{shape} is expected, not {type(value).__name__}")


def _plain(kind: str, *accepted: type) -> Codec:
    shape = Shape(kind)
    only = accepted[0] if len(accepted) == 1 else None

    def check(value: Any) -> Any:
        if type(value) is only or type(value) in accepted:
            return value
        raise _expected(shape, value)

    return Codec(shape, check, check, is_plain=True)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise _expected(_INTEGER, value)
    if not -cbor.END_OF_INTEGERS <= value < cbor.END_OF_INTEGERS:
        raise InputError("an integer has more than 64 bits")
    return value


_INTEGER: Final = Shape("int64")


def _anything(value: Any) -> Any:
    return value


def _key(value: object) -> str | int:
    if isinstance(value, str):
        return value
    if type(value) is int:
        return _integer(value)
    raise InputError(f"a key of type {type(value).__name__} has no form on the wire: keys are texts or integers")


_PLAIN_TYPES: Final = frozenset({type(None), bool, float, str, bytes})


def to_wire(value: object, depth: int = 0) -> Wire:
    """Return what a value becomes on the wire by its own type; a client's arguments go this way. Raises InputError."""
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return value
    if kind is int:
        return _integer(value)
    if depth > MAX_VALUE_DEPTH:
        raise InputError(f"a value is nested more than {MAX_VALUE_DEPTH} deep")
    if isinstance(value, list | tuple):
        return [to_wire(each, depth + 1) for each in value]
    if isinstance(value, Mapping):
        return {_key(key): to_wire(each, depth + 1) for key, each in value.items()}
    try:
        codec = codec_of(kind)
    except TypeError as error:
        raise InputError(f"a value of type {kind.__name__} has no form on the wire") from error
    if codec is ANY:
        raise InputError(f"a value of type {kind.__name__} has no form on the wire")
    return codec.to_wire(value)


NONE: Final = _plain("nothing", type(None))
ANY: Final = Codec(Shape("any"), to_wire, _anything)


def _float(value: Any) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    raise _expected(Shape("float64"), value)


def _time_to_wire(value: Any) -> Wire:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InputError("a time with its zone is expected")
    return (value - _EPOCH) // _MICROSECOND


def _time_from_wire(value: Any) -> datetime:
    if type(value) is not int:
        raise _expected(Shape("time"), value)
    try:
        return _EPOCH + timedelta(microseconds=value)
    except OverflowError as error:
        raise InputError("a time is out of range") from error


def _blessings_to_wire(value: Any) -> Wire:
    if not isinstance(value, Blessings):
        raise _expected(Shape("blessings"), value)
    return value.encoded


def _blessings_from_wire(value: Any) -> Blessings:
    if type(value) is not bytes:
        raise _expected(Shape("blessings"), value)
    return Blessings.decode(value)


_SIMPLE: Final[Mapping[object, Codec]] = {
    type(None): NONE,
    None: NONE,
    bool: _plain("bool", bool),
    int: Codec(_INTEGER, _integer, _integer),
    float: Codec(Shape("float64"), _float, _float),
    str: _plain("string", str),
    bytes: _plain("bytes", bytes),
    datetime: Codec(Shape("time"), _time_to_wire, _time_from_wire),
    Blessings: Codec(Shape("blessings"), _blessings_to_wire, _blessings_from_wire),
    Shape: Codec(Shape("type"), Shape.to_wire, Shape.from_wire),
    object: ANY,
    Any: ANY,
}


def codec_of(annotation: Any, depth: int = 0) -> Codec:
    """Return the codec for a type annotation, resolved (no strings). Raises TypeError for a type without a wire form."""
    if depth > MAX_SHAPE_DEPTH:
        raise TypeError(f"{annotation} is made of types more than {MAX_SHAPE_DEPTH} deep")
    try:
        simple = _SIMPLE.get(annotation)
    except TypeError:
        simple = None
    if simple is not None:
        return simple
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list and arguments:
        return _list_codec(codec_of(arguments[0], depth + 1))
    if origin is dict and arguments and arguments[0] in (str, int):
        return _map_codec(codec_of(arguments[0], depth + 1), codec_of(arguments[1], depth + 1))
    if origin is tuple and arguments:
        return _tuple_codec(arguments, depth)
    if origin in (typing.Union, types.UnionType):
        return _optional_codec(annotation, arguments, depth)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _enum_codec(annotation)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _struct_codec(annotation, depth)
    raise TypeError(
        f"{annotation!r} has no form on the wire; use int, float, str, bytes, bool, None, datetime, list, dict with text or "
        "integer keys, tuple, an Enum, a dataclass, Blessings, or one of them | None"
    )


def _list_codec(item: Codec) -> Codec:
    shape = Shape("list", parts=(("", item.shape),))

    def encode(value: Any) -> Wire:
        if not isinstance(value, list | tuple):
            raise _expected(shape, value)
        return [item.to_wire(each) for each in value]

    def decode(value: Any) -> list[Any]:
        if type(value) is not list:
            raise _expected(shape, value)
        return [item.from_wire(each) for each in value]

    return Codec(shape, encode, decode)


def _map_codec(key: Codec, item: Codec) -> Codec:
    shape = Shape("map", parts=(("", key.shape), ("", item.shape)))

    def encode(value: Any) -> Wire:
        if not isinstance(value, Mapping):
            raise _expected(shape, value)
        return {key.to_wire(k): item.to_wire(v) for k, v in value.items()}

    def decode(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise _expected(shape, value)
        return {key.from_wire(k): item.from_wire(v) for k, v in value.items()}

    return Codec(shape, encode, decode)


def _tuple_codec(arguments: tuple[Any, ...], depth: int) -> Codec:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        items = _list_codec(codec_of(arguments[0], depth + 1))
        return Codec(items.shape, items.to_wire, lambda value: tuple(items.from_wire(value)))
    codecs = [codec_of(argument, depth + 1) for argument in arguments if argument != ()]
    shape = Shape("tuple", parts=tuple(("", codec.shape) for codec in codecs))

    def encode(value: Any) -> Wire:
        if not isinstance(value, tuple) or len(value) != len(codecs):
            raise _expected(shape, value)
        return [codec.to_wire(each) for codec, each in zip(codecs, value, strict=True)]

    def decode(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(codecs):
            raise _expected(shape, value)
        return tuple(codec.from_wire(each) for codec, each in zip(codecs, value, strict=True))

    return Codec(shape, encode, decode)


def _optional_codec(annotation: Any, arguments: tuple[Any, ...], depth: int) -> Codec:
    given = [argument for argument in arguments if argument is not type(None)]
    if len(given) != 1 or len(arguments) != 2:
        raise TypeError(f"{annotation!r} has no form on the wire: only a union of one type with None has")
    item = codec_of(given[0], depth + 1)
    shape = Shape("optional", parts=(("", item.shape),))
    return Codec(
        shape,
        lambda value: None if value is None else item.to_wire(value),
        lambda value: None if value is None else item.from_wire(value),
    )


def _enum_codec(kind: type[Enum]) -> Codec:
    by_value = {_enum_value(member): member for member in kind}
    shape = Shape("enum", kind.__name__, tuple((str(value), Shape(type(value).__name__)) for value in by_value))

    def encode(value: Any) -> Wire:
        if not isinstance(value, kind):
            raise _expected(shape, value)
        return _enum_value(value)

    def decode(value: Any) -> Enum:
        if type(value) not in (str, int) or value not in by_value:
            raise InputError(f"{shape} is expected: one of {', '.join(map(str, by_value))}")
        return by_value[value]

    return Codec(shape, encode, decode)


def _enum_value(member: Enum) -> str | int:
    return member.value if type(member.value) in (str, int) else member.name


def _struct_codec(kind: type[Any], depth: int) -> Codec:
    hints = typing.get_type_hints(kind)
    fields = [f for f in dataclasses.fields(kind) if f.init]
    codecs = [(f.name, codec_of(hints[f.name], depth + 1)) for f in fields]
    required = sum(f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING for f in fields)
    shape = Shape("struct", kind.__name__, tuple((name, codec.shape) for name, codec in codecs))

    def encode(value: Any) -> Wire:
        if type(value) is not kind:
            raise _expected(shape, value)
        return [codec.to_wire(getattr(value, name)) for name, codec in codecs]

    def decode(value: Any) -> Any:
        # Fields may be added at the end, with defaults: an older peer sends fewer.
        if type(value) is not list or not required <= len(value) <= len(codecs):
            raise _expected(shape, value)
        return kind(**{name: codec.from_wire(each) for (name, codec), each in zip(codecs, value, strict=False)})

    return Codec(shape, encode, decode)


def from_wire(codec: Codec, value: Wire, what: str) -> Any:
    """Return a value that a peer sent, checked. Raises DecodeError naming `what` it should have been."""
    try:
        return codec.from_wire(value)
    except InputError as error:
        raise DecodeError(f"{what} is wrong: {error.message}") from error
