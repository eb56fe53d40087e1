"""Connecting: dial, shake hands, look at the server, and show oneself only if it is who it must be."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from math import inf
from types import MappingProxyType

import trio

from vanadium_node import cbor
from vanadium_node.errors import InputError, PeerError, ProtocolError, UnreachableError
from vanadium_node.rpc import sockets
from vanadium_node.rpc.authentication import shake_hands
from vanadium_node.rpc.background import SYSTEM, Background
from vanadium_node.rpc.call import PeerIdentity
from vanadium_node.rpc.client import DEFAULT_TIMEOUT, Client
from vanadium_node.rpc.deadlines import deadlines_of_run
from vanadium_node.rpc.dialing import dial
from vanadium_node.rpc.discharging import ASK_SECONDS, DISCHARGE_METHOD, Discharging
from vanadium_node.rpc.intercepted_client import InterceptedClient
from vanadium_node.rpc.intercepting import ClientInterceptor
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.mutual import MutualTrust, Trusting
from vanadium_node.rpc.naming import Name, UnixAddress
from vanadium_node.rpc.tls import PlainChannel, TlsChannel, client_context
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.discharge_cache import Occasion
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import Validator
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.handshake import Role
from vanadium_node.wire.limits import DEFAULT_LIMITS, Limits


def _utc_now() -> datetime:
    return datetime.now(UTC)


def connect(
    name: Name | str,
    principal: Principal | None,
    *,
    insecure: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
    limits: Limits = DEFAULT_LIMITS,
    validators: Mapping[int, Validator] = MappingProxyType({}),
    now: Callable[[], datetime] = _utc_now,
    server_key: PublicKey | None = None,
    with_discharges: bool = True,
    interceptors: Sequence[ClientInterceptor] = (),
) -> AbstractAsyncContextManager[Client]:
    """Connect to a server, within `timeout` seconds; the connection is open as long as the block.

    `principal` may be None for unix sockets, whose server the system names. With `insecure`, any server will do; with
    `server_key`, the one that has this key, whatever its names. Discharges that this end's blessings need are fetched before
    it shows itself and before calls, unless `with_discharges` is false. `interceptors` surround each call (`intercepting`).
    A program that runs long and calls often wants `open_pool`, which connects again by itself.

    Raises:
        InputError: the name is none.
        UnreachableError: nobody answers there, or not in time.
        NotTrustedError: the server is not who it must be; it has not seen anything of this end.
        CallError: a discharger refused, and without its discharge none of this end's names could count.
        ProtocolError: it does not speak this protocol.
    """
    trusting = Trusting(
        principal=principal,
        is_insecure=insecure,
        validators=validators,
        now=now,
        server_key=server_key,
        discharging=discharging_of(principal, now) if with_discharges and principal is not None else None,
    )
    target = Name.parse(name) if isinstance(name, str) else name
    return _Connecting(target, trusting, timeout, limits, interceptors)


class _TimeLimit:
    """Breaks a connection that has not come about in time: an entry among the deadlines of calls costs less than a scope."""

    __slots__ = ("_connection", "is_over")

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.is_over = False

    def expire(self, _number: int) -> None:
        """Break it; whoever waits for the peer notices."""
        self.is_over = True
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


class _Connecting(AbstractAsyncContextManager[Client]):
    """What `connect` returns: connects when it is entered."""

    __slots__ = (
        "_background",
        "_client",
        "_connection",
        "_interceptors",
        "_limits",
        "_target",
        "_timeout",
        "_trusting",
    )

    def __init__(
        self,
        target: Name,
        trusting: Trusting,
        timeout: float,
        limits: Limits,
        interceptors: Sequence[ClientInterceptor],
    ) -> None:
        self._target = target
        self._trusting = trusting
        self._timeout = timeout
        self._limits = limits
        self._interceptors = interceptors
        self._background = Background(SYSTEM)

    async def __aenter__(self) -> Client:
        deadline = trio.current_time() + self._timeout
        try:
            connection = await dial(self._target.address, deadline=deadline)
        except trio.TooSlowError as error:
            raise self._too_slow() from error
        try:
            self._client = await self._open(connection, deadline)
        except BaseException:
            self._background.end()
            connection.close()
            raise
        self._connection = connection
        self._client.conversation.begin()
        return self._client

    async def __aexit__(self, *_error: object) -> None:
        self._client.close()
        self._background.end()
        self._connection.close()

    async def _open(self, connection: socket.socket, deadline: float) -> Client:
        """Bring a connection to where calls can be made, in time."""
        limit, deadlines = _TimeLimit(connection), deadlines_of_run()
        if deadline != inf:
            deadlines.add((limit, 0), deadline)
        try:
            client = await self._shake_hands(connection, deadline)
        except (OSError, PeerError, UnreachableError) as error:
            if limit.is_over:
                raise self._too_slow() from error
            if isinstance(error, OSError):
                broke = f"the connection to {self._target} broke: {error.strerror or error}"
                raise UnreachableError(broke) from error
            raise
        except trio.TooSlowError as error:
            raise self._too_slow() from error
        finally:
            deadlines.discard((limit, 0))
        if limit.is_over:  # the last that was needed came in the same moment
            raise self._too_slow()
        return client

    async def _shake_hands(self, connection: socket.socket, deadline: float) -> Client:
        """Show both ends to each other, where the system does not name them."""
        target, limits = self._target, self._limits
        if isinstance(target.address, UnixAddress):
            wire = Connection(Role.CLIENT, limits, authenticates=False)
            link = Link(connection, PlainChannel(), wire, limits, self._background)
            return self._client_of(link, self._mutual(link, PeerIdentity(uid=sockets.peer_uid(connection))))
        if self._trusting.principal is None:
            raise InputError(f"connecting to {target} needs a principal")
        channel = TlsChannel.connect(client_context())
        try:
            await shake_hands(connection, channel)
        except ProtocolError as error:
            raise ProtocolError(f"{target}: {error.message}", hint="is it a server of this kind?") from error
        except UnreachableError as error:
            raise UnreachableError(f"{target}: {error.message}", hint="is a server behind this address?") from error
        link = Link(connection, channel, Connection(Role.CLIENT, limits), limits, self._background)
        mutual = self._mutual(link, PeerIdentity(address=sockets.peer_address(connection)))
        client = self._client_of(link, mutual)
        await client.conversation.meet(channel)
        await mutual.show(deadline)  # it is sent with the first call, or when the connection is read
        return client

    def _mutual(self, link: Link, server: PeerIdentity) -> MutualTrust:
        return MutualTrust(self._target, link.connection, self._trusting, server)

    def _client_of(self, link: Link, mutual: MutualTrust) -> Client:
        if not self._interceptors:
            return Client(self._target, link, mutual)
        client = InterceptedClient(self._target, link, mutual)
        client.interceptors = tuple(self._interceptors)
        return client

    def _too_slow(self) -> UnreachableError:
        return UnreachableError(
            f"no answer from {self._target} within {self._timeout:g} seconds",
            hint="is the server overloaded, or is something else listening there?",
        )


def discharging_of(principal: Principal, now: Callable[[], datetime]) -> Discharging:
    """Return what fetches the discharges of a principal's blessings from the dischargers that their caveats name."""

    async def ask(third_party: ThirdParty, reported: Occasion) -> Discharge:
        async with connect(
            third_party.location,
            principal,
            timeout=ASK_SECONDS,
            now=now,
            server_key=third_party.discharger_key,
            with_discharges=False,
        ) as discharger:
            caveat = cbor.encode(third_party.to_caveat().to_value())
            arguments = (caveat, list(reported.server), reported.method, reported.arguments)
            encoded = await discharger.call(DISCHARGE_METHOD, *arguments, returns=bytes, timeout=ASK_SECONDS)
            return Discharge.decode(encoded)

    return Discharging(principal, ask, now)
