"""Peers that mean ill: they do what they like before, in and after the handshake, and see how the server ends it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import trio
from OpenSSL import SSL

from vanadium_node.errors import ProtocolError
from vanadium_node.rpc.authentication import shake_hands, sign_auth
from vanadium_node.rpc.failures import call_error
from vanadium_node.rpc.tls import TlsChannel, client_context
from vanadium_node.security.principal import Principal
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import Event
from vanadium_node.wire.frames import Auth, Frame, Response, decode_frame, encode_frame
from vanadium_node.wire.handshake import Role
from vanadium_node.wire.splitter import FrameSplitter

SOON_SECONDS = 5
"""Within which a server must have ended a connection that it has reason to end."""


async def dial(address: str) -> trio.SocketStream:
    """Return a plain TCP connection to a server at `host:port`."""
    host, _, port = address.rpartition(":")
    connection = trio.socket.socket()
    await connection.connect((host, int(port)))
    return trio.SocketStream(connection)


async def dial_socket(address: str) -> socket.socket:
    """Return the same as a socket that belongs to nobody else."""
    stream = await dial(address)
    return socket.socket(fileno=stream.socket.detach())


async def frames_of(connection: socket.socket, channel: TlsChannel, most: int = 100) -> list[Frame | None]:
    """Return the frames that come on a channel that is up, so many at most, before the connection is closed."""
    frames, splitter = list[Frame | None](), FrameSplitter(1 << 16)
    data: bytes | None = channel.decrypt(b"")
    with trio.fail_after(SOON_SECONDS):
        while data is not None:
            frames += map(decode_frame, splitter.split(data)) if data else ()
            if len(frames) >= most:
                break
            await trio.lowlevel.wait_readable(connection)
            received = connection.recv(1 << 16)
            data = channel.decrypt(received) if received else None
    return frames


async def until_closed(stream: trio.SocketStream) -> bytes:
    """Return everything that the server sends until it closes the connection, which it must do soon."""
    received = b""
    with trio.fail_after(SOON_SECONDS):
        with suppress(trio.BrokenResourceError):  # a reset closes as well
            async for data in stream:
                received += data
    return received


class Attacker:
    """A peer that does the TLS handshake and then sends what it likes."""

    def __init__(self, connection: socket.socket, channel: TlsChannel) -> None:
        self.socket = connection
        self.channel = channel
        self.wire = Connection(Role.CLIENT)
        self.heard: list[Event] = []
        """What the server said after its first frame."""

    @classmethod
    async def meet(cls, address: str, context: SSL.Context | None = None) -> Attacker:
        """Return an attacker whose channel is up. Raises ProtocolError where the server does not have it."""
        connection = await dial_socket(address)
        connection.setblocking(False)
        channel = TlsChannel.connect(context or client_context())
        try:
            await shake_hands(connection, channel)
        except BaseException:
            connection.close()
            raise
        return cls(connection, channel)

    async def server_auth(self) -> Auth:
        """Return the server's first frame."""
        events = self.wire.receive(self.channel.decrypt(b"") or b"")
        while not events:
            await trio.lowlevel.wait_readable(self.socket)
            events = self.wire.receive(self.channel.decrypt(self.socket.recv(65536)) or b"")
        assert isinstance(events[0], Auth)
        return events[0]

    async def send(self, data: bytes, *, patience: float = 1) -> None:
        """Send plain bytes through the channel, as far as a server listens that may have had enough."""
        rest = memoryview(self.channel.encrypt(data))
        while rest:
            with trio.move_on_after(patience) as waiting:
                await trio.lowlevel.wait_writable(self.socket)
            if waiting.cancelled_caught:
                return
            try:
                rest = rest[self.socket.send(rest) :]
            except BlockingIOError:
                continue
            except ConnectionError:
                return

    async def show(self, principal: Principal, discharges: Sequence[bytes] = ()) -> None:
        """Authenticate, as somebody whose key it has."""
        auth = await sign_auth(principal, Role.CLIENT, self.channel.binding, principal.store.default, discharges)
        await self.send(encode_frame(auth))
        self.wire.send_auth(auth)
        self.wire.take_outgoing()

    async def ask(self, method: str, *arguments: object) -> object:
        """Return the result of a call as an honest peer makes it. Raises its error."""
        number = self.wire.send_request(method, "", list(arguments))
        await self.send(self.wire.take_outgoing())
        with trio.fail_after(SOON_SECONDS):
            while True:
                await self._hear()
                for event in self.heard:
                    if isinstance(event, Response) and event.stream == number:
                        if event.error is not None:
                            raise call_error(event.error)
                        return event.result

    async def _hear(self) -> bool:
        """Take note of what the server says; tell whether it goes on."""
        await trio.lowlevel.wait_readable(self.socket)
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return False
        with suppress(ProtocolError):
            self.heard += self.wire.receive(self.channel.decrypt(data) or b"")
        return bool(data)

    async def until_closed(self, *, is_kept: bool = False) -> None:
        """Take note of what the server says until it closes the connection, which it must do soon."""
        with trio.fail_after(SOON_SECONDS):
            while await self._hear():
                pass
        if not is_kept:  # somebody else may still write
            self.socket.close()


@asynccontextmanager
async def introduced(address: str, principal: Principal) -> AsyncIterator[Attacker]:
    """Yield an attacker that has authenticated; its socket is closed in the end."""
    attacker = await Attacker.meet(address)
    try:
        await attacker.server_auth()
        await attacker.show(principal)
        yield attacker
    finally:
        attacker.socket.close()
