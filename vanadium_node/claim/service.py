"""The method by which a server is claimed: once, with a pairing token if there is one, by whoever it was told to expect."""

import hmac
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import trio

from vanadium_node.claim.ownership import Ownership
from vanadium_node.errors import CallError, ErrorCode, VanadiumError
from vanadium_node.rpc import Call, Service, Tag, method
from vanadium_node.security.access import Permissions
from vanadium_node.security.authorization import everyone
from vanadium_node.security.pattern import Pattern

_log: Final = logging.getLogger(__name__)


class Claimable(Service):
    """Claimable is a server that has no owner yet, or had none once."""

    authorizer = staticmethod(everyone)
    """Claim itself decides: its caller has no name that this server's permissions could know."""

    def __init__(
        self, ownership: Ownership, *, claimer: Sequence[Pattern], token: str | None, permissions: Permissions
    ) -> None:
        self._ownership = ownership
        self._claimer = tuple(claimer)
        self._token = token
        self._permissions = permissions
        self._one_at_a_time = trio.Lock()

    @method(tag=Tag.ADMIN)
    async def claim(self, call: Call, pairing_token: str) -> None:
        """Gives the server the blessings granted on the call and, with them, its owner. The same claim may be repeated."""
        async with self._one_at_a_time:
            self._require_claimer(call)
            self._require_token(pairing_token)
            if self._ownership.is_claimed:
                self._require_repetition(call)
                return
            granted = call.granted
            if granted is None or granted.public_key != self._ownership.principal.public_key:
                raise CallError(
                    ErrorCode.BAD_ARG,
                    "a claim grants blessings for the key of the server",
                    hint="bless the key it presents",
                )
            await self.before_claim(call)
            await self._ownership.claim(granted, self._permissions)
        _log.info("claimed as %s by %s", granted, ", ".join(call.peer.names))

    async def before_claim(self, call: Call) -> None:
        """Called for a claim that is good, before it is made; raise to prevent it."""

    def _require_repetition(self, call: Call) -> None:
        """Let the claim that was made be made again: its acknowledgement may have been lost."""
        is_same = call.granted is not None and call.granted == self._ownership.principal.store.default
        if not self._claimer or not is_same:
            raise CallError(ErrorCode.EXISTS, "the cluster agent is already claimed")

    def _require_claimer(self, call: Call) -> None:
        """Turn strangers away, before and after the claim alike. Where nobody can claim, administrators hear why."""
        names = call.peer.names
        if any(pattern.matches(names) for pattern in self._claimer):
            return
        with suppress(VanadiumError):  # permissions that cannot be read now allow nothing
            if not self._claimer and self._ownership.allow(Tag.ADMIN, names):
                return
        _log.warning("claim refused: %s presented %s", call.peer.address, call.peer)
        wanted = f"matches {' or '.join(map(str, self._claimer))}" if self._claimer else "has the right Admin here"
        raise CallError(
            ErrorCode.NOT_TRUSTED,
            f"the claimer must have a recognized name that {wanted}; you have {', '.join(names) or 'none'}",
            hint="claim it with the credentials it was started for",
        )

    def _require_token(self, given: str) -> None:
        if self._token is not None and not hmac.compare_digest(self._token.encode(), given.encode()):
            _log.warning("claim refused: the pairing token is wrong")
            raise CallError(
                ErrorCode.NOT_TRUSTED, "the pairing token is wrong", hint="ask whoever started the server for it"
            )
