"""Conditions of an object's status: set, found, compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vanadium_node.local.api.objects import Object


def condition(status: Mapping[str, Any], kind: str) -> Object | None:
    """Return the condition of a type, None where there is none."""
    for candidate in status.get("conditions") or ():
        if candidate.get("type") == kind:
            found: Object = candidate
            return found
    return None


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Tell whether the condition of a type is there and true."""
    found = condition(status, kind)
    return found is not None and found.get("status") == "True"


def set_condition(status: Object, new: Object, now: str, *, dated: tuple[str, ...] = ("lastTransitionTime",)) -> None:
    """Put a condition into a status; the time of its transition stays while its `status` does.

    `dated` names further times that such conditions have: they become `now` when anything about the condition changes.
    """
    old = condition(status, str(new["type"]))
    if old is not None and all(old.get(key) == new.get(key) for key in ("status", "reason", "message")):
        return
    times = dict.fromkeys(dated, now)
    if old is not None and old.get("status") == new.get("status") and "lastTransitionTime" in old:
        times["lastTransitionTime"] = old["lastTransitionTime"]
    made = {**new, **times}
    others = [c for c in status.get("conditions") or () if c.get("type") != new["type"]]
    position = next((i for i, c in enumerate(status.get("conditions") or ()) if c.get("type") == new["type"]), None)
    if position is None:
        status["conditions"] = [*others, made]
    else:
        status["conditions"] = [*others[:position], made, *others[position:]]


def drop_condition(status: Object, kind: str) -> None:
    """Take the condition of a type out of a status."""
    if condition(status, kind) is not None:
        status["conditions"] = [c for c in status["conditions"] if c.get("type") != kind]
