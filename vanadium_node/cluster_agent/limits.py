"""How much a cluster agent takes on: beyond it callers are told when to come again. Tables are bounded, nobody waits.

Buckets hold ten seconds' worth of calls and fill at a rate. Whoever finds one empty is given a time of its own, one after
the other, so that thousands who started together do not come back together.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from vanadium_node.errors import CallError, ErrorCode

K = TypeVar("K")

BURST_SECONDS: Final = 10
MAX_KEYS: Final = 16_384
"""Secrets and addresses remembered; the one not heard of for longest makes room, and begins with a full bucket next time."""

MAX_WAIT_SECONDS: Final = 30.0
BUSY_SECONDS: Final = 0.5
BUSY_RATE: Final = 400
"""Where all hands are full, callers are asked to come again after half a second, so many a second."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    next_slot: float = 0.0


class RateLimit(Generic[K]):
    """So many calls a second for each key; `rate` 0: no limit. Times are seconds of any clock that does not jump."""

    def __init__(self, rate: int, *, max_keys: int = MAX_KEYS) -> None:
        self._rate = rate
        self._burst = max(1, rate * BURST_SECONDS)
        self._max_keys = max_keys
        self._buckets: OrderedDict[K, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: K, now: float) -> float:
        """Take a call of this key; return 0, or how many seconds to wait before it is tried again."""
        if self._rate == 0:
            return 0.0
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(self._burst, now)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) * self._rate)
        bucket.filled_at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return 0.0
        slot = max(now + (1 - bucket.tokens) / self._rate, bucket.next_slot + 1 / self._rate)
        bucket.next_slot = min(slot, now + MAX_WAIT_SECONDS)
        return bucket.next_slot - now


class Limits:
    """What limits the service: calls for one secret, calls from one address, and calls at once."""

    def __init__(self, *, per_secret: int, per_address: int, in_flight: int, clock: Callable[[], float]) -> None:
        self._per_secret: RateLimit[str] = RateLimit(per_secret)
        self._per_address: RateLimit[str] = RateLimit(per_address)
        self._in_flight = 0
        self._max_in_flight = in_flight
        self._next_slot = 0.0
        self._clock = clock
        self.turned_away = 0
        """How many calls were told to come again."""

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a call as being worked on.

        Raises:
            CallError: overloaded, with `retry_after_ms`.
        """
        if self._max_in_flight and self._in_flight >= self._max_in_flight:
            now = self._clock()
            self._next_slot = min(max(now + BUSY_SECONDS, self._next_slot + 1 / BUSY_RATE), now + MAX_WAIT_SECONDS)
            raise self._overloaded("the cluster agent works on as many calls as it may", self._next_slot - now)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def check_address(self, address: str) -> None:
        """Take a call from an address, `IP:port`.

        Raises:
            CallError: overloaded, with `retry_after_ms`.
        """
        wait = self._per_address.take(host_of(address), self._clock())
        if wait:
            raise self._overloaded("too many calls come from your address", wait)

    def check_secret(self, secret_id: str) -> None:
        """Take a call for a secret that is known.

        Raises:
            CallError: overloaded, with `retry_after_ms`.
        """
        wait = self._per_secret.take(secret_id, self._clock())
        if wait:
            raise self._overloaded("too many calls come for this secret", wait)

    def _overloaded(self, why: str, wait: float) -> CallError:
        self.turned_away += 1
        return CallError(
            ErrorCode.OVERLOADED,
            why,
            fields={"retry_after_ms": max(1, round(wait * 1000))},
            hint=f"try again in {wait:.1f} s",
        )


def host_of(address: str) -> str:
    """Return who is counted for `IP:port`: the address; of IPv6, where one host has many, its network of 64 bits."""
    host = address.rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return host
