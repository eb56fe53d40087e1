"""Trying again: how often, how long to wait, and what the error says in the end.

Waits grow by a factor and are drawn at random from the upper half of each, so that many clients of a server that went away
do not come back all at once. A server that says when to come again is obeyed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final

import trio

from vanadium_node.errors import CallError, ErrorCode, UnreachableError, VanadiumError
from vanadium_node.rpc.deadlines import effective_deadline
from vanadium_node.wire.frames import Wire

MAX_REASONS: Final = 3
"""Different reasons that the last error names."""

MAX_RETRY_AFTER_SECONDS: Final = 60.0
"""A server may ask for patience, but not for any amount of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """How persistent a client is. `attempts` 1: it never tries again; delays in seconds."""

    attempts: int = 5
    first_delay: float = 0.1
    max_delay: float = 10.0
    factor: float = 2.0
    draw: Callable[[], float] = field(default=random.random, repr=False)
    """Returns a number from 0 to 1."""

    def delay(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row (at least one), in seconds."""
        longest = min(self.max_delay, self.first_delay * self.factor ** min(failures - 1, 64))
        return longest * (1 + self.draw()) / 2


class Attempts:
    """The attempts at one call."""

    def __init__(self, retrying: Retrying, what: str, deadline: float) -> None:
        self._retrying = retrying
        self._what = what
        self._deadline = deadline
        self._since = trio.current_time()
        self._failures = 0
        self._reasons: list[str] = []

    async def failed(self, error: UnreachableError | CallError) -> None:
        """Wait until it is time for the next attempt; raise an error that tells what was tried where there is none."""
        self._failures += 1
        reason = error.message
        if reason not in self._reasons:
            self._reasons.append(reason)
        delay = max(self._retrying.delay(self._failures), retry_after(error))
        if self._failures >= self._retrying.attempts or trio.current_time() + delay >= self._deadline:
            raise self.summed_up(error)
        await trio.sleep(delay)

    def summed_up(self, error: UnreachableError | CallError) -> VanadiumError:
        """Return the last error, with what was tried before."""
        if self._failures <= 1:
            return error
        tried = trio.current_time() - self._since
        *others, last = self._reasons[-MAX_REASONS:]
        reasons = f"{last} (before: {'; '.join(others)})" if others else last
        sentence = f"{self._what} failed after {self._failures} attempts in {tried:.1f} s: {reasons}"
        if isinstance(error, CallError):
            return CallError(error.code, sentence, fields=error.fields, hint=error.hint)
        return UnreachableError(sentence, hint=error.hint)


def is_turned_away(error: CallError) -> bool:
    """Tell whether a server did not even begin with the call, and said when or that it may be tried again."""
    return error.code is ErrorCode.OVERLOADED and (
        "retry_after_ms" in error.fields or "retry_elsewhere" in error.fields
    )


def retry_after(error: VanadiumError) -> float:
    """Return how many seconds a server wants to be left alone; 0 where it said nothing."""
    asked: Wire = error.fields.get("retry_after_ms", 0) if isinstance(error, CallError) else 0
    return min(asked / 1000, MAX_RETRY_AFTER_SECONDS) if isinstance(asked, int) and asked > 0 else 0.0


def deadline_of(timeout: float | None) -> float:
    """Return when a call must be over, by trio's clock."""
    return min(effective_deadline(), inf if timeout is None else trio.current_time() + timeout)
