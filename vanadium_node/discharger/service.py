"""The discharger's one method: anybody may ask, its policy and the caveat's own conditions decide, its key signs.

What the asker reports of its call is believed only as far as the discharge then says so itself: it holds for the reported
method and server alone, and a lie makes it useless. Arguments cannot be bound in that way; they are for policies that are
built on this one.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from vanadium_node import cbor
from vanadium_node.discharger.policy import Policy, Request
from vanadium_node.errors import CallError, ErrorCode, InputError, VanadiumError
from vanadium_node.rpc import Call, Service, Tag, method
from vanadium_node.security.caveat import Caveat, CaveatId
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.pattern import NO_EXTENSION, SEPARATOR
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import CallContext, validate, why_not

MAX_CAVEAT_BYTES: Final = 8 * 1024
MAX_REPORTED_NAMES: Final = 16

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Discharger(Service):
    """Discharger says for third-party caveats that name its key whether they hold now."""

    def __init__(
        self,
        principal: Principal,
        policy: Callable[[], Policy],
        *,
        ttl: timedelta,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """`policy` is asked for each request; where it raises, nobody gets a discharge. A discharge is good for `ttl`."""
        self._principal = principal
        self._policy = policy
        self._ttl = ttl
        self._now = now

    @method(tag=Tag.RESOLVE)
    async def discharge(
        self, call: Call, caveat: bytes, server: list[str], called_method: str, arguments: bytes
    ) -> bytes:
        """Returns a discharge of the third-party caveat, for a while, if it holds for the reported call."""
        third_party = self._read(caveat)
        wants = third_party.requirements
        for is_wanted, is_there, what in (
            (wants.server, bool(server), "the server's names"),
            (wants.method, bool(called_method), "the method"),
            (wants.arguments, bool(arguments), "the arguments"),
        ):
            if is_wanted and not is_there:
                raise self._refusal(call, third_party, ErrorCode.BAD_ARG, f"{what} must be reported, and are not")
        if len(server) > MAX_REPORTED_NAMES:
            raise self._refusal(call, third_party, ErrorCode.BAD_ARG, "too many names are reported")
        now = self._now()
        caveats = self._conditions(third_party, tuple(server), called_method, now)
        minted = await self._principal.mint_discharge(third_party.to_caveat(), caveats)
        why = self._why_refused(self._request(call, third_party, minted, now))
        why = why or self._why_not(call, third_party, tuple(server), called_method, now)
        if why:
            raise self._refusal(call, third_party, ErrorCode.NO_ACCESS, why)
        log.info("discharged %s for %s at %s", third_party.fingerprint, call.peer, call.peer.address)
        return minted.encoded

    def _request(self, call: Call, third_party: ThirdParty, minted: Discharge, now: datetime) -> Request:
        """Return what the policy decides about. The asker's names count as they would with the discharge that it asks for."""
        context = CallContext(
            now=now,
            method=call.method,
            tags=call.tags,
            local_names=call.local_names,
            peer_address=_host(call),
            discharges=(minted,),
        )
        return Request(
            presented=call.peer.presented,
            accepted=validate(call.peer.blessings, self._principal.roots, context).accepted,
            key=call.peer.public_key,
            caveat=third_party.fingerprint,
            now=now,
        )

    def _read(self, caveat: bytes) -> ThirdParty:
        try:
            value = cbor.decode(caveat, max_bytes=MAX_CAVEAT_BYTES)
            third_party = ThirdParty.from_caveat(Caveat.decode(value))
        except InputError as error:
            raise CallError(ErrorCode.BAD_ARG, f"the caveat cannot be read: {error.message}") from error
        if third_party.discharger_key != self._principal.public_key:
            raise CallError(
                ErrorCode.NOT_FOUND,
                f"the caveat wants a discharge by the key {third_party.discharger_key}, and this is another discharger",
            )
        return third_party

    def _why_refused(self, request: Request) -> str:
        try:
            return self._policy().why_refused(request)
        except VanadiumError as error:
            log.error("nobody gets a discharge until this is corrected: %s", error)
            return "this discharger's deny list cannot be read"

    def _why_not(
        self, call: Call, third_party: ThirdParty, server: tuple[str, ...], called_method: str, now: datetime
    ) -> str:
        """Check the caveat's own conditions against the reported call and the asker's address."""
        context = CallContext(
            now=now,
            method=called_method,
            local_names=server,
            peer_address=_host(call),
        )
        return next(filter(None, (why_not(c, context) for c in third_party.caveats)), "")

    def _conditions(
        self, third_party: ThirdParty, server: tuple[str, ...], called_method: str, now: datetime
    ) -> list[Caveat]:
        """Return the caveats of the discharge: its life, and that what was reported is so."""
        ends = [c.time for c in third_party.caveats if c.id == CaveatId.EXPIRY]
        conditions = [Caveat.expiry(min([now + self._ttl, *ends]))]
        if third_party.requirements.method:
            conditions.append(Caveat.method(called_method))
        if third_party.requirements.server:
            conditions.append(Caveat.peer_blessings(*(f"{name}{SEPARATOR}{NO_EXTENSION}" for name in server)))
        return conditions

    def _refusal(self, call: Call, third_party: ThirdParty, code: ErrorCode, why: str) -> CallError:
        log.info("refused a discharge of %s to %s: %s", third_party.fingerprint, call.peer, why)
        return CallError(code, why)


def _host(call: Call) -> str | None:
    return call.peer.address.rpartition(":")[0].strip("[]") or None
