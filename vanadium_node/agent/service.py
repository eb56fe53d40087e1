"""The server's side of the agent protocol: a principal for whoever may open the socket.

Everything asked of it is answered by the principal behind it. A pod agent's store and roots are immutable to its clients;
an agent for a credentials directory lets its owner change them.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import trio

from vanadium_node import cbor
from vanadium_node.agent.state import AgentState
from vanadium_node.agent.validity import validate_own
from vanadium_node.errors import CallError, DecodeError, ErrorCode, InputError
from vanadium_node.rpc import Call, Service, Tag, method
from vanadium_node.security.authorization import AuthorizationRequest, Authorizer, Refusal, everyone
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import SignatureType
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import Validation

MAX_CAVEAT_BYTES: Final = 64 * 1024
MAX_CACHED_DISCHARGES: Final = 256
_OF_THE_MOMENT: Final = frozenset({SignatureType.SESSION, SignatureType.MESSAGE})
"""Signatures that give nobody else any authority. Those of the others are as good as `Bless`."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AgentService(Service):
    """Agent serves a principal, but for its private key."""

    def __init__(
        self,
        principal: Principal,
        *,
        immutable: bool,
        authorize: Authorizer = everyone,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._principal = principal
        self._authorize = authorize
        self._immutable = immutable
        self._now = now
        self._version = 0
        self._changed = trio.Event()
        self._is_over = False
        self._discharges: dict[bytes, Discharge] = {}
        self.not_ready: Callable[[], Sequence[str]] = lambda: ()
        """Returns why there is no valid identity, a sentence each; empty where there is one, or none is needed."""

    def authorizer(self, request: AuthorizationRequest) -> Refusal | None:
        """Decide about a caller. That it may open the socket is known already."""
        return self._authorize(request)

    def notify(self) -> None:
        """Tell every client that the principal changed."""
        self._version += 1
        self._changed.set()
        self._changed = trio.Event()

    def end(self) -> None:
        """Tell every client that there will be no more changes: following an agent shall not keep it from ending."""
        self._is_over = True
        self.notify()

    @method(tag=Tag.READ)
    def public_key(self, call: Call) -> bytes:
        """Returns the principal's public key, as DER."""
        return self._principal.public_key.der

    @method(tag=Tag.READ)
    def state(self, call: Call) -> bytes:
        """Returns public key, blessing store and roots in one piece."""
        return AgentState.of(self._principal).encode()

    @method(tag=Tag.READ)
    def valid_names(self, call: Call) -> list[str]:
        """Returns the names that the principal can show now; none means that it has no identity at the moment."""
        return list(validate_own(self._principal.store.default, self._principal.roots, self._now()).accepted)

    @method(tag=Tag.READ)
    def why_not_ready(self, call: Call) -> list[str]:
        """Returns why there is no valid identity, a sentence each; empty where there is one."""
        return list(self.not_ready())

    @method(tag=Tag.READ)
    async def notify_when_changed(self, call: Call) -> AsyncIterator[int]:
        """Streams a number at once and whenever anything changed: whoever has a cache flushes it."""
        while not self._is_over:
            changed, version = self._changed, self._version
            yield version
            if version == self._version:
                await changed.wait()

    @method(tag=Tag.WRITE)
    async def sign(self, call: Call, kind: str, payload: bytes, external_aad: bytes, public_key: bytes = b"") -> bytes:
        """Returns a COSE_Sign1 of the given type over the payload, made with that key, if the caller names one."""
        if kind not in list(SignatureType):
            raise CallError(ErrorCode.BAD_ARG, "there is no such type of signature")
        if public_key and public_key != self._principal.public_key.der:
            raise CallError(ErrorCode.NOT_FOUND, "this agent has another key")
        if kind not in _OF_THE_MOMENT:
            self._check_may_bless(call)
        return await self._principal.sign(SignatureType(kind), payload, external_aad)

    @method(tag=Tag.WRITE)
    async def bless(
        self, call: Call, public_key: bytes, blessings: Blessings, extension: str, caveats: list[bytes]
    ) -> Blessings:
        """Extends blessings of the principal to another key."""
        with _bad_arguments():
            key = PublicKey.decode(public_key)
            return await self._principal.bless(key, blessings, extension, _caveats(caveats))

    @method(tag=Tag.WRITE)
    async def bless_self(self, call: Call, name: str, caveats: list[bytes]) -> Blessings:
        """Returns blessings rooted at the principal itself."""
        with _bad_arguments():
            return await self._principal.bless_self(name, _caveats(caveats))

    @method(tag=Tag.WRITE)
    async def mint_discharge(self, call: Call, caveat: bytes, caveats: list[bytes]) -> bytes:
        """Signs a discharge of a third-party caveat that names the principal's key."""
        with _bad_arguments():
            return (await self._principal.mint_discharge(_caveat(caveat), _caveats(caveats))).encoded

    @method(tag=Tag.READ)
    def blessing_store_default(self, call: Call) -> Blessings | None:
        """Returns the blessings shown as a server."""
        return self._principal.store.default

    @method(tag=Tag.READ)
    def blessing_store_for_peer(self, call: Call, names: list[str]) -> Blessings | None:
        """Returns the blessings shown to a server with these names."""
        return self._principal.store.for_peer(names)

    @method(tag=Tag.READ)
    def blessing_store_peer_blessings(self, call: Call) -> dict[str, Blessings]:
        """Returns all peer patterns with their blessings."""
        return {pattern.text: blessings for pattern, blessings in self._principal.store.peers.items()}

    @method(tag=Tag.READ)
    def blessing_store_debug_string(self, call: Call) -> str:
        """Returns the store as `principal dump` shows it."""
        return self._principal.store.table()

    @method(tag=Tag.WRITE)
    async def blessing_store_set_default(self, call: Call, blessings: Blessings | None) -> None:
        """Chooses the blessings shown as a server."""
        self._refuse_if_immutable("blessing store")
        with _bad_arguments():
            await self._principal.set_default(blessings)
        self.notify()

    @method(tag=Tag.WRITE)
    async def blessing_store_set(self, call: Call, blessings: Blessings | None, pattern: str) -> Blessings | None:
        """Chooses the blessings shown to servers that match the pattern; returns those before."""
        self._refuse_if_immutable("blessing store")
        with _bad_arguments():
            before = await self._principal.set_for_peer(blessings, Pattern.parse(pattern))
        self.notify()
        return before

    @method(tag=Tag.WRITE)
    async def adopt(self, call: Call, blessings: Blessings, peers: str | None, is_default: bool) -> None:
        """Shows blessings to servers that match the pattern, or to none, and as a server; recognizes their roots: all or nothing."""
        self._refuse_if_immutable("blessing store")
        with _bad_arguments():
            pattern = None if peers is None else Pattern.parse(peers)
            await self._principal.adopt(blessings, peers=pattern, is_default=is_default)
        self.notify()

    @method(tag=Tag.WRITE)
    def blessing_store_cache_discharge(self, call: Call, caveat: bytes, discharge: bytes) -> None:
        """Keeps a discharge for the other clients of this agent."""
        with _bad_arguments():
            third_party, given = ThirdParty.from_caveat(_caveat(caveat)), Discharge.decode(discharge)
        if not given.is_for(third_party):
            raise CallError(ErrorCode.BAD_ARG, "the discharge is not one of this caveat")
        self._discharges.pop(third_party.id, None)
        self._discharges[third_party.id] = given
        if len(self._discharges) > MAX_CACHED_DISCHARGES:
            del self._discharges[next(iter(self._discharges))]

    @method(tag=Tag.READ)
    def blessing_store_discharge(self, call: Call, caveat: bytes) -> bytes | None:
        """Returns the discharge kept for a third-party caveat."""
        with _bad_arguments():
            found = self._discharges.get(ThirdParty.from_caveat(_caveat(caveat)).id)
        return None if found is None else found.encoded

    @method(tag=Tag.WRITE)
    def blessing_store_clear_discharges(self, call: Call) -> None:
        """Drops all kept discharges."""
        self._discharges.clear()

    @method(tag=Tag.WRITE)
    async def blessing_roots_add(self, call: Call, public_key: bytes, pattern: str) -> None:
        """Recognizes a key as the root of names that match the pattern."""
        self._refuse_if_immutable("blessing roots")
        with _bad_arguments():
            await self._principal.add_root(PublicKey.decode(public_key), Pattern.parse(pattern))
        self.notify()

    @method(tag=Tag.WRITE)
    async def blessing_roots_add_of(self, call: Call, blessings: Blessings) -> None:
        """Recognizes the root of each chain for the name it gives itself: all or none."""
        self._refuse_if_immutable("blessing roots")
        await self._principal.add_roots_of(blessings)
        self.notify()

    @method(tag=Tag.READ)
    def blessing_roots_recognized(self, call: Call, public_key: bytes, name: str) -> bool:
        """Tells whether the key may be the root of the name."""
        with _bad_arguments():
            return self._principal.roots.recognizes(PublicKey.decode(public_key), name)

    @method(tag=Tag.READ)
    def blessing_roots_dump(self, call: Call) -> dict[str, list[bytes]]:
        """Returns, for each pattern, the keys that may be its root."""
        dump: dict[str, list[bytes]] = {}
        for key, patterns in self._principal.roots.entries.items():
            for pattern in patterns:
                dump.setdefault(pattern.text, []).append(key.der)
        return dump

    @method(tag=Tag.READ)
    def blessing_roots_debug_string(self, call: Call) -> str:
        """Returns the roots as `principal dump` shows them."""
        return self._principal.roots.table()

    def _check_may_bless(self, call: Call) -> None:
        """Refuse a caller that may not hand on authority."""
        refusal = self._authorize(
            AuthorizationRequest(
                local_names=call.local_names,
                peer=Validation(call.peer.names, call.peer.rejected),
                peer_public_key=call.peer.public_key,
                local_public_key=self._principal.public_key,
                method="Bless",
                tags=call.tags,
                peer_address=call.peer.address,
                peer_uid=call.peer.uid,
                peer_gids=call.peer.gids,
            )
        )
        if refusal is not None:
            raise CallError(ErrorCode.NO_ACCESS, refusal.reason)

    def _refuse_if_immutable(self, what: str) -> None:
        if self._immutable:
            raise CallError(
                ErrorCode.NO_ACCESS,
                f"the {what} of this principal cannot be changed by its clients: a pod agent serves it",
                hint="bless a principal of your own with it ('vanadium-node principal fork')",
            )


@contextmanager
def _bad_arguments() -> Iterator[None]:
    """Answer with bad-arg where an argument is refused."""
    try:
        yield
    except InputError as error:
        raise CallError(ErrorCode.BAD_ARG, error.message, hint=error.hint) from error


def _caveat(encoded: bytes) -> Caveat:
    return Caveat.decode(cbor.decode(encoded, max_bytes=MAX_CAVEAT_BYTES))


def _caveats(encoded: Sequence[bytes]) -> list[Caveat]:
    if sum(map(len, encoded)) > MAX_CAVEAT_BYTES:
        raise DecodeError(f"the caveats are longer than {MAX_CAVEAT_BYTES} bytes")
    return [_caveat(each) for each in encoded]
