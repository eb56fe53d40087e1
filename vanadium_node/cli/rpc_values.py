"""Values on the command line: JSON, or plain words for texts, to what a method takes; and what it returns to JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError, clip
from vanadium_node.security.blessing import MAX_ENCODED_BYTES

if TYPE_CHECKING:
    from vanadium_node.rpc.reserved import MethodSignature
    from vanadium_node.rpc.types import Shape

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_MICROSECONDS: Final = (_EPOCH - datetime.min.replace(tzinfo=UTC)) // timedelta(microseconds=1)
"""To the beginning of the calendar; its end is farther away."""


def arguments_for(method: MethodSignature, words: tuple[str, ...]) -> list[Any]:
    """Return the arguments of a call as they are sent, checked against the method's signature.

    Raises:
        InputError: there are too few or too many, or one is not what the method takes.
    """
    takes = ", ".join(f"{argument.name} {argument.type}" for argument in method.arguments)
    if not method.required <= len(words) <= len(method.arguments):
        raise InputError(f"{method.name} takes ({takes}), and {len(words)} arguments are given")
    return [
        value_for(f"the argument '{argument.name}' of {method.name}", argument.type, word)
        for argument, word in zip(method.arguments, words, strict=False)
    ]


def value_for(what: str, shape: Shape, word: str) -> Any:
    """Return a JSON text, or a plain word, as it is sent for that type. Raises InputError, which names `what`."""
    try:
        value = json.loads(word)
    except (ValueError, RecursionError):
        value = word
    if shape.kind == "string" and not isinstance(value, str):
        value = word
    try:
        return _to_wire(shape, value)
    except (DecodeError, ValueError, TypeError, OverflowError) as error:
        raise InputError(
            f"{what} is '{clip(word, 80)}', which is not {shape}",
            hint="write JSON; bytes and blessings as base64url text",
        ) from error


def _to_wire(shape: Shape, value: Any) -> Any:
    """Return a JSON value as it is sent for that type. Raises ValueError, TypeError or DecodeError where it is none."""
    parts = [part for _, part in shape.parts]
    match shape.kind, value:
        case ("optional", None):
            return None
        case ("optional", _):
            return _to_wire(parts[0], value)
        case ("list", list()):
            return [_to_wire(parts[0], each) for each in value]
        case ("tuple", list()) if len(value) == len(parts):
            return [_to_wire(part, each) for part, each in zip(parts, value, strict=True)]
        case ("map", dict()):
            return {_key(parts[0], key): _to_wire(parts[1], each) for key, each in value.items()}
        case ("struct", dict()) if set(value) <= {label for label, _ in shape.parts}:
            return _fields(shape, value)
        case ("bytes" | "blessings", str()):
            return cbor.from_text(value, max_bytes=16 * MAX_ENCODED_BYTES)
        case ("time", str()):
            return (datetime.fromisoformat(value).astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
        case ("float64", int() | float()) if not isinstance(value, bool):
            return float(value)
        case (kind, _) if kind in _SCALARS and type(value) in _SCALARS[kind]:
            return value
        case ("any", _):
            return value
        case _:
            raise TypeError(shape.kind)


def _fields(shape: Shape, value: dict[str, Any]) -> list[Any]:
    """Return a struct's fields in their order; only the last ones may be left out, since those on the wire have no names."""
    labels = [label for label, _ in shape.parts]
    if labels[: len(value)] != [label for label in labels if label in value]:
        raise TypeError(shape.kind)
    return [_to_wire(part, value[label]) for label, part in shape.parts[: len(value)]]


_SCALARS: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "int64": (int,),
    "bool": (bool,),
    "enum": (str, int),
    "nothing": (type(None),),
}


def _key(shape: Shape, key: str) -> str | int:
    return int(key) if shape.kind == "int64" else key


def to_json(shape: Shape, value: Any) -> Any:
    """Return a value that was received as JSON shows it; one that is not of the type is shown as it is."""
    parts = [part for _, part in shape.parts]
    match shape.kind, value:
        case ("optional", _):
            return None if value is None else to_json(parts[0], value)
        case ("list", list()):
            return [to_json(parts[0], each) for each in value]
        case ("tuple", list()):
            return [to_json(part, each) for part, each in zip(parts, value, strict=False)]
        case ("map", dict()):
            return {str(key): to_json(parts[1], each) for key, each in value.items()}
        case ("struct", list()):
            return {label: to_json(part, each) for (label, part), each in zip(shape.parts, value, strict=False)}
        case ("time", int()) if abs(value) < _LONGEST_MICROSECONDS:
            return (_EPOCH + timedelta(microseconds=value)).isoformat()
        case _:
            return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return cbor.text(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return value
