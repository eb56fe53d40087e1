"""Discharges that were fetched, kept until they expire. A value store of a principal: it asks nobody and reads no clock."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vanadium_node.security.discharge import Discharge, ThirdParty

MAX_KEPT: Final = 1024
"""Discharges that a principal keeps at once; the oldest go first."""

FOREVER: Final = datetime.max.replace(tzinfo=UTC)
MOST_EARLY: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Kept:
    """A discharge, and until when it is to be used: a little less than it is good for, so that it lasts for the call."""

    discharge: Discharge
    fresh_until: datetime

    @classmethod
    def of(cls, discharge: Discharge, now: datetime) -> "Kept":
        """Take a discharge that has come just now; a tenth of its life, at most 5 s, is left for its way."""
        expires = discharge.expires
        if expires is None:
            return cls(discharge, FOREVER)
        return cls(discharge, expires - min((expires - now) / 10, MOST_EARLY))


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a discharger may be told: the server's names, the method, its encoded arguments. Empty where there is no call yet."""

    server: tuple[str, ...] = ()
    method: str = ""
    arguments: bytes = b""

    def reported_for(self, third_party: ThirdParty) -> "Occasion":
        """Return what this discharger wants to know, and nothing else."""
        wants = third_party.requirements
        return Occasion(
            self.server if wants.server else (),
            self.method if wants.method else "",
            self.arguments if wants.arguments else b"",
        )


class DischargeCache:
    """The discharges of one principal, each for one caveat and what its discharger was told of the call."""

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, Occasion], Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, third_party: ThirdParty, reported: Occasion, now: datetime) -> Kept | None:
        """Return the discharge of a caveat that is still fresh."""
        key = (third_party.id, reported)
        kept = self._kept.get(key)
        if kept is not None and kept.fresh_until <= now:
            del self._kept[key]
            return None
        return kept

    def keep(self, third_party: ThirdParty, reported: Occasion, kept: Kept) -> None:
        """Keep a discharge; one for which arguments are reported never, since the next call has others."""
        if third_party.requirements.arguments:
            return
        key = (third_party.id, reported)
        self._kept.pop(key, None)
        self._kept[key] = kept
        if len(self._kept) > MAX_KEPT:
            del self._kept[next(iter(self._kept))]

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
