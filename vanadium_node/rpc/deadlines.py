"""Deadlines of many calls with one sleeping task.

A cancel scope with a deadline costs as much as a call. Here a call costs an entry in a table; the task sleeps until the
earliest of them could be due, looks, and sleeps again. Most calls end long before, and then nothing has to be done.
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

    async def run(self) -> None:
        """Call `expire` for what is due, until cancelled."""
        while True:
            with self._sleep:
                await trio.sleep_forever()
            now = trio.current_time()
            due = [key for key, deadline in self._due.items() if deadline <= now]
            for key in due:
                del self._due[key]
            self._earliest = min(self._due.values(), default=inf)
            self._sleep = trio.CancelScope(deadline=self._earliest)
            for key in due:
                self._expire(key)
