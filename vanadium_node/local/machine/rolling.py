"""How many pods of which revision: the arithmetic of a rolling update, on plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

from vanadium_node.local.api.objects import Object


def portion(value: int | str | None, total: int, *, up: bool) -> int:
    """Return a number that was given as such or as a percentage of `total`, rounded up or down."""
    if value is None:
        return 0
    if isinstance(value, str) and value.endswith("%"):
        share = int(value[:-1]) * total / 100
        return ceil(share) if up else floor(share)
    return int(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far a rolling update may go above and below the number of pods wanted."""

    surge: int
    unavailable: int

    @classmethod
    def from_deployment(cls, deployment: Object) -> Bounds:
        """Read the strategy of a deployment.

        Both limits of a rolling update being zero would block it, so one pod may be unavailable then. `Recreate` promises all.
        """
        spec = deployment["spec"]
        replicas = int(spec.get("replicas", 1))
        strategy = spec.get("strategy") or {}
        if strategy.get("type") == "Recreate":
            return cls(surge=0, unavailable=0)
        rolling = strategy.get("rollingUpdate") or {}
        surge = portion(rolling.get("maxSurge", "25%"), replicas, up=True)
        unavailable = min(portion(rolling.get("maxUnavailable", "25%"), replicas, up=False), replicas)
        if surge == 0 and unavailable == 0:
            unavailable = 1
        return cls(surge=surge, unavailable=unavailable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One replica set's part in a deployment: how many pods it is to have, and how many are available."""

    replicas: int
    available: int


def grown(wanted: int, bounds: Bounds, new: Share, old: Sequence[Share]) -> int:
    """Return how many pods the new replica set may have now, with all that are there."""
    room = wanted + bounds.surge - new.replicas - sum(share.replicas for share in old)
    if new.replicas >= wanted:
        return wanted
    return new.replicas + max(0, min(room, wanted - new.replicas))


def shrunk(wanted: int, bounds: Bounds, new: Share, old: Sequence[Share]) -> tuple[int, ...]:
    """Return how many pods each old replica set (oldest first) keeps: first those go that are of no use anyway."""
    total = new.replicas + sum(share.replicas for share in old)
    least = wanted - bounds.unavailable
    new_unavailable = new.replicas - new.available
    may_go = max(0, total - least - new_unavailable)
    kept = [share.replicas for share in old]
    cleaned = 0
    for index, share in enumerate(old):
        useless = min(may_go - cleaned, max(0, share.replicas - share.available))
        kept[index] -= useless
        cleaned += useless
    available = new.available + sum(share.available for share in old)
    spare = max(0, available - least)
    for index in range(len(kept)):
        gone = min(spare, kept[index], max(0, may_go - cleaned))
        kept[index] -= gone
        spare -= gone
        cleaned += gone
    return tuple(kept)


def scaled(total: int, shares: Sequence[int]) -> tuple[int, ...]:
    """Spread a new total over replica sets in proportion to what they have; the largest takes what rounding leaves."""
    before = sum(shares)
    if before == 0:
        return tuple(shares)
    spread = [floor(share * total / before + 0.5) for share in shares]
    order = sorted(range(len(shares)), key=lambda i: -shares[i])
    rest = total - sum(spread)
    for index in order:
        step = max(rest, -spread[index])
        spread[index] += step
        rest -= step
    return tuple(spread)
