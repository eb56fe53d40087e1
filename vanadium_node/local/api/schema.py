"""Which fields a kind has, for `fieldValidation`: unknown ones are refused (Strict), warned of (Warn) or let pass (Ignore).

The fields come from the published types of the API (lightkube's models), read when a kind is first checked.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import Object

MAX_UNKNOWN: Final = 20
"""Unknown fields named in one answer."""


def check(resource: ResourceType, obj: Object, validation: str) -> tuple[str, ...]:
    """Return warnings about the object's unknown fields.

    Raises:
        ApiError: there are some, and the request wants them refused (400).
    """
    if validation == "Ignore":
        return ()
    if validation not in ("Warn", "Strict"):
        raise ApiError.bad_request(f'fieldValidation: Unsupported value: "{validation}": one of Ignore, Warn, Strict')
    model = model_of(resource)
    if model is None:
        return ()
    unknown = tuple(f'unknown field "{path}"' for path in _unknown(obj, model, ""))[:MAX_UNKNOWN]
    if unknown and validation == "Strict":
        name = resource.kind
        message = f'{name} in version "{resource.version}" cannot be handled as a {name}: strict decoding error: '
        raise ApiError.bad_request(message + ", ".join(unknown))
    return unknown


@lru_cache(maxsize=64)
def model_of(resource: ResourceType) -> type | None:
    """Return the published type of a kind, or None."""
    group = resource.group.removesuffix(".k8s.io").removesuffix(".authorization") or "core"
    try:
        module = import_module(f"lightkube.models.{group}_{resource.version}")
    except ModuleNotFoundError:
        return None
    found = getattr(module, resource.kind, None)
    return found if isinstance(found, type) else None


@lru_cache(maxsize=1024)
def fields_of(model: type) -> dict[str, Any]:
    """Return the fields of a published type: JSON name → type."""
    hints = typing.get_type_hints(model)
    return {field.metadata.get("json", field.name): hints[field.name] for field in dataclasses.fields(model)}


def _unknown(value: Any, expected: Any, path: str) -> typing.Iterator[str]:
    expected = _without_none(expected)
    if isinstance(value, dict):
        yield from _unknown_in_map(value, expected, path)
    elif isinstance(value, list) and typing.get_origin(expected) is list:
        for index, item in enumerate(value):
            yield from _unknown(item, typing.get_args(expected)[0], f"{path}[{index}]")


def _unknown_in_map(value: Object, expected: Any, path: str) -> typing.Iterator[str]:
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        fields = fields_of(expected)
        for key, item in value.items():
            where = f"{path}.{key}" if path else key
            if key not in fields:
                yield where
            else:
                yield from _unknown(item, fields[key], where)
    elif typing.get_origin(expected) is dict:
        for key, item in value.items():
            yield from _unknown(item, typing.get_args(expected)[1], f"{path}.{key}")


def _without_none(expected: Any) -> Any:
    """Return the type in an optional one."""
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(expected) if a is not type(None)]
        return rest[0] if len(rest) == 1 else None
    return expected
