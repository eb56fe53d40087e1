"""Connecting: dial, shake hands, look at the server, and show oneself only if it is who it must be."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import MappingProxyType

import trio

from vanadium_node.errors import ProtocolError, UnreachableError
from vanadium_node.rpc import sockets
from vanadium_node.rpc.authentication import shake_hands
from vanadium_node.rpc.call import PeerIdentity
from vanadium_node.rpc.client import DEFAULT_TIMEOUT, Client, Trusting
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.naming import Name, UnixAddress
from vanadium_node.rpc.tls import PlainChannel, TlsChannel, client_context
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import Validator
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.handshake import Role
from vanadium_node.wire.limits import DEFAULT_LIMITS, Limits


def _utc_now() -> datetime:
    return datetime.now(UTC)


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
) -> AsyncIterator[Client]:
    """Connect to a server, within `timeout` seconds; the connection is open as long as the block.

    `principal` may be None for unix sockets, whose server the system names. With `insecure`, any server will do.

    Raises:
        InputError: the name is none.
        UnreachableError: nobody answers there, or not in time.
        NotTrustedError: the server is not who it must be; it has not seen anything of this end.
        ProtocolError: it does not speak this protocol.
    """
    target = Name.parse(name) if isinstance(name, str) else name
    trusting = Trusting(principal=principal, is_insecure=insecure, validators=validators, now=now)
    failure: Exception | None = None
    connection: socket.socket | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(timeout):
                    connection = await sockets.dial(target.address)
                    client = await _open(target, connection, trusting, limits, nursery)
                nursery.start_soon(client.run)
                nursery.start_soon(client.watch_deadlines)
                try:
                    yield client
                finally:
                    client.close()
            except trio.TooSlowError:
                sentence = f"no answer from {target} within {timeout:g} seconds"
                failure = UnreachableError(
                    sentence, hint="is the server overloaded, or is something else listening there?"
                )
            except OSError as error:
                failure = UnreachableError(f"the connection to {target} broke: {error.strerror or error}")
            except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the caller's own error
                failure = error
            finally:
                nursery.cancel_scope.cancel()
    finally:
        if connection is not None:
            connection.close()
    if failure is not None:
        raise failure


async def _open(
    name: Name, connection: socket.socket, trusting: Trusting, limits: Limits, nursery: trio.Nursery
) -> Client:
    """Bring a connection to where calls can be made."""
    address = sockets.peer_address(connection)
    if isinstance(name.address, UnixAddress):
        wire = Connection(Role.CLIENT, limits, authenticates=False)
        link = Link(connection, PlainChannel(), wire, limits, nursery)
        return Client(name, link, trusting, PeerIdentity(uid=sockets.peer_uid(connection)))
    channel = TlsChannel.connect(client_context())
    try:
        await shake_hands(connection, channel)
    except ProtocolError as error:
        raise ProtocolError(f"{name}: {error.message}", hint="is it a server of this kind?") from error
    except UnreachableError as error:
        raise UnreachableError(f"{name}: {error.message}", hint="is a server behind this address?") from error
    link = Link(connection, channel, Connection(Role.CLIENT, limits), limits, nursery)
    client = Client(name, link, trusting, PeerIdentity(address=address))
    await client.open(channel)
    return client
