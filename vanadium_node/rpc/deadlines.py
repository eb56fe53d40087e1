"""Deadlines of many calls with one waiting task.

A cancel scope with a deadline costs as much as a call. Here a call costs an entry in a table; a task waits, for this or for
something else too, until the earliest of them could be due, looks, and waits again. Most calls end long before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import Generic, TypeVar

import trio

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

    def until_earliest(self) -> trio.CancelScope:
        """Return a scope that ends when something may be due; whoever waits in it then calls `expire`, and takes a new one."""
        return self._sleep

    def expire(self) -> None:
        """Call `expire` for what is due."""
        now = trio.current_time()
        due = [key for key, deadline in self._due.items() if deadline <= now]
        for key in due:
            del self._due[key]
        self._earliest = min(self._due.values(), default=inf)
        self._sleep = trio.CancelScope(deadline=self._earliest)
        for key in due:
            self._expire(key)

    async def run(self) -> None:
        """Call `expire` for what is due, until cancelled."""
        while True:
            with self.until_earliest():
                await trio.sleep_forever()
            self.expire()
