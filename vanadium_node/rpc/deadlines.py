"""Deadlines of many calls with one waiting task.

A cancel scope with a deadline costs as much as a call. Here a call costs an entry in a table; one task waits until the earliest
of them could be due, looks, and waits again. Most calls end long before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
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
