"""Deadlines of many calls with one waiting task.

A cancel scope with a deadline costs as much as a call. Here a call costs an entry in a table; one task waits until the earliest
of them could be due, looks, and waits again. Most calls end long before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from math import inf
from typing import Final, Generic, Protocol, TypeAlias, TypeVar

import trio

log = logging.getLogger("vanadium_node.rpc")

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """What is due when, by key, in seconds of trio's clock."""

    def __init__(self, expire: Callable[[K], None]) -> None:
        self._expire = expire
        self._due: dict[K, float] = {}
        self._sleep = trio.CancelScope(deadline=inf)
        self._earliest = inf

    def add(self, key: K, deadline: float) -> None:
        """Have `expire(key)` called at the deadline, unless the key is discarded before."""
        self._due[key] = deadline
        if deadline < self._earliest:
            self._earliest = self._sleep.deadline = deadline

    def discard(self, key: K) -> None:
        """Forget a key; nothing happens when it is not there."""
        self._due.pop(key, None)

    def expire(self) -> None:
        """Call `expire` for what is due. One that fails is a bug; it is logged, and keeps the others from nothing."""
        now = trio.current_time()
        due = [key for key, deadline in self._due.items() if deadline <= now]
        for key in due:
            del self._due[key]
        self._earliest = min(self._due.values(), default=inf)
        self._sleep = trio.CancelScope(deadline=self._earliest)
        for key in due:
            try:
                self._expire(key)
            except Exception:
                log.exception("what was due could not be done")

    async def run(self) -> None:
        """Call `expire` for what is due, until cancelled."""
        while True:
            with self._sleep:
                await trio.sleep_forever()
            self.expire()


class Carried:
    """The deadline of a call that is being served, for the calls that its method makes. It binds nobody who outlives the call.

    The scope of the method could have the deadline, but setting one, and taking it back, costs as much as a tenth of a call.
    """

    __slots__ = ("deadline",)

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline


def carry(deadline: float) -> Carried:
    """Have the calls of this task, and of those that it starts, end by a deadline, as long as it is not taken back."""
    carried = Carried(deadline)
    _carried.set(carried)
    return carried


def carried_deadline() -> float:
    """Return when the call that is being served here must be over, by trio's clock; infinity where none is."""
    carried = _carried.get()
    return inf if carried is None else carried.deadline


def effective_deadline() -> float:
    """Return when a call made here must be over, by trio's clock: by the scopes around it, and by the call that is served."""
    return min(trio.current_effective_deadline(), carried_deadline())


_carried: Final[ContextVar[Carried | None]] = ContextVar("vanadium_deadline", default=None)


class Expiring(Protocol):
    """The calls of one connection, by their numbers."""

    def expire(self, number: int, /) -> None:
        """Do what is to be done when the deadline of a call has passed."""


CallDeadlines: TypeAlias = Deadlines[tuple[Expiring, int]]
"""Deadlines of the calls of many connections."""


def call_deadlines() -> CallDeadlines:
    """Return deadlines that nobody has run yet."""
    return Deadlines(lambda key: key[0].expire(key[1]))


_OF_RUN: Final[trio.lowlevel.RunVar[CallDeadlines]] = trio.lowlevel.RunVar("vanadium_node.rpc.deadlines")


def deadlines_of_run() -> CallDeadlines:
    """Return the deadlines that all clients of this `trio.run` have in common, with the one task that watches them."""
    try:
        return _OF_RUN.get()
    except LookupError:
        deadlines = call_deadlines()
        _OF_RUN.set(deadlines)
        trio.lowlevel.spawn_system_task(deadlines.run)
        return deadlines
