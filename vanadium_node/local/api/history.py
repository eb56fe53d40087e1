"""What happened to the objects of one kind, kept for a while, so that watches can start in the past.

Watchers hold a position in the one log instead of a queue each: an event is stored once however many watch, and a watcher
that is too slow is told so (410) instead of filling memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import trio

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.selectors import FieldSelector, LabelSelector

KEPT_EVENTS: Final = 1024
"""Events of one kind that a watch can still ask for; up to twice as many are held between clean-ups."""


class EventType(StrEnum):
    """What happened to an object, as a watcher sees it."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one object; `object` is how it is now, or how it last was. Not to be changed."""

    type: EventType
    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects a list or watch is about."""

    namespace: str | None
    labels: LabelSelector
    fields: FieldSelector

    def includes(self, obj: Mapping[str, Any]) -> bool:
        """Tell whether the object is one of them."""
        if self.namespace is not None and obj["metadata"].get("namespace") != self.namespace:
            return False
        return self.labels.matches_object(obj) and self.fields.matches_object(obj)


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a log: an object before and after; `before` is None when it was made, `gone` when it was removed."""

    version: int
    before: dict[str, Any] | None
    after: dict[str, Any]
    gone: bool

    def seen_in(self, scope: Scope) -> Event | None:
        """Return what a watcher of that scope sees: an object that leaves the scope is deleted to it."""
        was = self.before is not None and scope.includes(self.before)
        now = not self.gone and scope.includes(self.after)
        if was and now:
            return Event(EventType.MODIFIED, self.after)
        if now:
            return Event(EventType.ADDED, self.after)
        return Event(EventType.DELETED, self.after) if was else None


class History:
    """The changes of one kind, oldest first, and a way to wait for the next."""

    def __init__(self, kept: int = KEPT_EVENTS) -> None:
        self._kept = kept
        self._changes: list[Change] = []
        self._forgotten = 0
        self._oldest_version = 0
        self._appended = trio.Event()

    def append(self, change: Change) -> None:
        """Add a change and wake everybody who waits for it."""
        self._changes.append(change)
        if len(self._changes) >= 2 * self._kept:
            surplus = len(self._changes) - self._kept
            self._oldest_version = self._changes[surplus - 1].version
            del self._changes[:surplus]
            self._forgotten += surplus
        self._appended.set()
        self._appended = trio.Event()

    def position_after(self, version: int) -> int:
        """Return where to go on reading after `version`.

        Raises:
            ApiError: the changes since then are no longer known (410).
        """
        if version < self._oldest_version:
            raise ApiError.expired(version, self._oldest_version)
        return self._forgotten + bisect_right(self._changes, version, key=lambda change: change.version)

    def read(self, position: int) -> tuple[Change, ...]:
        """Return the changes from `position` on.

        Raises:
            ApiError: the reader was too slow, and has missed some (410).
        """
        if position < self._forgotten:
            raise ApiError.expired(0, self._oldest_version)
        return tuple(self._changes[position - self._forgotten :])

    async def wait_beyond(self, position: int) -> None:
        """Wait until there is a change at `position`."""
        while position >= self._forgotten + len(self._changes):
            await self._appended.wait()
