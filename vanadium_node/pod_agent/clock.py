"""How far this node's clock is from the cluster agent's: asked at each renewal, and named where it is in the way.

Blessings begin and end by the clock of whoever looks at them: one that is wrong makes good blessings end too early, or begin too
late. The cluster agent tells its time, and half of the round trip is taken for its way here.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import trio

from vanadium_node.agent.validity import validate_own
from vanadium_node.errors import NotTrustedError, VanadiumError
from vanadium_node.rpc import Client, connect
from vanadium_node.rpc.naming import Name
from vanadium_node.security.cose import LocalSigner
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.security.roots import BlessingRoots

TOLERATED: Final = timedelta(seconds=5)
"""Less is lost in the lives of blessings, even of those that last for minutes."""

ASK_SECONDS: Final = 1.0
"""How long the time may take to come; without it everything else goes on. Blessings that came before wait for it meanwhile."""

DISTRUSTED_SECONDS: Final = 5.0
"""How long connecting to a cluster agent may take of which nothing but the time is wanted."""

NEXT_STEP: Final = "set it right (NTP), or the cluster agent's where that is the wrong one"

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offset:
    """How far this node's clock is ahead of the cluster agent's (negative: behind), `give_or_take` half of a round trip."""

    ahead: timedelta
    give_or_take: timedelta
    theirs: datetime
    """What the cluster agent's clock showed."""

    @property
    def is_noticeable(self) -> bool:
        """Whether it is more than what is tolerated, however long the answer took on its way."""
        return abs(self.ahead) - self.give_or_take > TOLERATED

    def __str__(self) -> str:
        way = "ahead of" if self.ahead > timedelta(0) else "behind"
        return f"this node's clock is {in_words(abs(self.ahead))} {way} the cluster agent's"


class ClusterClock:
    """What is known of the cluster agent's clock, by answers of its own."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._said: timedelta | None = None
        self.offset: Offset | None = None
        """As measured last; None: never yet."""

    def ahead_seconds(self) -> float:
        """Return how far this node's clock was ahead when it was last compared, negative: behind; NaN: it never was."""
        return math.nan if self.offset is None else self.offset.ahead.total_seconds()

    def behind(self) -> timedelta:
        """Return how far this node's clock is behind, where that is noticeable: so much sooner than it shows all blessings end."""
        offset = self.offset
        return max(-offset.ahead, timedelta(0)) if offset is not None and offset.is_noticeable else timedelta(0)

    async def ask(self, client: Client) -> Offset | None:
        """Compare the clocks; None where the cluster agent is too old to tell its time, or does not answer."""
        offset = await self._compare(client)
        if offset is not None:
            self._take(offset)
        return offset

    async def ask_distrusted(self, agent: str, roots: BlessingRoots) -> Offset | None:
        """Compare the clocks with a cluster agent that is not trusted now; None where that has nothing to do with the time.

        Nothing of this replica is shown to it: the connection is made with a key of its own. What it says of the time counts
        only if it has, at that time, the name that it should have; others could say anything.
        """
        stranger = Principal(LocalSigner(PrivateKey.generate()), roots=roots)
        try:
            async with connect(
                agent, stranger, insecure=True, with_discharges=False, timeout=DISTRUSTED_SECONDS, now=self._now
            ) as client:
                offset, shown = await self._compare(client), client.server.blessings
        except VanadiumError:
            return None
        if offset is None:
            return None
        names, pattern = validate_own(shown, roots, offset.theirs).accepted, Name.parse(agent).pattern
        if not names or (pattern is not None and not pattern.matches(names)):
            return None
        self._take(offset)
        return offset

    async def _compare(self, client: Client) -> Offset | None:
        begun, ours = trio.current_time(), self._now()
        try:
            theirs: datetime = await client.call("Time", returns=datetime, timeout=ASK_SECONDS)
        except VanadiumError:
            return None
        half = timedelta(seconds=(trio.current_time() - begun) / 2)
        return Offset(ours - theirs + half, half, theirs)

    def _take(self, offset: Offset) -> None:
        """Remember an offset, and say so where it hurts, hurts no more, or is another one."""
        self.offset = offset
        if offset.is_noticeable:
            if self._said is None or abs(offset.ahead - self._said) > TOLERATED + offset.give_or_take:
                self._said = offset.ahead
                _log.warning("%s: blessings begin and end at the wrong time here; %s", offset, NEXT_STEP)
        elif self._said is not None:
            self._said = None
            _log.info("this node's clock and the cluster agent's agree again")


def explained(error: NotTrustedError, offset: Offset | None) -> NotTrustedError:
    """Return an error about times with the reason for them, where the clocks are it."""
    if offset is None or not offset.is_noticeable:
        return error
    return NotTrustedError(f"{error.message}; {offset}", hint=NEXT_STEP)


def in_words(span: timedelta) -> str:
    """Return a span of time in its largest unit and the one below it: `7 min 12 s`."""
    seconds = round(span.total_seconds())
    first = next((n for n, (size, _) in enumerate(_UNITS) if seconds >= size), len(_UNITS) - 1)
    text = ""
    for size, unit in _UNITS[first : first + 2]:
        count, seconds = divmod(seconds, size)
        text += f" {count} {unit}" if count or not text else ""
    return text.strip()
