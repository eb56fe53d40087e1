"""What controllers have in common: watch some kinds, note whose turn it is, bring one object after the other in order.

A controller is a synchronous function over the store: nothing happens between what it reads and what it writes, so it
never meets a conflict. It is called again whenever something it watches has changed; it looks at what is, not at what
happened. A new controller is one such function and a `Controller` around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore
from vanadium_node.local.machine.following import changes
from vanadium_node.local.machine.journal import Journal

Key: TypeAlias = tuple[str, str]
"""Namespace and name of an object of the controller's own kind."""

Reconcile: TypeAlias = Callable[[str, str], float | None]
"""Bring one object in order; return after how many seconds to look again although nothing has changed."""

Concerns: TypeAlias = Callable[[Object], Iterable[Key]]
"""Tell whose turn it is when this object has changed."""

FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A named reconcile function, and what makes it act."""

    name: str
    reconcile: Reconcile
    watches: Mapping[ResourceType, Concerns]


def itself(obj: Object) -> Iterable[Key]:
    """Say that the changed object is the one to look at."""
    yield obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def everything(_: Object) -> Iterable[Key]:
    """Say that all is to be looked at, as one turn: for what is not about single objects."""
    yield "", ""


def owner_of(kind: str) -> Concerns:
    """Return a function that says: the object of this kind that controls the changed one."""

    def concerns(obj: Object) -> Iterable[Key]:
        for reference in obj["metadata"].get("ownerReferences") or ():
            if reference.get("controller") and reference.get("kind") == kind:
                yield obj["metadata"].get("namespace", ""), str(reference["name"])

    return concerns


class _Turns:
    """Who is to be looked at, and when: at once, or at a time of trio's clock."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._changed = trio.Event()

    def add(self, key: Key, when: float) -> None:
        """Look at an object at this time, if not earlier."""
        if when < self._due.get(key, float("inf")):
            self._due[key] = when
            self._changed.set()

    async def next(self) -> Key:
        """Wait for the next turn."""
        while True:
            key = min(self._due, key=self._due.__getitem__, default=None)
            if key is not None and self._due[key] <= trio.current_time():
                del self._due[key]
                return key
            self._changed = trio.Event()
            with trio.move_on_at(float("inf") if key is None else self._due[key]):
                await self._changed.wait()


async def run_controller(store: ObjectStore, journal: Journal, controller: Controller) -> None:
    """Run a controller until cancelled. What it is refused, or a bug in it, delays one object, not the others."""
    turns = _Turns()
    async with trio.open_nursery() as nursery:
        for resource, concerns in controller.watches.items():
            nursery.start_soon(_feed, store, resource, concerns, turns)
        failures: dict[Key, int] = {}
        while True:
            key = await turns.next()
            await trio.lowlevel.checkpoint()
            if _succeeds(controller, journal, key, turns):
                failures.pop(key, None)
            else:
                failures[key] = failures.get(key, 0) + 1
                delay = min(FIRST_RETRY_SECONDS * 2.0 ** (failures[key] - 1), LAST_RETRY_SECONDS)
                turns.add(key, trio.current_time() + delay)


async def _feed(store: ObjectStore, resource: ResourceType, concerns: Concerns, turns: _Turns) -> None:
    async with aclosing(changes(store, resource)) as events:
        async for event in events:
            for key in concerns(event.object):
                turns.add(key, trio.current_time())


def _succeeds(controller: Controller, journal: Journal, key: Key, turns: _Turns) -> bool:
    try:
        again = controller.reconcile(*key)
    except ApiError as error:
        journal.note(f"{controller.name} {'/'.join(key)}: {error}")
        return False
    except Exception as error:  # noqa: BLE001 - the boundary where a bug in one object's case must not stop the others
        journal.bug(f"{controller.name} {'/'.join(key)}", error)
        return False
    if again is not None:
        turns.add(key, trio.current_time() + again)
    return True
