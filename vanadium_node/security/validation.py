"""Which names of a peer count, and why the others do not.

A name counts when its chain's root is recognized for it and every caveat of the chain holds for the call at hand. Signatures
are not looked at here: existing `Blessings` are verified, and that the peer has their key is the handshake's to prove.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from vanadium_node import cbor
from vanadium_node.errors import DecodeError
from vanadium_node.security.blessing import Blessings, Chain
from vanadium_node.security.caveat import FIRST_APPLICATION_ID, Caveat, CaveatId
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.roots import BlessingRoots

MAX_DISCHARGE_DEPTH: Final = 4
"""How many discharges may hang on one another: a discharge can itself carry a third-party caveat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """What caveats can depend on, as seen by whoever accepts the blessings. `now` is aware of its zone."""

    now: datetime
    method: str = ""
    tags: frozenset[str] = frozenset()
    local_names: tuple[str, ...] = ()
    peer_address: str | None = None
    discharges: tuple[Discharge, ...] = ()
    validators: "Mapping[int, Validator]" = field(default_factory=lambda: MappingProxyType({}))


Validator = Callable[[CallContext, cbor.Value], str]
"""Checks an application's caveat: takes the call and the caveat's parameter, returns "" or the reason why it does not hold."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A name that does not count, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Validation:
    """The names that count, and those that do not."""

    accepted: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    @property
    def presented(self) -> tuple[str, ...]:
        """All names that were shown."""
        return (*self.accepted, *(r.name for r in self.rejected))


NOBODY: Final = Validation()


def validate(blessings: Blessings | None, roots: BlessingRoots, context: CallContext) -> Validation:
    """Return which names of the blessings count for a call, and why the others do not."""
    accepted: dict[str, None] = {}
    rejected: list[Rejected] = []
    for chain in blessings.chains if blessings is not None else ():
        reason = why_rejected(chain, roots, context)
        if reason:
            rejected.append(Rejected(chain.name, reason))
        else:
            accepted[chain.name] = None
    return Validation(tuple(accepted), tuple(rejected))


def why_rejected(chain: Chain, roots: BlessingRoots, context: CallContext) -> str:
    """Return why a chain's name does not count; empty where it does."""
    if not roots.recognizes(chain.root_key, chain.name):
        return f"its root {chain.root_key} is not recognized for this name"
    return next(filter(None, (why_not(caveat, context) for caveat in chain.caveats)), "")


def why_not(caveat: Caveat, context: CallContext, depth: int = 0) -> str:
    """Return why a caveat does not hold; empty where it does. An id without a check never holds."""
    if caveat.id >= FIRST_APPLICATION_ID:
        validator = context.validators.get(caveat.id)
        return f"caveat {caveat.id} is unknown here" if validator is None else validator(context, caveat.parameter)
    if caveat.id == CaveatId.THIRD_PARTY:
        return _why_not_discharged(caveat, context, depth)
    check = _CHECKS.get(caveat.id)
    if check is None:
        return f"caveat {caveat.id} is unknown here"
    return "" if check(caveat, context) else _explain(caveat, context)


def _holds_for_address(caveat: Caveat, context: CallContext) -> bool:
    if context.peer_address is None:
        return False
    try:
        address = ipaddress.ip_address(context.peer_address)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    networks = [ipaddress.ip_network(n) for n in caveat.parameter]
    return any(address in network for network in networks if network.version == address.version)


_CHECKS: Final[Mapping[int, Callable[[Caveat, CallContext], bool]]] = MappingProxyType(
    {
        CaveatId.CONST: lambda caveat, _: caveat.parameter is True,
        CaveatId.EXPIRY: lambda caveat, context: context.now <= caveat.time,
        CaveatId.NOT_BEFORE: lambda caveat, context: context.now >= caveat.time,
        CaveatId.METHOD: lambda caveat, context: context.method in caveat.parameter,
        CaveatId.PEER_BLESSINGS: lambda caveat, context: any(
            Pattern.parse(p).matches(context.local_names) for p in caveat.parameter
        ),
        CaveatId.ACCESS_TAG: lambda caveat, context: bool(context.tags.intersection(caveat.parameter)),
        CaveatId.PEER_ADDRESS: _holds_for_address,
    }
)


def _explain(caveat: Caveat, context: CallContext) -> str:
    match caveat.id:
        case CaveatId.EXPIRY:
            return f"expired at {caveat.time:%Y-%m-%d %H:%M:%S} UTC; it is {context.now:%Y-%m-%d %H:%M:%S} UTC"
        case CaveatId.NOT_BEFORE:
            return f"not valid before {caveat.time:%Y-%m-%d %H:%M:%S} UTC; it is {context.now:%Y-%m-%d %H:%M:%S} UTC"
        case CaveatId.CONST:
            return "it is never valid"
        case _:
            text = str(caveat)
            return text[0].lower() + text[1:]


def _why_not_discharged(caveat: Caveat, context: CallContext, depth: int) -> str:
    try:
        third_party = ThirdParty.from_caveat(caveat)
    except DecodeError as error:
        return f"its third-party caveat cannot be read: {error}"
    if depth >= MAX_DISCHARGE_DEPTH:
        return f"its discharges hang on one another more than {MAX_DISCHARGE_DEPTH} deep"
    reason = f"no discharge from {third_party.location} came with the call"
    for discharge in context.discharges:
        if discharge.caveat_id == third_party.id:
            if not discharge.is_for(third_party):
                reason = f"the discharge from {third_party.location} is not signed by its discharger"
                continue
            reason = next(filter(None, (why_not(c, context, depth + 1) for c in discharge.caveats)), "")
            if not reason:
                return ""
            reason = f"its discharge from {third_party.location}: {reason}"
    return reason


def without_call(context: CallContext) -> CallContext:
    """Return the context of no call in particular: what can be said of a server's names before a method is called."""
    return replace(context, method="", tags=frozenset())
