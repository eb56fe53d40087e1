"""Reads the protobuf form in which newer kubectls send what they make themselves (`kubectl create configmap`, `auth can-i`).

The form: the magic `k8s\\0`, then a message `runtime.Unknown` with the kind and, as bytes, the object's own message. Only the
messages in `protobuf_messages` are known, which are those that kubectl sends; another one, or a field that is not in the
table, is refused and never silently lost.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.protobuf_messages import KINDS, MESSAGES

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
_MAX_DEPTH: Final = 32

_Field = tuple[int, int, int | bytes]
"""A field's number, wire type and value."""


def decoded(body: bytes) -> dict[str, Any]:
    """Return the object in a request's body.

    Raises:
        ApiError: it is not of that form (400), or holds what is not in the tables (415).
    """
    if not body.startswith(_MAGIC):
        raise ApiError.bad_request("the object provided is not in the protobuf form of Kubernetes")
    envelope = {number: value for number, _, value in _fields(body[len(_MAGIC) :])}
    type_meta = {number: _text(value) for number, _, value in _fields(_bytes(envelope.get(1, b"")))}
    api_version, kind = type_meta.get(1, ""), type_meta.get(2, "")
    message = KINDS.get((api_version, kind))
    if message is None:
        raise _unread(f"the kind {kind} of {api_version} in protobuf")
    return {"apiVersion": api_version, "kind": kind} | _message(_bytes(envelope.get(2, b"")), message, 0)


def _unread(what: str) -> ApiError:
    reason = f"the embedded cluster does not read {what}; send JSON or YAML, as 'kubectl create -f' does"
    return ApiError(415, "UnsupportedMediaType", reason)


def _message(data: bytes, name: str, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
        raise ApiError.bad_request("the object provided is nested too deeply")
    table = MESSAGES[name]
    result: dict[str, Any] = {}
    for number, wire_type, value in _fields(data):
        if number not in table:
            if value not in (0, b""):
                raise _unread(f"field {number} of {name} in protobuf")
            continue
        field, kind = table[number]
        _take(result, field, kind, (wire_type, value), depth + 1)
    return result


def _take(result: dict[str, Any], field: str, kind: str, found: tuple[int, int | bytes], depth: int) -> None:
    """Add a field's value to an object; `kind` is explained in `protobuf_messages`."""
    value = found[1]
    if kind == "-":
        return
    if kind.startswith("*"):
        result.setdefault(field, []).append(_value(value, kind[1:], depth))
    elif kind.startswith("{"):
        pair = {number: v for number, _, v in _fields(_bytes(value))}
        result.setdefault(field, {})[_text(pair.get(1, b""))] = _value(pair.get(2, b""), kind[1:], depth)
    elif kind.startswith(">"):
        result.update(_message(_bytes(value), kind[1:], depth))
    elif kind.startswith("?"):
        result[field] = _value(value, kind[1:], depth)
    elif value not in (0, b""):
        result[field] = _value(value, kind, depth)


def _value(value: int | bytes, kind: str, depth: int) -> Any:
    match kind:
        case "text":
            return _text(value)
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "int":
            return _signed(value)
        case "bool":
            return bool(value)
        case "quantity":
            return _text({n: v for n, _, v in _fields(_bytes(value))}.get(1, b""))
        case "time":
            seconds = {n: v for n, _, v in _fields(_bytes(value))}.get(1, 0)
            return datetime.fromtimestamp(_signed(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case "number or text":
            parts = {n: v for n, _, v in _fields(_bytes(value))}
            return _text(parts.get(3, b"")) if parts.get(1) else _signed(parts.get(2, 0))
        case _:
            return _message(_bytes(value), kind, depth)


def _fields(data: bytes) -> Iterator[_Field]:
    """Yield a message's fields."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        match wire_type:
            case 0:
                value, position = _varint(data, position)
                yield number, wire_type, value
            case 2:
                length, position = _varint(data, position)
                if position + length > len(data):
                    raise _cut()
                yield number, wire_type, data[position : position + length]
                position += length
            case 1 | 5:
                size = 8 if wire_type == 1 else 4
                yield number, wire_type, data[position : position + size]
                position += size
            case _:
                raise ApiError.bad_request("the object provided is not valid protobuf")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise _cut()
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ApiError.bad_request("the object provided is not valid protobuf")


def _signed(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ApiError.bad_request("the object provided is not valid protobuf: a number was expected")
    return value - (1 << 64) if value >= 1 << 63 else value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ApiError.bad_request("the object provided is not valid protobuf: bytes were expected")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError as error:
        raise ApiError.bad_request("the object provided is not valid protobuf: a text is not UTF-8") from error


def _cut() -> ApiError:
    return ApiError.bad_request("the object provided is not valid protobuf: it ends too early")
