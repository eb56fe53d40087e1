"""A server whose words a test chooses, for clients that must cope with them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio
from rpc_parties import Parties

from vanadium_node.errors import PeerError, UnreachableError
from vanadium_node.rpc.authentication import shake_hands, sign_auth
from vanadium_node.rpc.tls import TlsChannel, server_context
from vanadium_node.security.principal import Principal
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.frames import Auth, Request
from vanadium_node.wire.handshake import Role


@dataclass
class Actor:
    """A server's end of one connection: shows what it is told to, and answers every call."""

    family: Parties
    connection: socket.socket
    channel: TlsChannel
    wire: Connection
    client_auth: Auth | None = None
    reply: Callable[[Request], bytes] | None = None
    """What it says to a call; None: 'answer'."""

    async def auth_of(self, who: Principal, role: Role = Role.SERVER, binding: bytes = b"") -> Auth:
        """Return what somebody would show on this connection, or on another one."""
        return await sign_auth(who, role, binding or self.channel.binding, who.store.default)

    def show(self, auth: Auth) -> None:
        """Show credentials, whosever they are."""
        self.wire.send_auth(auth)
        self.say(self.wire.take_outgoing())

    def say(self, data: bytes) -> None:
        """Send any bytes through the channel."""
        if data:
            self.connection.send(self.channel.encrypt(data))

    async def serve(self) -> None:
        """Answer calls until the client leaves; remember how it showed itself."""
        data = b""
        while (frames := self.channel.decrypt(data)) is not None:
            for event in self.wire.receive(frames):
                if isinstance(event, Auth):
                    self.client_auth = event
                elif isinstance(event, Request) and self.reply is not None:
                    self.say(self.reply(event))
                elif isinstance(event, Request):
                    self.wire.send_response(event.stream, "answer")
            if self.wire.outgoing:
                self.say(self.wire.take_outgoing())
            await trio.lowlevel.wait_readable(self.connection)
            data = self.connection.recv(1 << 16)
            if not data:
                return


Begin = Callable[[Actor], Awaitable[Auth]]
"""What an actor shows at first."""


async def honestly(actor: Actor) -> Auth:
    """Show the family's server."""
    return await actor.auth_of(actor.family.server)


@asynccontextmanager
async def acted(family: Parties, actors: list[Actor], begin: Begin = honestly) -> AsyncIterator[str]:
    """Yield the name of a server that is played; each of its connections is added to `actors`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def act(connection: socket.socket) -> None:
            with connection, suppress(ConnectionError, PeerError, UnreachableError):
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                actor = Actor(
                    family, connection, TlsChannel.accept(server_context(family.clock())), Connection(Role.SERVER)
                )
                await shake_hands(connection, actor.channel)
                actors.append(actor)
                actor.show(await begin(actor))
                await actor.serve()

        async def accept(nursery: trio.Nursery) -> None:
            while True:
                await trio.lowlevel.wait_readable(listener)
                nursery.start_soon(act, listener.accept()[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, nursery)
            yield f"/127.0.0.1:{listener.getsockname()[1]}"
            nursery.cancel_scope.cancel()
