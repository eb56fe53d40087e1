"""What a server proves to its client, at first and renewed: falsely, or somebody else. By a server that a test plays."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import pytest
import trio
from rpc_parties import Parties, principal
from trio.testing import wait_all_tasks_blocked
from until import eventually

from vanadium_node.errors import NotTrustedError, PeerError, UnreachableError
from vanadium_node.rpc import Client, connect
from vanadium_node.rpc.authentication import shake_hands, sign_auth
from vanadium_node.rpc.tls import TlsChannel, server_context
from vanadium_node.security.cose import SignatureType
from vanadium_node.security.principal import Principal
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.frames import Auth, Request
from vanadium_node.wire.handshake import Role, session_payload

# A server whose words a test chooses


@dataclass
class Actor:
    """A server's end of one connection: shows what it is told to, and answers every call."""

    family: Parties
    connection: socket.socket
    channel: TlsChannel
    wire: Connection
    client_auth: Auth | None = None

    async def auth_of(self, who: Principal, role: Role = Role.SERVER, binding: bytes = b"") -> Auth:
        """Return what somebody would show on this connection, or on another one."""
        return await sign_auth(who, role, binding or self.channel.binding, who.store.default)

    def show(self, auth: Auth) -> None:
        """Show credentials, whosever they are."""
        self.wire.send_auth(auth)
        self.connection.send(self.channel.encrypt(self.wire.take_outgoing()))

    async def serve(self) -> None:
        """Answer calls until the client leaves; remember how it showed itself."""
        data = b""
        while (frames := self.channel.decrypt(data)) is not None:
            for event in self.wire.receive(frames):
                if isinstance(event, Auth):
                    self.client_auth = event
                elif isinstance(event, Request):
                    self.wire.send_response(event.stream, "answer")
            if self.wire.outgoing:
                self.connection.send(self.channel.encrypt(self.wire.take_outgoing()))
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


async def _of_another_binding(actor: Actor) -> Auth:
    return await actor.auth_of(actor.family.server, binding=bytes(32))


async def _of_the_other_role(actor: Actor) -> Auth:
    return await actor.auth_of(actor.family.server, Role.CLIENT)


async def _stolen(actor: Actor) -> Auth:
    thief, real = await principal("thief"), await honestly(actor)
    auth = await actor.auth_of(thief)
    return auth._replace(blessings=real.blessings)


async def _of_another_version(actor: Actor) -> Auth:
    return (await honestly(actor))._replace(versions=[2])


async def _garbled(actor: Actor) -> Auth:
    who, nonsense = actor.family.server, b"\x81"
    payload = session_payload(Role.SERVER, actor.channel.binding, who.public_key.der, nonsense, ())
    return Auth(0, [1], who.public_key.der, nonsense, [], await who.sign(SignatureType.SESSION, payload))


FALSE: dict[str, tuple[Begin, str]] = {
    "of another binding": (_of_another_binding, "of another connection, role or content"),
    "of the other role": (_of_the_other_role, "of another connection, role or content"),
    "with stolen blessings": (_stolen, "of another connection, role or content|blessings of another key"),
    "of another version": (_of_another_version, r"speaks versions \[2\]"),
    "that cannot be read": (_garbled, "credentials cannot be read"),
}


@pytest.mark.parametrize("what", FALSE)
async def test_a_server_with_false_credentials(family: Parties, what: str) -> None:
    """It is named, with what is wrong, and has seen nothing of its client."""
    actors: list[Actor] = []
    begin, reason = FALSE[what]
    async with acted(family, actors, begin) as name:
        with trio.fail_after(5), pytest.raises(PeerError, match=f"{name}: .*({reason})"):
            await connect(name, family.client, now=family.clock).__aenter__()
        await wait_all_tasks_blocked()
    assert [actor.client_auth for actor in actors] == [None]


@pytest.mark.parametrize("what", [*FALSE, "of the client itself"])
async def test_a_false_renewal_ends_the_connection(family: Parties, what: str) -> None:
    """Calls that wait fail with the reason; a connection made anew is another matter."""

    async def reflected(actor: Actor) -> Auth:
        assert actor.client_auth is not None
        return actor.client_auth

    begin, reason = FALSE.get(what, (reflected, "of another connection, role or content"))
    actors: list[Actor] = []
    async with acted(family, actors) as name:
        async with connect(name, family.client, now=family.clock) as client:
            assert await client.call("Any") == "answer"
            actors[0].show(await begin(actors[0]))
            with trio.fail_after(5), pytest.raises(UnreachableError, match=reason):
                await client.call("Any")
            assert not client.is_open
        async with connect(name, family.client, now=family.clock) as client:
            assert await client.call("Any") == "answer"


async def test_a_server_that_becomes_somebody_else(family: Parties) -> None:
    """No call is made to a name that is not trusted, and calls go on when one that is comes back; the connection stays."""
    actors: list[Actor] = []
    stranger = await principal("stranger")
    async with (
        acted(family, actors) as name,
        connect(name, family.client, now=family.clock) as client,
    ):
        assert await client.call("Any") == "answer"
        actors[0].show(await actors[0].auth_of(stranger))
        await seen(client)
        with pytest.raises(NotTrustedError, match=r"rejected: stranger \(its root"):
            await client.call("Any")
        assert client.is_open
        actors[0].show(await honestly(actors[0]))
        await seen(client)
        assert await client.call("Any") == "answer"
        assert client.server.names == ("root:server",)
    assert len(actors) == 1


async def seen(client: Client) -> None:
    """Have what the server has sent read by a task, as on every connection that stays."""
    trust = client._mutual._trust
    if not client._is_read:
        client._start_reading()
    await eventually(lambda: client._mutual._trust is not trust)
