"""Who set which field: field sets in the form of `metadata.managedFields`, and how changes move them.

A field set is a set of paths; a step is `f:NAME` for a field, `k:{…}` for a list's element by its keys, `v:…` for a plain
value of a set, and `.` for an element itself. Only what users write is tracked; the cluster's own controllers are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from vanadium_node.local.api.objects import Object
from vanadium_node.local.api.strategic import MERGED_PRIMITIVES, merge_key

Path: TypeAlias = tuple[str, ...]
Fields: TypeAlias = frozenset[Path]

MISSING: Final = object()
"""What stands at a path that leads nowhere."""

_ATOMIC: Final = frozenset(
    {
        "selector",
        "podSelector",
        "namespaceSelector",
        "labelSelector",
        "nodeSelector",
        "fieldRef",
        "secretKeyRef",
        "configMapKeyRef",
        "resourceFieldRef",
    }
)
"""Maps that are owned as a whole."""

_SECOND_KEYS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"ports": ("protocol", "TCP"), "topologySpreadConstraints": ("whenUnsatisfiable", "DoNotSchedule")}
)
"""Lists whose elements are told apart by a second key, with its default."""

_UNOWNED: Final = frozenset(
    {
        ("f:apiVersion",),
        ("f:kind",),
        ("f:status",),
        *(
            ("f:metadata", f"f:{key}")
            for key in (
                "name",
                "namespace",
                "generateName",
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "managedFields",
                "selfLink",
            )
        ),
    }
)


def names_of(path: Path) -> tuple[str, ...]:
    """Return the field names in a path, as the merge tables know them."""
    return tuple(step[2:] for step in path if step.startswith("f:"))


def is_atomic(path: Path) -> bool:
    """Tell whether the map at `path` is owned as a whole."""
    return bool(path) and path[-1].startswith("f:") and path[-1][2:] in _ATOMIC


def is_key(path: Path) -> bool:
    """Tell whether a path leads to one of the keys of a list's element, which stay as long as the element."""
    return len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:])


def element_step(path: Path, element: Any) -> str | None:
    """Return the step that leads to an element of the list at `path`; None where the list has no keys."""
    names = names_of(path)
    if names[-1] in MERGED_PRIMITIVES:
        return f"v:{json.dumps(element)}"
    key = merge_key(names)
    if key is None or not isinstance(element, dict) or key not in element:
        return None
    keys = {key: element[key]}
    if names[-1] in _SECOND_KEYS:
        second, default = _SECOND_KEYS[names[-1]]
        keys[second] = element.get(second, default)
    return f"k:{json.dumps(keys, sort_keys=True, separators=(',', ':'))}"


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the paths that an object's content is owned by, with what stands there."""
    if path in _UNOWNED:
        return
    if isinstance(value, dict) and value and not is_atomic(path):
        for key, item in value.items():
            yield from leaves(item, (*path, f"f:{key}"))
        return
    steps = [element_step(path, item) for item in value] if isinstance(value, list) else []
    if not steps or None in steps:
        yield path, value
        return
    for step, item in zip(steps, value, strict=True):
        if step is not None:
            yield (*path, step, "."), None
            if step.startswith("k:"):
                yield from leaves(item, (*path, step))


def at(obj: Any, path: Path) -> Any:
    """Return what stands at a path, or MISSING."""
    value = obj
    for index, step in enumerate(path):
        if step == ".":
            return None
        if step.startswith("f:"):
            value = value.get(step[2:], MISSING) if isinstance(value, dict) else MISSING
        else:
            same = [e for e in value if element_step(path[:index], e) == step] if isinstance(value, list) else []
            value = same[0] if same else MISSING
        if value is MISSING:
            return MISSING
    return value


def removed(value: Any, path: Path, before: Path = ()) -> Any:
    """Return `value` without what stands at a path; what becomes empty by it goes too (MISSING)."""
    step, rest = path[0], path[1:]
    if step.startswith("f:"):
        if not isinstance(value, dict) or step[2:] not in value:
            return value
        inner = removed(value[step[2:]], rest, (*before, step)) if rest else MISSING
        kept = {k: (inner if k == step[2:] else v) for k, v in value.items() if k != step[2:] or inner is not MISSING}
        return kept or MISSING
    if not isinstance(value, list):
        return value
    items: list[Any] = []
    for item in value:
        is_meant = element_step(before, item) == step
        inner = removed(item, rest, (*before, step)) if is_meant and rest != (".",) else item
        if not (is_meant and rest == (".",)) and inner is not MISSING:
            items.append(inner)
    return items or MISSING


def encode(fields: Fields) -> Object:
    """Return a field set as `fieldsV1`."""
    tree: Object = {}
    for path in sorted(fields):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
    return tree


def decode(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the paths in a `fieldsV1`."""
    if not isinstance(tree, dict):
        return
    for step, inner in tree.items():
        if inner:
            yield from decode(inner, (*path, step))
        else:
            yield (*path, step)


def entries(obj: Object | None) -> list[Object]:
    """Return the entries of an object's managedFields."""
    return list(obj["metadata"].get("managedFields") or ()) if obj else []


def fields_of(entry: Object) -> Fields:
    """Return the fields of one entry."""
    return frozenset(decode(entry.get("fieldsV1") or {}))


def entry(manager: str, operation: str, obj: Object, fields: Fields, time: str, part: str = "") -> Object:
    """Return an entry of managedFields."""
    made = {
        "manager": manager,
        "operation": operation,
        "apiVersion": obj["apiVersion"],
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": encode(fields),
    }
    return made | ({"subresource": part} if part else {})


def updated(old: Object | None, new: Object, manager: str, time: str) -> list[Object]:
    """Return the entries after `manager` has written `new` where `old` was: it owns what it changed."""
    before, after = dict(leaves(old or {})), dict(leaves(new))
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    gone = before.keys() - after.keys()
    if old is not None and not changed and not gone:
        return entries(old)
    own: Fields = changed
    kept: list[Object] = []
    for found in entries(old):
        if (found.get("manager"), found.get("operation"), found.get("subresource")) == (manager, "Update", None):
            own |= fields_of(found) - gone
        else:
            kept += without(found, changed | gone)
    return [*kept, entry(manager, "Update", new, own, time)] if own else kept


def without(found: Object, lost: Fields) -> Sequence[Object]:
    """Return an entry without some of its fields, or nothing when none is left."""
    fields = fields_of(found)
    if not fields & lost:
        return (found,)
    rest = fields - lost
    return ({**found, "fieldsV1": encode(rest)},) if rest else ()
