"""What a peer's credentials are worth for each call: caveats are checked at every one, and cheaply.

The outcome for a method is remembered until the first moment at which it could change: a time in a caveat, other roots,
other names of this end, other credentials. Caveats that only the application can judge are judged each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Final, NamedTuple

from vanadium_node.rpc.call import PeerIdentity
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import FIRST_APPLICATION_ID, Caveat, CaveatId
from vanadium_node.security.discharge import Discharge
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.validation import CallContext, Validation, Validator, validate
from vanadium_node.wire.handshake import Credentials

_OF_ALL_METHODS: Final = frozenset(
    {CaveatId.CONST, CaveatId.EXPIRY, CaveatId.NOT_BEFORE, CaveatId.PEER_BLESSINGS, CaveatId.PEER_ADDRESS}
)
"""Caveats that hold for every method of a connection alike, or for none."""

_ALL_METHODS: Final[tuple[str, frozenset[str]]] = ("", frozenset())
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
MAX_REMEMBERED: Final = 256
"""Methods for which outcomes are remembered at once; a server has few, and a client's caller could invent many."""


class _Outcome(NamedTuple):
    identity: PeerIdentity
    validation: Validation
    since: datetime
    until: datetime


class PeerTrust:
    """The worth of one peer's credentials on one connection."""

    def __init__(self, credentials: Credentials, address: str, validators: Mapping[int, Validator]) -> None:
        self.credentials = credentials
        self._address = address
        self._validators = validators
        self._outcomes: dict[tuple[str, frozenset[str]], _Outcome] = {}
        self._roots: BlessingRoots | None = None
        self._local_names: tuple[str, ...] = ()
        self._caveats = _caveats_of(credentials)
        kinds = {caveat.id for caveat in self._caveats}
        self._is_for_all_methods = kinds <= _OF_ALL_METHODS
        self._is_for_all_local_names = CaveatId.PEER_BLESSINGS not in kinds

    def judge(
        self,
        method: str,
        tags: frozenset[str],
        *,
        now: datetime,
        roots: BlessingRoots,
        local_names: tuple[str, ...],
        discharges: tuple[Discharge, ...] = (),
    ) -> tuple[PeerIdentity, Validation]:
        """Return who the peer is for a call of `method` at `now`, and the same as authorizers want it."""
        if roots is not self._roots or (local_names != self._local_names and not self._is_for_all_local_names):
            self._outcomes.clear()
            self._roots, self._local_names = roots, local_names
        key = _ALL_METHODS if self._is_for_all_methods else (method, tags)
        known = None if discharges else self._outcomes.get(key)
        if known is not None and known.since <= now < known.until:
            return known.identity, known.validation
        context = CallContext(
            now=now,
            method=method,
            tags=tags,
            local_names=local_names,
            peer_address=_host(self._address),
            discharges=(*self.credentials.discharges, *discharges),
            validators=self._validators,
        )
        validation = validate(self.credentials.blessings, roots, context)
        outcome = _Outcome(self._identity(validation), validation, now, self._until(now))
        if not discharges:
            if len(self._outcomes) >= MAX_REMEMBERED:
                self._outcomes.clear()
            self._outcomes[key] = outcome
        return outcome.identity, outcome.validation

    def _identity(self, validation: Validation) -> PeerIdentity:
        return PeerIdentity(
            names=validation.accepted,
            rejected=validation.rejected,
            public_key=self.credentials.public_key,
            blessings=self.credentials.blessings,
            address=self._address,
        )

    def _until(self, now: datetime) -> datetime:
        """Return the first moment at which another outcome is possible; `now` itself where each call may have its own."""
        until = _NEVER
        for caveat in self._caveats:
            if caveat.id >= FIRST_APPLICATION_ID:
                return now
            if (caveat.id == CaveatId.EXPIRY and caveat.time >= now) or (
                caveat.id == CaveatId.NOT_BEFORE and caveat.time > now
            ):
                until = min(until, caveat.time)
        return until


def _caveats_of(credentials: Credentials) -> tuple[Caveat, ...]:
    blessings, discharges = credentials.blessings, credentials.discharges
    if blessings is not None and len(blessings.chains) == 1 and not discharges:
        return blessings.chains[0].caveats
    shown = [each.caveats for each in (() if blessings is None else blessings.chains)]
    return tuple(chain.from_iterable((*shown, *(discharge.caveats for discharge in discharges))))


def names_of(blessings: Blessings | None, roots: BlessingRoots) -> tuple[str, ...]:
    """Return the names that this end goes by: those of its blessings whose roots it recognizes itself."""
    chains = () if blessings is None else blessings.chains
    return tuple(chain.name for chain in chains if roots.recognizes(chain.root_key, chain.name))


def _host(address: str) -> str | None:
    """Return the IP address of `ip:port`."""
    return address.rpartition(":")[0].strip("[]") or None
