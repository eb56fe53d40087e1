"""What the two ends of a client's connection prove to each other: who the server is, and what this end shows it.

Without `insecure` the server must have a name that counts, and one that matches the pattern where the name has one, before
this end shows anything of itself. Its caveats are looked at again for every call, and this end shows itself again when its
blessings have been renewed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Final

import trio

from vanadium_node import cbor
from vanadium_node.errors import CallError, ErrorCode, NotTrustedError, PeerError
from vanadium_node.rpc.authentication import sign_auth
from vanadium_node.rpc.call import PeerIdentity
from vanadium_node.rpc.discharging import NONE, Discharging, needs_discharges
from vanadium_node.rpc.naming import Name
from vanadium_node.rpc.trust import PeerTrust, names_of
from vanadium_node.rpc.types import to_wire
from vanadium_node.security.authorization import describe_peer
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.discharge_cache import FOREVER, Occasion
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.principal import Principal
from vanadium_node.security.store import BlessingStore
from vanadium_node.security.validation import Validation, Validator
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.frames import Auth
from vanadium_node.wire.handshake import Role, verify_auth


@dataclass(slots=True, kw_only=True)
class Trusting:
    """How a client decides about its server, and what it needs to show itself."""

    principal: Principal | None
    is_insecure: bool
    validators: Mapping[int, Validator]
    now: Callable[[], datetime]
    server_key: PublicKey | None = None
    """The only key that will do, whatever names come with it."""
    discharging: Discharging | None = None
    """None: this end's blessings are shown without discharges."""


class MutualTrust:
    """What the ends of one connection know of each other. Without a principal (unix sockets) neither shows anything."""

    __slots__ = (
        "_connection",
        "_fresh_until",
        "_local_names",
        "_name",
        "_renewing",
        "_shown",
        "_shown_of",
        "_trust",
        "_trusting",
        "_wants_discharges",
        "binding",
        "server",
    )

    def __init__(self, name: Name, connection: Connection, trusting: Trusting, system_identity: PeerIdentity) -> None:
        self.server = system_identity
        """Who the server is, as it showed itself last."""
        self.binding = b""
        """What the channel binds both ends to."""
        self._name = name
        self._connection = connection
        self._trusting = trusting
        self._trust: PeerTrust | None = None
        self._local_names: tuple[str, ...] = ()
        self._shown: Blessings | None = None
        self._shown_of: BlessingStore | None = None
        """What this end showed last, and the store that it was chosen from."""
        self._fresh_until = FOREVER
        self._wants_discharges = False
        self._renewing: trio.Lock | None = None

    # The server

    def meet(self, auth: Auth) -> None:
        """Take what the server has proved, at first or renewed. Raises ProtocolError and NotTrustedError naming it."""
        principal = self._trusting.principal
        try:
            chains = None if principal is None else principal.chains
            credentials = verify_auth(auth, Role.SERVER, self.binding, chains)
        except PeerError as error:
            raise type(error)(f"{self._name}: {error.message}") from error
        self._trust = PeerTrust(credentials, self.server.address, self._trusting.validators)

    def check_server(self, method: str) -> None:
        """Make sure that the server is still who it must be. Raises NotTrustedError, naming what it presented and why not."""
        trusting, trust = self._trusting, self._trust
        principal = trusting.principal
        if principal is None or trust is None:
            return
        identity, validation = trust.judge(
            method, _NO_TAGS, now=trusting.now(), roots=principal.roots, local_names=self._local_names
        )
        if identity is self.server:
            return
        if trusting.server_key is not None:
            if trust.credentials.public_key != trusting.server_key:
                raise NotTrustedError(
                    f"the server at {self._name} has the key {trust.credentials.public_key}; {trusting.server_key} is wanted"
                )
        elif not trusting.is_insecure:
            refusal = why_refused(self._name, validation)
            if refusal is not None:
                raise refusal
        self.server = identity

    # This end

    async def show(self, deadline: float = inf) -> None:
        """Show this end, at first or renewed, with the discharges that its blessings need for any call.

        Raises trio.TooSlowError where an agent that signs, or a discharger, does not answer before the deadline.
        """
        principal = self._trusting.principal
        if principal is None:
            return
        mine = principal.blessings_for_peer(self.server.names)
        if principal.signs_at_once and (mine is None or not mine.has_third_parties):
            await self._show(principal, mine)
        else:
            with trio.fail_at(deadline):
                await self._show(principal, mine)

    async def _show(self, principal: Principal, mine: Blessings | None) -> None:
        store, discharging, collected = principal.store, self._trusting.discharging, NONE
        if discharging is not None and mine is not None and mine.has_third_parties:
            collected = await discharging.for_connection(mine, self.server.names)
        auth = await sign_auth(principal, Role.CLIENT, self.binding, mine, collected.encoded)
        self._shown, self._shown_of, self._fresh_until = mine, store, collected.fresh_until
        self._wants_discharges = discharging is not None and needs_discharges(mine, is_for_call=True)
        self._local_names = names_of(mine, principal.roots)
        self._connection.send_auth(auth)

    def needs_preparation(self) -> bool:
        """Tell whether this end has to show itself again before a call, or to fetch discharges for the call."""
        principal = self._trusting.principal
        if principal is None or self._shown_of is None:
            return False
        is_stale = principal.store is not self._shown_of
        return is_stale or self._wants_discharges or self._is_expired()

    def _is_expired(self) -> bool:
        return self._fresh_until is not FOREVER and self._fresh_until <= self._trusting.now()

    async def prepare(self, method: str, arguments: Sequence[object], deadline: float) -> list[bytes]:
        """Show this end again if what it showed has been renewed; return the discharges for one call. Raises CallError."""
        discharging = self._trusting.discharging
        if self._renewing is None:
            self._renewing = trio.Lock()
        missed = "this end could not show itself again in time"
        try:
            with trio.fail_at(deadline):
                async with self._renewing:
                    await self._renew()
                if discharging is None or not self._wants_discharges:
                    return []
                missed = "no discharge for this end's blessings came in time"
                wire = cbor.encode([to_wire(argument) for argument in arguments])
                collected = await discharging.for_call(self._shown, Occasion(self.server.names, method, wire))
                return collected.encoded
        except trio.TooSlowError as error:
            hint = "does its agent answer, and do the dischargers of its blessings?"
            raise CallError(ErrorCode.TIMEOUT, f"{method} was not called: {missed}", hint=hint) from error

    async def _renew(self) -> None:
        principal = self._trusting.principal
        if principal is None:
            return
        if self._is_expired() or (
            principal.store is not self._shown_of and principal.blessings_for_peer(self.server.names) != self._shown
        ):
            await self.show()  # takes note of the store as it was before: it may have changed again meanwhile
        else:
            self._shown_of = principal.store


_NO_TAGS: Final[frozenset[str]] = frozenset()


def why_refused(name: Name, validation: Validation) -> NotTrustedError | None:
    """Return why a server is not who it must be for a name; None where it is."""
    if name.pattern is not None:
        if name.pattern.matches(validation.accepted):
            return None
        wanted = f"a name that matches {name.pattern} is wanted"
    elif validation.accepted:
        return None
    else:
        wanted = "none of its names is recognized"
    return NotTrustedError(
        f"the server at {name} is not trusted: {describe_peer(validation).replace('the peer', 'it', 1)}; {wanted}",
        hint="recognize its root with 'principal recognize' if it is right, or look at it with --insecure",
    )
