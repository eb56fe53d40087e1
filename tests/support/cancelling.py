"""Cancelling a piece of work at its first step, at its second, and so on until it is through."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path

import trio

MOST_STEPS = 2000
PATIENCE_SECONDS = 10
"""That a piece of work may take; more, and it hangs."""


class Moment(Enum):
    """When the cancellation comes."""

    RUNS = "as the task is about to go on"
    WAITS = "as the task has begun to wait"


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at a step of a task, or of any task below it."""

    def __init__(
        self, root: trio.lowlevel.Task, scope: trio.CancelScope, at: int, moment: Moment, *, alone: bool
    ) -> None:
        self._seen = dict.fromkeys(Moment, 0)
        self._root = root
        self._scope = scope
        self._at = at
        self._moment = moment
        self._alone = alone

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Cancel if this is the moment."""
        self._see(task, Moment.RUNS)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Cancel if this is the moment."""
        self._see(task, Moment.WAITS)

    def _see(self, task: trio.lowlevel.Task, moment: Moment) -> None:
        if self._is_ours(task):
            self._seen[moment] += 1
            if moment is self._moment and self._seen[moment] == self._at:
                self._scope.cancel()

    def _is_ours(self, task: trio.lowlevel.Task) -> bool:
        each: trio.lowlevel.Task | None = task
        while each is not None and each is not self._root and not self._alone:
            each = None if each.parent_nursery is None else each.parent_nursery.parent_task
        return each is self._root


async def cancelled_at(at: int, moment: Moment, work: Callable[[], Awaitable[object]], *, alone: bool = True) -> bool:
    """Do some work and cancel it at a step, counted from 1, of its task, or of that and all below it; tell whether it came so far."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(trio.lowlevel.current_task(), scope, at, moment, alone=alone)
        trio.lowlevel.add_instrument(instrument)
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                await work()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancel_called


async def each_step(
    moment: Moment, work: Callable[[], Awaitable[object]], *, alone: bool = True, stride: int = 1
) -> AsyncGenerator[int, None]:
    """Cancel the work at each of its steps in turn, and yield after each; the last time it gets through."""
    for at in range(1, MOST_STEPS, stride):
        was_cancelled = await cancelled_at(at, moment, work, alone=alone)
        yield at
        if not was_cancelled:
            return
    raise AssertionError(f"the work was not through after {MOST_STEPS} steps")


def open_files() -> list[str]:
    """Return the descriptors that this process has open, and what they are."""
    found: list[str] = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one of the folder itself
            found.append(f"{each.name}: {each.readlink()}")
    return sorted(found)
