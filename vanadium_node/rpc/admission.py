"""Whether a request may become a call: who its peer is, whether it may call the method, and with what."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from vanadium_node.errors import DecodeError, InputError
from vanadium_node.rpc.call import PeerIdentity
from vanadium_node.rpc.host import Host
from vanadium_node.rpc.service import Method
from vanadium_node.rpc.trust import PeerTrust, names_of
from vanadium_node.security.authorization import (
    AuthorizationRequest,
    Authorizer,
    Refusal,
    default_authorizer,
    everyone,
)
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.discharge import Discharge
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.validation import NOBODY, Validation
from vanadium_node.wire.frames import Request

PURE_AUTHORIZERS: Final[frozenset[Authorizer]] = frozenset({default_authorizer, everyone})
"""Those that decide by the request alone: their answer is remembered as long as the request is the same."""


class Admission:
    """What is decided about the calls of one connection. `trust` is None until the peer has shown itself."""

    def __init__(self, host: Host, system_identity: PeerIdentity) -> None:
        self.trust: PeerTrust | None = None
        self.local_names: tuple[str, ...] = ()
        """This end's names, as of the last judgement."""
        self._host = host
        self._system_identity = system_identity
        self._shown: Blessings | None = None
        self._roots: BlessingRoots | None = None
        self._refusals: dict[Method, tuple[Validation, tuple[str, ...], Refusal | None]] = {}

    def showed(self, blessings: Blessings | None) -> None:
        """Take note of what this end showed."""
        self._shown, self._roots = blessings, None

    def know(self, trust: PeerTrust) -> None:
        """Take note of what the peer showed, at first or renewed."""
        self.trust = trust
        self._refusals.clear()

    def judge(self, method: Method, request: Request, now: datetime) -> tuple[PeerIdentity, Refusal | None]:
        """Return who the peer is for this call, and why it may not make it."""
        if self.trust is None:
            peer, validation = self._system_identity, NOBODY
        else:
            principal = self._host.principal
            if principal is None:
                raise RuntimeError("an authenticated connection of a server without a principal")
            if principal.roots is not self._roots:
                self._roots = principal.roots
                self.local_names = names_of(self._shown, principal.roots)
            peer, validation = self.trust.judge(
                method.name,
                method.tags,
                now=now,
                roots=self._roots,
                local_names=self.local_names,
                discharges=tuple(map(Discharge.decode, request.discharges)) if request.discharges else (),
            )
        known = self._refusals.get(method)
        if known is not None and known[0] is validation and known[1] is self.local_names:
            return peer, known[2]
        authorizer = method.authorizer or self._host.authorizer
        refusal = authorizer(
            AuthorizationRequest(
                local_names=self.local_names,
                peer=validation,
                peer_public_key=peer.public_key,
                local_public_key=None if self._host.principal is None else self._host.principal.public_key,
                method=method.name,
                tags=method.tags,
                peer_address=peer.address,
                peer_uid=peer.uid,
                peer_gids=peer.gids,
            )
        )
        if authorizer in PURE_AUTHORIZERS:
            self._refusals[method] = (validation, self.local_names, refusal)
        return peer, refusal

    def own_names(self) -> tuple[str, ...]:
        """Return the names of this end for the log, also where no call was judged yet."""
        principal = self._host.principal
        return names_of(self._shown, principal.roots) if principal is not None else ()

    def granted(self, encoded: bytes) -> Blessings:
        """Return blessings granted on the call, which must be for this server's key."""
        granted = Blessings.decode(encoded, self._host.chains)
        principal = self._host.principal
        if principal is not None and granted.public_key != principal.public_key:
            raise InputError(
                f"the granted blessings {granted} are bound to the key {granted.public_key}, not to this server's, "
                f"{principal.public_key}"
            )
        return granted


def arguments_of(method: Method, request: Request) -> list[Any]:
    """Return the arguments of a call, checked. Raises InputError, naming the one that is wrong."""
    given = request.arguments
    if not method.required <= len(given) <= len(method.arguments):
        expected = " ".join(argument.name for argument in method.arguments) or "none"
        raise InputError(f"it takes the arguments {expected}; {len(given)} were given")
    if request.has_items and method.items_in is None:
        raise InputError("it takes no stream of items")
    try:
        return [argument.codec.from_wire(value) for argument, value in zip(method.arguments, given, strict=False)]
    except InputError:
        for argument, value in zip(method.arguments, given, strict=False):
            try:
                argument.codec.from_wire(value)
            except InputError as error:
                raise DecodeError(f"the argument '{argument.name}' is wrong: {error.message}") from error
        raise
