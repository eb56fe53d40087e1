"""Patches that need no knowledge of kinds: JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.objects import copied

MAX_OPERATIONS: Final = 10_000
"""Operations in one JSON patch, as the API server limits them."""


def merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` with the fields of `patch` set; null removes a field, lists are replaced (RFC 7386)."""
    if not isinstance(patch, dict):
        return copied(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(target: Any, operations: Any) -> Any:
    """Return `target` after a list of operations (RFC 6902); all of them or none.

    Raises:
        ApiError: the patch is none (400), or does not fit the object (422).
    """
    if not isinstance(operations, list) or len(operations) > MAX_OPERATIONS:
        raise ApiError.bad_request("a JSON patch is a list of at most 10000 operations")
    document = copied(target)
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise ApiError.bad_request(f"not an operation of a JSON patch: {operation!r:.100}")
        document = _operated(document, operation)
    return document


def _operated(document: Any, operation: dict[str, Any]) -> Any:
    path = _steps(operation["path"])
    match operation.get("op"):
        case "add":
            return _added(document, path, copied(_value(operation)))
        case "remove":
            return _removed(document, path)
        case "replace":
            _at(document, path)
            return _added(_removed(document, path), path, copied(_value(operation))) if path else _value(operation)
        case "move":
            source = _steps(str(operation.get("from", "")))
            value = _at(document, source)
            return _added(_removed(document, source), path, value)
        case "copy":
            return _added(document, path, copied(_at(document, _steps(str(operation.get("from", ""))))))
        case "test":
            if _at(document, path) != _value(operation):
                raise _unfit(f"testing value {operation['path']} failed")
            return document
        case other:
            raise ApiError.bad_request(f"unexpected kind of operation in a JSON patch: {other!r}")


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise ApiError.bad_request(f"the operation on {operation['path']} of a JSON patch has no value")
    return operation["value"]


def _steps(pointer: str) -> tuple[str, ...]:
    """Return the steps of a JSON pointer (RFC 6901)."""
    if pointer and not pointer.startswith("/"):
        raise ApiError.bad_request(f"not a JSON pointer: {pointer!r}")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def _at(document: Any, path: Sequence[str]) -> Any:
    value = document
    for step in path:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list):
            value = value[_index(step, len(value) - 1)]
        else:
            raise _unfit(f"the path /{'/'.join(path)} does not exist")
    return value


def _added(document: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _at(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent)), value)
    else:
        raise _unfit(f"the path /{'/'.join(path)} does not exist")
    return document


def _removed(document: Any, path: Sequence[str]) -> Any:
    _at(document, path)
    if not path:
        return None
    parent, last = _at(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        del parent[last]
    else:
        del parent[_index(last, len(parent) - 1)]
    return document


def _index(step: str, largest: int) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", step) or int(step) > largest:
        raise _unfit(f"there is no element {step!r} in the list")
    return int(step)


def _unfit(why: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")
