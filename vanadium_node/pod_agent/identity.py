"""A replica's identity in time: waited for, shown, renewed long before it ends, hidden when it has ended.

Time is the wall clock's, since that is what caveats mean, and looked at every half minute at least: after a suspend the
monotonic clock has stood still while blessings expired.
"""

import logging
import math
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

import trio

from vanadium_node.agent.validity import validate_own
from vanadium_node.errors import CallError, NotTrustedError, UnreachableError, VanadiumError
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.principal import Principal

ATTEMPT_SECONDS: Final = 60.0
"""One attempt. A cluster agent to which ten thousand come at once lets them wait in its queue: whoever leaves it too early has kept
the others waiting for nothing."""

LEAST_ATTEMPT_SECONDS: Final = 5.0
"""Also where little is left of a life."""

FIRST_RETRY_SECONDS: Final = 0.1
LAST_RETRY_SECONDS: Final = 5.0
"""Also what a new pod waits at most after its cluster agent has come back."""

LONGEST_PAUSE_SECONDS: Final = 60.0
"""However long an overloaded cluster agent wants to be left alone."""

LOOK_SECONDS: Final = 30.0
RENEWAL_SHARE: Final = (0.45, 0.55)
"""When blessings are renewed, as a share of their life: replicas started together drift apart."""

TRIES_LEFT: Final = 20
"""Tries that still fit into the life of what one has, even when the cluster agent answers none until near its end."""

_log: Final = logging.getLogger(__name__)

Seek = Callable[[], Awaitable[Blessings]]
"""Gets new blessings, verified, or raises a VanadiumError."""


class ReplicaIdentity:
    """Keeps a principal's blessings fresh. `on_change` is called after each change with whether there is an identity;
    `behind` returns how far this clock is known to be behind that of whoever gives the blessings."""

    def __init__(
        self,
        principal: Principal,
        seek: Seek,
        *,
        on_change: Callable[[bool], None],
        now: Callable[[], datetime],
        behind: Callable[[], timedelta] = timedelta,
    ) -> None:
        self._principal = principal
        self._seek = seek
        self._on_change = on_change
        self._now = now
        self._behind = behind
        self._is_valid = False
        self._taken = trio.Event()
        self._said: object = None
        self._trouble = ""

    def not_ready(self) -> tuple[str, ...]:
        """Return why there is no identity, a sentence each; empty when there is one."""
        if self._is_valid:
            return ()
        what = "the identity has expired" if self._principal.store.default else "there is no identity yet"
        return (what, *([self._trouble] if self._trouble else []))

    def worries(self) -> tuple[str, ...]:
        """Return why the identity, which is valid still, will not be renewed if that lasts; empty when nothing is wrong."""
        return (f"the last renewal failed: {self._trouble}",) if self._is_valid and self._trouble else ()

    def seconds_left(self) -> float:
        """Return how long the identity is valid still: 0 without one, infinite for one without end."""
        left = self._left()
        if left is not None:
            return left.total_seconds()
        return math.inf if self._is_valid else 0.0

    async def keep(self) -> None:
        """Get, renew and watch the identity until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            await self._renew()

    async def _renew(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            seconds = self._attempt_seconds()
            try:
                with trio.fail_after(seconds):
                    blessings = await self._seek()
                renewal = await self._take(blessings)
            except trio.TooSlowError:
                wait = self._failed(UnreachableError(f"the cluster agent did not answer in {seconds:.0f} s"), delay)
            except VanadiumError as error:
                wait = self._failed(error, delay)
            else:
                await self._sleep_until(renewal)
                delay = FIRST_RETRY_SECONDS
                continue
            await trio.sleep(wait)
            delay = min(delay * 2, LAST_RETRY_SECONDS)

    def _attempt_seconds(self) -> float:
        """Return how long an attempt may take: while there is an identity, so that there is time for others."""
        left = self._left()
        return (
            ATTEMPT_SECONDS
            if left is None
            else max(LEAST_ATTEMPT_SECONDS, min(ATTEMPT_SECONDS, left.total_seconds() / 4))
        )

    async def _take(self, blessings: Blessings) -> datetime | None:
        """Make verified blessings the identity, and return when to renew them; the old ones are in use until now.

        Raises:
            NotTrustedError: they have ended meanwhile; the old ones stay.
        """
        now = self._now()
        if not validate_own(blessings, self._principal.roots, now).accepted:
            raise NotTrustedError(
                f"the blessings {blessings} ended before they could be used",
                hint="was this machine asleep, or is the cluster agent's --blessing-ttl too short?",
            )
        await self._principal.adopt(blessings)
        self._said = None
        self._trouble = ""
        expiry = blessings.expiry
        until = f"until {expiry:%Y-%m-%d %H:%M:%S} UTC" if expiry else "without end"
        _log.info("this replica is %s, %s", blessings, until)
        self._is_valid = True
        self._on_change(True)
        self._taken.set()
        self._taken = trio.Event()
        return renewal_time(blessings, now, self._behind())

    def _failed(self, error: VanadiumError, delay: float) -> float:
        """Say what is wrong, once per kind of trouble, and return how many seconds to wait before the next try."""
        self._trouble = str(error)
        kind = (type(error), error.code if isinstance(error, CallError) else None)
        if kind != self._said:
            self._said = kind
            _log.warning("no %s yet, trying on: %s", "new blessings" if self._is_valid else "identity", error)
        wait = max(asked_to_wait(error), delay * random.uniform(0.5, 1))  # noqa: S311 - spreads load, hides nothing
        left = self._left()
        return wait if left is None else max(FIRST_RETRY_SECONDS, min(wait, left.total_seconds() / TRIES_LEFT))

    def _left(self) -> timedelta | None:
        """Return how long the identity is still valid; None: there is none, or it has no end."""
        current = self._principal.store.default
        if not self._is_valid or current is None or current.expiry is None:
            return None
        return max(timedelta(0), current.expiry - self._now())

    async def _watch(self) -> None:
        """Tell when the identity ends, and when a clock that was set back makes it valid again."""
        while True:
            current, roots = self._principal.store.default, self._principal.roots
            is_valid = bool(validate_own(current, roots, self._now()).accepted)
            if is_valid != self._is_valid:
                self._is_valid = is_valid
                _log.warning("the identity %s %s", current, "is valid again" if is_valid else "has expired")
                self._on_change(is_valid)
            left = self._left()
            seconds = LOOK_SECONDS if left is None else min(LOOK_SECONDS, left.total_seconds() + 0.001)
            with trio.move_on_after(seconds):
                await self._taken.wait()

    async def _sleep_until(self, time: datetime | None) -> None:
        """Sleep until the wall clock shows that time, or as long as it is until then now: it may be set back meanwhile.
        None: for ever."""
        if time is None:
            await trio.sleep_forever()
        left = max(FIRST_RETRY_SECONDS, (time - self._now()).total_seconds())
        due = trio.current_time() + left
        while left > 0:  # nobody tells when a wall clock jumps
            await trio.sleep(min(LOOK_SECONDS, left))
            left = min(due - trio.current_time(), (time - self._now()).total_seconds())


def asked_to_wait(error: VanadiumError) -> float:
    """Return how many seconds an overloaded cluster agent wants to be left alone, and a little more, never less."""
    asked = error.fields.get("retry_after_ms") if isinstance(error, CallError) else None
    if not isinstance(asked, int):
        return 0.0
    return min(max(asked, 0) / 1000, LONGEST_PAUSE_SECONDS) * random.uniform(1, 1.25)  # noqa: S311 - as above


def renewal_time(blessings: Blessings, now: datetime, behind: timedelta = timedelta(0)) -> datetime | None:
    """Return when blessings that were got now are to be renewed: about half-way to the first end of a chain; None: never.

    To a clock that is behind they seem to live longer than they do for everybody else.
    """
    ends = [chain.expiry for chain in blessings.chains if chain.expiry is not None and chain.expiry >= now]
    if not ends:
        return None
    life = min(ends) - now
    return now + (life - behind if behind < life else life) * random.uniform(*RENEWAL_SHARE)  # noqa: S311 - spreads load, hides nothing
