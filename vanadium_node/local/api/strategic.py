"""Strategic merge patches: a merge patch that knows which lists are merged by a key, with Kubernetes' directives.

The rules are those of the API server: `$patch`, `$retainKeys`, `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`.
Which list is merged by which key comes from the API's types; a list that is not in the tables is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.objects import copied

_DIRECTIVE: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_ORDER: Final = "$setElementOrder/"
_DELETE: Final = "$deleteFromPrimitiveList/"
_CONTAINERS: Final = frozenset({"containers", "initContainers", "ephemeralContainers"})

MERGE_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "addresses": "type",
        "conditions": "type",
        "containers": "name",
        "env": "name",
        "ephemeralContainers": "name",
        "hostAliases": "ip",
        "imagePullSecrets": "name",
        "initContainers": "name",
        "ownerReferences": "uid",
        "podIPs": "ip",
        "resourceClaims": "name",
        "schedulingGates": "name",
        "secrets": "name",
        "topologySpreadConstraints": "topologyKey",
        "volumeDevices": "devicePath",
        "volumeMounts": "mountPath",
        "volumes": "name",
    }
)
"""Lists of objects that are merged: field → the key that tells elements apart (`ports` depends on where it is)."""

MERGED_PRIMITIVES: Final = frozenset({"finalizers", "podCIDRs"})
"""Lists of plain values that are merged as sets."""


def merge_key(path: Sequence[str]) -> str | None:
    """Return the key by which the list at `path` (field names from the top) is merged; None: it is replaced."""
    if path[-1] == "ports":
        if len(path) >= 2 and path[-2] in _CONTAINERS:
            return "containerPort"
        return "port" if tuple(path) == ("spec", "ports") else None
    return MERGE_KEYS.get(path[-1])


def _is_merged(path: Sequence[str]) -> bool:
    return path[-1] in MERGED_PRIMITIVES or merge_key(path) is not None


def strategic_merge(target: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """Return `target` with a strategic merge patch applied; `target` stays as it is.

    Raises:
        ApiError: the patch is none, or an element lacks the key its list is merged by (400).
    """
    if not isinstance(patch, dict):
        raise ApiError.bad_request("a strategic merge patch is an object")
    return _merged(target, patch, ())


def _merged(target: Mapping[str, Any], patch: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    match patch.get(_DIRECTIVE):
        case "replace":
            return {k: _plain(v) for k, v in patch.items() if k != _DIRECTIVE}
        case "delete":
            return {}
        case None | "merge":
            pass
        case other:
            raise ApiError.bad_request(f"Unknown patch type {other!r} in a strategic merge patch")
    retained = patch.get(_RETAIN)
    result = {k: v for k, v in target.items() if retained is None or k in retained}
    for key, value in patch.items():
        if key.startswith(_DELETE):
            _discard(result, key.removeprefix(_DELETE), value)
        elif value is None:
            result.pop(key, None)
        elif not key.startswith("$"):
            result[key] = _value(result.get(key), value, (*path, key), patch.get(_ORDER + key))
    for key, order in patch.items():
        name = key.removeprefix(_ORDER)
        if name != key and name not in patch and isinstance(result.get(name), list) and _is_merged((*path, name)):
            result[name] = _value(result[name], [], (*path, name), order)
    return result


def _value(old: Any, new: Any, path: tuple[str, ...], order: Any) -> Any:
    """Return what becomes of one field."""
    if isinstance(new, dict):
        return _merged(old if isinstance(old, dict) else {}, new, path)
    if not isinstance(new, list):
        return new
    kept = old if isinstance(old, list) else []
    key = merge_key(path)
    if key is not None:
        return _merged_objects(kept, new, path, key, order)
    if path[-1] in MERGED_PRIMITIVES:
        added = [v for v in new if v not in kept]
        return _ordered(kept, [*kept, *added], order, lambda v: v)
    return copied(new)


def _merged_objects(old: list[Any], new: list[Any], path: tuple[str, ...], key: str, order: Any) -> list[Any]:
    elements = [_element(e, key, path) for e in new if not _is_replacement(e)]
    result = [] if len(elements) < len(new) else list(old)
    for element in elements:
        same = [i for i, e in enumerate(result) if isinstance(e, dict) and e.get(key) == element[key]]
        if element.get(_DIRECTIVE) == "delete":
            result = [e for i, e in enumerate(result) if i not in same]
        elif same:
            result[same[0]] = _merged(result[same[0]], element, path)
        else:
            result.append(_merged({}, element, path))
    return _ordered(old, result, order, lambda e: e.get(key) if isinstance(e, dict) else e)


def _ordered(old: list[Any], merged: list[Any], order: Any, identity: Callable[[Any], Any]) -> list[Any]:
    """Return the merged elements in the order that the patch wants; those it does not name stay where they were."""
    if not isinstance(order, list):
        return merged
    wanted = [identity(e) for e in order]
    left = sorted((e for e in merged if identity(e) in wanted), key=lambda e: wanted.index(identity(e)))
    right = [e for e in merged if identity(e) not in wanted]
    places = {_hashable(identity(e)): i for i, e in enumerate(old)}
    result: list[Any] = []
    while left and right:
        a, b = (places.get(_hashable(identity(e[0]))) for e in (left, right))
        result.append(left.pop(0) if a is not None and b is not None and a < b else right.pop(0))
    return [*result, *left, *right]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _is_replacement(element: Any) -> bool:
    """Tell whether an element of a patch's list says that the rest of the list replaces what was there."""
    return isinstance(element, dict) and element == {_DIRECTIVE: "replace"}


def _element(element: Any, key: str, path: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(element, dict) or key not in element:
        raise ApiError.bad_request(f"an element of {'.'.join(path)} does not contain declared merge key: {key}")
    return element


def _discard(result: dict[str, Any], field: str, values: Any) -> None:
    if isinstance(result.get(field), list) and isinstance(values, list):
        result[field] = [v for v in result[field] if v not in values]
        if not result[field]:
            del result[field]


def _plain(value: Any) -> Any:
    """Return a patch's value without directives and nulls, as it is stored where nothing was."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None and not k.startswith("$")}
    return [_plain(v) for v in value] if isinstance(value, list) else value
