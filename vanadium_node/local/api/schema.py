"""The fields that kinds have, and of which types: what a client sent is checked against them and cleaned.

Values of a wrong type are refused. Unknown fields are dropped, as on a real cluster, and refused (`fieldValidation=Strict`),
warned of (`Warn`) or not mentioned (`Ignore`). The types are the published ones of the API, from lightkube's models, which are
imported when a kind is first checked.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

import msgspec

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import Object

MAX_UNKNOWN: Final = 20
"""Unknown fields named in one answer."""

_QUANTITIES: Final = frozenset(
    {
        "allocatable",
        "averageValue",
        "capacity",
        "default",
        "defaultRequest",
        "divisor",
        "hard",
        "limits",
        "max",
        "maxLimitRequestRatio",
        "min",
        "requests",
        "sizeLimit",
        "storage",
        "used",
        "value",
    }
)
"""Fields that hold quantities, or maps of them: a number stands for its text there."""

_FREE_MAPS: Final = frozenset({("ManagedFieldsEntry", "fieldsV1"), ("ControllerRevision", "data")})
"""Maps that may hold anything: (type, field)."""

_GO_NAMES: Final[Mapping[Any, str]] = types.MappingProxyType(
    {str: "string", int: "int32", bool: "bool", float: "float64"}
)
_MODULES: Final[Mapping[str, str]] = types.MappingProxyType({"": "core", "rbac.authorization.k8s.io": "rbac"})


def cleaned(resource: ResourceType, obj: Object, validation: str) -> tuple[Object, tuple[str, ...]]:
    """Return an object without unknown fields and nulls, and warnings about the unknown ones.

    Raises:
        ApiError: a value has a wrong type, or there are unknown fields and the request wants them refused (400).
    """
    if validation not in ("Ignore", "Warn", "Strict"):
        raise ApiError.bad_request(f'fieldValidation: Unsupported value: "{validation}": one of Ignore, Warn, Strict')
    model = _model(resource)
    if model is None:
        return _without_nulls(obj), ()
    unknown: list[str] = []
    try:
        result: Object = _checked(obj, model, "", "", unknown.append)
    except _WrongTypeError as error:
        raise _refused(resource, str(error)) from error
    warnings = tuple(f'unknown field "{path}"' for path in unknown[:MAX_UNKNOWN])
    if warnings and validation == "Strict":
        raise _refused(resource, "strict decoding error: " + ", ".join(warnings))
    return result, () if validation == "Ignore" else warnings


class _WrongTypeError(Exception):
    """A value is not of the type its field has."""

    def __init__(self, value: Any, expected: str, struct: str, path: str) -> None:
        where = f"Go struct field {struct}.{path}" if path else "Go value"
        super().__init__(f"json: cannot unmarshal {_json_name(value)} into {where} of type {expected}")


def _refused(resource: ResourceType, why: str) -> ApiError:
    kind = resource.kind
    return ApiError.bad_request(f'{kind} in version "{resource.version}" cannot be handled as a {kind}: {why}')


@lru_cache(maxsize=64)
def _model(resource: ResourceType) -> type[msgspec.Struct] | None:
    """Return the published type of a kind, or None."""
    group = _MODULES.get(resource.group, resource.group.partition(".")[0])
    name = f"lightkube.models.{group}_{resource.version}"
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None
    found = getattr(module, resource.kind, None)
    return found if isinstance(found, type) and issubclass(found, msgspec.Struct) else None


@lru_cache(maxsize=1024)
def _fields(model: type[msgspec.Struct]) -> Mapping[str, Any]:
    """Return the fields of a published type: JSON name → type."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(model)}


def _checked(value: Any, expected: Any, struct: str, path: str, unknown: Callable[[str], None]) -> Any:
    """Return a value checked against a type, without nulls and unknown fields; `unknown` is told their paths."""
    options = _options(expected)
    expected = options[0]
    if len(options) > 1:  # IntOrString
        if isinstance(value, str) or _is_integer(value):
            return value
        raise _WrongTypeError(value, "intstr.IntOrString", struct, path)
    if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        return _checked_struct(value, expected, struct, path, unknown)
    match typing.get_origin(expected) or expected:
        case container if container is list:
            if not isinstance(value, list):
                raise _WrongTypeError(value, _go_name(expected), struct, path)
            (item,) = typing.get_args(expected)
            return [_checked(v, item, struct, f"{path}[{i}]", unknown) for i, v in enumerate(value)]
        case container if container is dict:
            return _checked_map(value, expected, struct, path, unknown)
        case plain:
            return _checked_plain(value, plain, struct, path)


def _checked_struct(
    value: Any, expected: type[msgspec.Struct], struct: str, path: str, unknown: Callable[[str], None]
) -> Object:
    if not isinstance(value, dict):
        raise _WrongTypeError(value, _go_name(expected), struct, path)
    fields = _fields(expected)
    result: Object = {}
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        if key not in fields:
            unknown(where)
        elif item is not None:
            result[key] = _checked(item, fields[key], expected.__name__, where, unknown)
    return result


def _checked_map(value: Any, expected: Any, struct: str, path: str, unknown: Callable[[str], None]) -> Object:
    if not isinstance(value, dict):
        raise _WrongTypeError(value, _go_name(expected), struct, path)
    if (struct, path.rpartition(".")[2]) in _FREE_MAPS:
        return value
    (_key, item) = typing.get_args(expected) or (str, str)  # the models leave out what maps of texts hold
    return {k: _checked(v, item, struct, f"{path}.{k}", unknown) for k, v in value.items() if v is not None}


def _checked_plain(value: Any, expected: Any, struct: str, path: str) -> Any:
    if expected is str and not isinstance(value, str):
        if isinstance(value, int | float) and not isinstance(value, bool) and _is_quantity(path):
            return f"{value}"
        raise _WrongTypeError(value, "string", struct, path)
    if expected is bool and not isinstance(value, bool):
        raise _WrongTypeError(value, "bool", struct, path)
    if expected is int and not _is_integer(value):
        raise _WrongTypeError(value, "int32", struct, path)
    if expected is datetime:
        _check_time(value, struct, path)
    return int(value) if expected is int else value


def _check_time(value: Any, struct: str, path: str) -> None:
    if not isinstance(value, str):
        raise _WrongTypeError(value, "string", struct, path)
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise ApiError.bad_request(f'{path}: parsing time "{value:.60}": it is not a time as in RFC 3339') from error


def _is_integer(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _is_quantity(path: str) -> bool:
    return any(step in _QUANTITIES for step in path.split(".")[-2:])


def _options(expected: Any) -> tuple[Any, ...]:
    """Return the types that a value may have, None left out."""
    if typing.get_origin(expected) in (typing.Union, types.UnionType):
        return tuple(a for a in typing.get_args(expected) if a is not type(None))
    return (expected,)


def _go_name(expected: Any) -> str:
    """Return how the API server calls a type."""
    if expected in _GO_NAMES:
        return _GO_NAMES[expected]
    arguments = typing.get_args(expected)
    if typing.get_origin(expected) is list:
        return f"[]{_go_name(arguments[0])}"
    if typing.get_origin(expected) is dict or expected is dict:
        return f"map[string]{_go_name(arguments[1]) if arguments else 'string'}"
    return f"v1.{getattr(expected, '__name__', expected)}"


def _json_name(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    names: tuple[tuple[type, str], ...] = ((str, "string"), (dict, "object"), (list, "array"))
    return next((name for kind, name in names if isinstance(value, kind)), "number")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value
