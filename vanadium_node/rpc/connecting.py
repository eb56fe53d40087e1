"""Connecting: dial, shake hands, look at the server, and show oneself only if it is who it must be."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import MappingProxyType

import trio

from vanadium_node import cbor
from vanadium_node.errors import ProtocolError, UnreachableError
from vanadium_node.rpc import sockets
from vanadium_node.rpc.authentication import shake_hands
from vanadium_node.rpc.call import PeerIdentity
from vanadium_node.rpc.client import DEFAULT_TIMEOUT, Client, Trusting
from vanadium_node.rpc.deadlines import deadlines_of_run
from vanadium_node.rpc.dialing import dial
from vanadium_node.rpc.discharging import ASK_SECONDS, DISCHARGE_METHOD, Discharging
from vanadium_node.rpc.intercepted_client import InterceptedClient
from vanadium_node.rpc.intercepting import ClientInterceptor
from vanadium_node.rpc.link import Link
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


class _TimeLimit:
    """Ends connecting when its time is over: an entry among the deadlines of calls costs less than one of a scope."""

    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def expire(self, _number: int) -> None:
        """Cancel it."""
        self._scope.cancel()


@asynccontextmanager
async def connect(
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
) -> AsyncIterator[Client]:
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
    target = Name.parse(name) if isinstance(name, str) else name
    trusting = Trusting(
        principal=principal,
        is_insecure=insecure,
        validators=validators,
        now=now,
        server_key=server_key,
        discharging=discharging_of(principal, now) if with_discharges and principal is not None else None,
    )
    deadlines = deadlines_of_run()
    failure: Exception | None = None
    connection: socket.socket | None = None
    client: Client | None = None
    try:
        async with trio.open_nursery() as nursery:
            limit = _TimeLimit(nursery.cancel_scope)
            deadlines.add((limit, 0), trio.current_time() + timeout)
            try:
                try:
                    connection = await dial(target.address)
                    client = await _open(target, connection, trusting, limits, nursery, interceptors)
                except OSError as error:
                    raise UnreachableError(f"the connection to {target} broke: {error.strerror or error}") from error
                finally:
                    deadlines.discard((limit, 0))
                client.begin()
                try:
                    yield client
                finally:
                    client.close()
            except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the caller's own error
                failure = error
            finally:
                nursery.cancel_scope.cancel()
    finally:
        if connection is not None:
            connection.close()
    if failure is not None:
        raise failure
    if client is None:
        raise UnreachableError(
            f"no answer from {target} within {timeout:g} seconds",
            hint="is the server overloaded, or is something else listening there?",
        )


async def _open(
    name: Name,
    connection: socket.socket,
    trusting: Trusting,
    limits: Limits,
    nursery: trio.Nursery,
    interceptors: Sequence[ClientInterceptor],
) -> Client:
    """Bring a connection to where calls can be made."""
    address = sockets.peer_address(connection)
    if isinstance(name.address, UnixAddress):
        wire = Connection(Role.CLIENT, limits, authenticates=False)
        link = Link(connection, PlainChannel(), wire, limits, nursery)
        return _client(name, link, trusting, PeerIdentity(uid=sockets.peer_uid(connection)), interceptors)
    channel = TlsChannel.connect(client_context())
    try:
        await shake_hands(connection, channel)
    except ProtocolError as error:
        raise ProtocolError(f"{name}: {error.message}", hint="is it a server of this kind?") from error
    except UnreachableError as error:
        raise UnreachableError(f"{name}: {error.message}", hint="is a server behind this address?") from error
    link = Link(connection, channel, Connection(Role.CLIENT, limits), limits, nursery)
    client = _client(name, link, trusting, PeerIdentity(address=address), interceptors)
    await client.open(channel)
    return client


def _client(
    name: Name, link: Link, trusting: Trusting, server: PeerIdentity, interceptors: Sequence[ClientInterceptor]
) -> Client:
    if not interceptors:
        return Client(name, link, trusting, server)
    client = InterceptedClient(name, link, trusting, server)
    client.interceptors = tuple(interceptors)
    return client


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
