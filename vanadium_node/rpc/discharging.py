"""Getting the discharges that blessings need: which, from whom, and for how long they do.

A third-party caveat that asks for nothing of the call is discharged once for a connection, in the frame that shows the
blessings; one that wants to know the method or its arguments, once for each call. The discharger is recognized by the key
that the caveat names, before it is told anything; it is asked without discharges, so that asking ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import astuple, dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import trio

from vanadium_node.errors import CallError, DecodeError, UnreachableError, VanadiumError
from vanadium_node.security.blessing import Blessings, Chain
from vanadium_node.security.discharge import Discharge, ThirdParty, third_parties
from vanadium_node.security.discharge_cache import FOREVER, Kept, Occasion
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import MAX_DISCHARGE_DEPTH

DISCHARGE_METHOD: Final = "Discharge"
ASK_SECONDS: Final = 10.0
"""How long one discharger may take; callers wait for it."""

FRESH_ENOUGH: Final = timedelta(seconds=1)
"""What a discharge of another process must be good for still, to be taken instead of a new one."""

MAX_ASKED: Final = 16
"""Discharges fetched for one occasion; blessings that need more are not for use."""


Ask: TypeAlias = Callable[[ThirdParty, Occasion], Awaitable[Discharge]]
"""Asks a discharger. Raises VanadiumError where it refuses or cannot be asked."""


@dataclass(frozen=True, slots=True)
class Collected:
    """Discharges to send, and until when they are to be used."""

    discharges: tuple[Discharge, ...] = ()
    fresh_until: datetime = FOREVER

    @property
    def encoded(self) -> list[bytes]:
        """The discharges as they are sent."""
        return [discharge.encoded for discharge in self.discharges]


NONE: Final = Collected()


class Discharging:
    """Fetches and keeps the discharges of a principal's blessings."""

    def __init__(self, principal: Principal, ask: Ask, now: Callable[[], datetime]) -> None:
        self._principal = principal
        self._ask = ask
        self._now = now

    async def for_connection(self, blessings: Blessings | None, server: tuple[str, ...] = ()) -> Collected:
        """Return the discharges that hold for every call on a connection.

        Raises:
            CallError, UnreachableError: without them none of the blessings' names could count.
        """
        return await self._collect(blessings, Occasion(server), is_for_call=False)

    async def for_call(self, blessings: Blessings | None, occasion: Occasion) -> Collected:
        """Return the discharges that hold for one call. Raises as `for_connection` does."""
        return await self._collect(blessings, occasion, is_for_call=True)

    async def _collect(self, blessings: Blessings | None, occasion: Occasion, *, is_for_call: bool) -> Collected:
        if blessings is None or not blessings.has_third_parties:
            return NONE
        wanted = {chain: _wanted(chain, is_for_call) for chain in blessings.chains}
        needed = {third_party.id: third_party for parties in wanted.values() for third_party in parties}
        if not needed:
            return NONE
        found: dict[bytes, Collected | VanadiumError] = {}
        search = _Search(self._principal, self._ask, self._now, occasion)

        async def find(third_party: ThirdParty) -> None:
            try:
                found[third_party.id] = await search.find(third_party, 0)
            except VanadiumError as error:
                found[third_party.id] = error

        async with trio.open_nursery() as nursery:
            for third_party in needed.values():
                nursery.start_soon(find, third_party)
        _require_one_usable(blessings, wanted, found)
        return _joined(each for each in found.values() if isinstance(each, Collected))


class _Search:
    """The fetching for one occasion. What dischargers send may need discharges itself, but not without an end."""

    def __init__(self, principal: Principal, ask: Ask, now: Callable[[], datetime], occasion: Occasion) -> None:
        self._principal = principal
        self._ask = ask
        self._now = now
        self._occasion = occasion
        self._left = MAX_ASKED

    async def find(self, third_party: ThirdParty, depth: int) -> Collected:
        """Return a discharge, with those that it needs itself. Raises CallError or UnreachableError naming the discharger."""
        reported = self._occasion.reported_for(third_party)
        kept = self._principal.discharges.find(third_party, reported, self._now())
        try:
            if kept is None:
                kept = await self._fetch(third_party, reported, depth)
            inner = kept.discharge.third_parties
        except VanadiumError as error:
            raise _failure(third_party, error) from error
        parts = [await self.find(each, depth + 1) for each in inner]
        return _joined([Collected((kept.discharge,), kept.fresh_until), *parts])

    async def _fetch(self, third_party: ThirdParty, reported: Occasion, depth: int) -> Kept:
        if depth >= MAX_DISCHARGE_DEPTH or not self._left:
            raise UnreachableError(
                f"it needs more than {MAX_ASKED} discharges, or they hang on one another more than "
                f"{MAX_DISCHARGE_DEPTH} deep"
            )
        self._left -= 1
        is_general = not any(astuple(third_party.requirements))
        kept = await self._shared(third_party) if is_general else None
        if kept is None:
            discharge = await self._ask(third_party, reported)
            if not discharge.is_for(third_party):
                raise UnreachableError("what it sent is not a discharge of this caveat by its key")
            kept = Kept.of(discharge, self._now())
            if is_general:
                await self._principal.share_discharge(third_party, discharge)
        self._principal.discharges.keep(third_party, reported, kept)
        return kept

    async def _shared(self, third_party: ThirdParty) -> Kept | None:
        """Return what another process with this principal has fetched, if it is still good for as long again as its way takes."""
        discharge = await self._principal.shared_discharge(third_party)
        if discharge is None or not discharge.is_for(third_party):
            return None
        kept, now = Kept.of(discharge, self._now()), self._now()
        return kept if kept.fresh_until > now + FRESH_ENOUGH else None


def needs_discharges(blessings: Blessings | None, *, is_for_call: bool) -> bool:
    """Tell whether there is anything to fetch for the blessings, for a connection or for each call."""
    if blessings is None or not blessings.has_third_parties:
        return False
    return any(_wanted(chain, is_for_call) for chain in blessings.chains)


def _wanted(chain: Chain, is_for_call: bool) -> tuple[ThirdParty, ...]:
    try:
        parties = third_parties(chain.caveats)
    except DecodeError:
        return ()  # nobody can discharge it, and whoever accepts the blessings says so
    return tuple(p for p in parties if (p.requirements.method or p.requirements.arguments) is is_for_call)


def _joined(parts: Iterable[Collected]) -> Collected:
    joined = NONE
    for part in parts:
        joined = replace(
            joined,
            discharges=(*joined.discharges, *part.discharges),
            fresh_until=min(joined.fresh_until, part.fresh_until),
        )
    return joined


def _failure(third_party: ThirdParty, error: VanadiumError) -> VanadiumError:
    """Return the error of one discharger, which names it, the caveat and the reason."""
    if isinstance(error, CallError):
        return CallError(
            error.code,
            f"the discharger at {third_party.location} refused to discharge the caveat {third_party.fingerprint}: "
            f"{error.message}",
            fields=error.fields,
        )
    return UnreachableError(
        f"no discharge of the caveat {third_party.fingerprint} from {third_party.location}: {error.message}",
        hint=error.hint or "see whether the discharger runs",
    )


def _require_one_usable(
    blessings: Blessings | None,
    wanted: dict[Chain, tuple[ThirdParty, ...]],
    found: dict[bytes, Collected | VanadiumError],
) -> None:
    """Raise the first failure where every chain lacks a discharge; with one that lacks none, there is a name to go by."""
    errors: list[VanadiumError] = []
    for parties in wanted.values():
        failed = [error for p in parties if isinstance(error := found[p.id], VanadiumError)]
        if not failed:
            return
        errors += failed
    first = errors[0]
    message = f"the blessings {blessings} cannot be used now: {first.message}"
    if isinstance(first, CallError):
        raise CallError(first.code, message, fields=first.fields) from first
    raise UnreachableError(message, hint=first.hint) from first
