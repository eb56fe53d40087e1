"""Peers that mean ill or speak something else: each ends with its own connection closed, and everything else served."""

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
import trio
from OpenSSL import SSL
from rpc_parties import Parties, served

from vanadium_node.errors import ProtocolError, UnreachableError
from vanadium_node.rpc import Server, connect
from vanadium_node.rpc.authentication import shake_hands, sign_auth
from vanadium_node.rpc.tls import ALPN, TlsChannel, client_context
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.frames import Auth, Ping, Request, encode_frame
from vanadium_node.wire.handshake import Role
from vanadium_node.wire.limits import Limits

LIMITS = Limits(handshake_timeout=timedelta(seconds=0.5), max_unauthenticated=3, max_connections=6)


@pytest.fixture
async def server(family: Parties, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Server]:
    """A server with tight limits, whose log is kept, and which still serves honest clients after the test."""
    caplog.set_level(logging.INFO, "vanadium_node.rpc")
    async with served(family, LIMITS) as running:
        yield running
        await eventually(lambda: running.connections == 0)
        async with connect(f"/{running.addresses[0]}", family.client, now=family.clock) as client:
            assert await client.call("Quick", "still served") == "still served"


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds that the server brings about."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the server's state has no event
            await trio.sleep(0.01)


async def dial(server: Server) -> trio.SocketStream:
    """Return a plain TCP connection to a server."""
    host, _, port = server.addresses[0].rpartition(":")
    return await trio.open_tcp_stream(host, int(port))


async def until_closed(stream: trio.SocketStream) -> bytes:
    """Return everything that the server sends until it closes the connection, which it must do soon."""
    received = b""
    with trio.fail_after(5):
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

    @classmethod
    async def meet(cls, server: Server, context: SSL.Context | None = None) -> "Attacker":
        """Return an attacker that has seen the server's `auth`."""
        stream = await dial(server)
        connection = socket.socket(fileno=stream.socket.detach())
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

    async def send(self, data: bytes) -> None:
        """Send plain bytes through the channel."""
        await trio.lowlevel.wait_writable(self.socket)
        with suppress(ConnectionError, BlockingIOError):  # what a server that had enough does not want to hear
            self.socket.send(self.channel.encrypt(data))

    async def show(self, family: Parties) -> None:
        """Authenticate as the family's client."""
        await self.send(
            encode_frame(await sign_auth(family.client, Role.CLIENT, self.channel.binding, family.client.store.default))
        )

    async def until_closed(self) -> None:
        """Wait until the server closes the connection, which it must do soon."""
        with trio.fail_after(5):
            while True:
                await trio.lowlevel.wait_readable(self.socket)
                try:
                    if not self.socket.recv(65536):
                        break
                except ConnectionError:
                    break
        self.socket.close()


async def test_a_silent_connection_is_cut_off(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever says nothing is closed after the handshake's time."""
    async with await dial(server) as stream:
        assert await until_closed(stream) == b""
    assert "has not authenticated in time" in caplog.text


async def test_a_slow_loris_is_cut_off(server: Server) -> None:
    """Neither bytes that trickle into TLS nor ones that trickle out of it buy time."""
    async with await dial(server) as stream:
        start = trio.current_time()
        with suppress(trio.BrokenResourceError):
            for byte in bytes.fromhex("1603010200") + bytes(500):
                await stream.send_all(bytes([byte]))
                await trio.sleep(0.05)
        assert trio.current_time() - start < 5


async def test_a_loris_inside_tls_is_cut_off(server: Server) -> None:
    """A shown `auth` that never ends is not waited for."""
    attacker = await Attacker.meet(server)
    await attacker.server_auth()
    await attacker.send(b"\x59\x04\x00")
    await attacker.until_closed()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 100, b"SSH-2.0-x\r\n"])
async def test_another_protocol_on_the_port(server: Server, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """It is closed at once, and the log says what it was not."""
    async with await dial(server) as stream:
        await stream.send_all(data)
        await until_closed(stream)
    await eventually(lambda: "TLS handshake failed" in caplog.text)


async def test_old_tls_is_refused(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """TLS 1.2 is not spoken."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_alpn_protos([ALPN])
    with pytest.raises(ProtocolError):
        await Attacker.meet(server, context)
    await eventually(lambda: "TLS handshake failed" in caplog.text)


@pytest.mark.parametrize("protocols", [[b"h2", b"http/1.1"], [b"vanadium/2"]])
async def test_another_alpn_is_refused(
    server: Server, protocols: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """A client for something else is turned away by name."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos(protocols)
    with pytest.raises(ProtocolError):
        await Attacker.meet(server, context)
    await eventually(lambda: "does not speak vanadium/1" in caplog.text)


async def test_no_alpn_is_refused(server: Server) -> None:
    """A client that names no protocol is none of ours."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    with pytest.raises(ProtocolError, match="does not speak vanadium/1"):
        await Attacker.meet(server, context)


@pytest.mark.parametrize(
    "data",
    [
        encode_frame(Ping(0, 1)),
        encode_frame(Request(1, "Quick", "", ["x"], None, False, None, [], "")),
        b"\x5a\xff\xff\xff\xff",
        b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff" * 50,
        encode_frame(Auth(0, [1], b"key", None, [], b"signature")),
    ],
    ids=["ping", "request", "huge", "huger", "noise", "false auth"],
)
async def test_strangers_say_auth_or_nothing(server: Server, family: Parties, data: bytes) -> None:
    """Anything but a good `auth` ends the connection; no method runs."""
    attacker = await Attacker.meet(server)
    await attacker.server_auth()
    await attacker.send(data)
    await attacker.until_closed()
    assert family.service.calls == []


async def test_a_reflected_auth_is_refused(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The server's own frame, sent back to it, proves nothing."""
    attacker = await Attacker.meet(server)
    await attacker.send(encode_frame(await attacker.server_auth()))
    await attacker.until_closed()
    await eventually(lambda: "of another connection, role or content" in caplog.text)


async def test_a_replayed_auth_is_refused(server: Server, family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """What a client signed for one connection is worth nothing on the next."""
    first, second = await Attacker.meet(server), await Attacker.meet(server)
    stolen = encode_frame(
        await sign_auth(family.client, Role.CLIENT, first.channel.binding, family.client.store.default)
    )
    await second.server_auth()
    await second.send(stolen)
    await second.until_closed()
    await eventually(lambda: "of another connection, role or content" in caplog.text)
    first.socket.close()


@pytest.mark.parametrize("times", [30])
async def test_an_auth_in_a_loop_is_cut_off(server: Server, family: Parties, times: int) -> None:
    """Renewing is allowed; making the server verify chains for ever is not."""
    attacker = await Attacker.meet(server)
    await attacker.server_auth()
    for _ in range(times):
        await attacker.show(family)
    await attacker.until_closed()


async def test_an_authenticated_peer_that_breaks_the_protocol(
    server: Server, family: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection ends with the reason in the log; another on the same server is not disturbed."""
    async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as honest:
        attacker = await Attacker.meet(server)
        await attacker.server_auth()
        await attacker.show(family)
        await attacker.send(encode_frame(Request(2, "Quick", "", [], None, False, None, [], "")))
        await attacker.until_closed()
        await eventually(lambda: "opened stream 2, which is not its next one" in caplog.text)
        assert await honest.call("Quick", "x") == "x"


async def test_a_client_that_never_reads(server: Server, family: Parties) -> None:
    """Answers for a peer that does not read are bounded: the server stops reading from it, and serves the others."""
    attacker = await Attacker.meet(server)
    await attacker.server_auth()
    await attacker.show(family)
    with trio.move_on_after(0.5):
        for number in range(1, 2000, 2):
            await attacker.send(
                encode_frame(Request(number, "Quick", "", ["x" * 10_000, 90], None, False, None, [], ""))
            )
    async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as honest:
        assert await honest.call("Quick", "x") == "x"
    (session,) = [each for each in server._sessions if each.is_quiet and each.link.queued_bytes]
    assert session.link.queued_bytes < LIMITS.max_queued_bytes + 80_000_000
    attacker.socket.close()


async def test_too_many_strangers(server: Server, family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the limit, new ones are closed at once; when they have gone, there is room again."""
    waiting = [await dial(server) for _ in range(3)]
    await eventually(lambda: server._unauthenticated == 3)
    with pytest.raises(UnreachableError):
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock):
            pass
    assert "have not authenticated yet" in caplog.text
    for stream in waiting:
        await stream.aclose()
    await eventually(lambda: server._unauthenticated == 0)


async def test_too_many_connections(server: Server, family: Parties) -> None:
    """The idlest makes room for a new one; a busy one is kept."""
    async with trio.open_nursery() as nursery:
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as busy:
            nursery.start_soon(busy.call, "Wait")
            await family.service.is_busy.wait()
            idle = [await Attacker.meet(server) for _ in range(3)]
            for each in idle:
                await each.server_auth()
                await each.show(family)
            await eventually(lambda: server._unauthenticated == 0)
            more = [await Attacker.meet(server) for _ in range(3)]
            for each in more:
                await each.server_auth()
                await each.show(family)
            await idle[0].until_closed()
            family.service.may_go.set()
            assert await busy.call("Quick", "x") == "x"
        for each in (*idle[1:], *more):
            each.socket.close()


async def test_a_dead_peer_is_pinged_and_then_cut_off(family: Parties) -> None:
    """Silence is answered by a ping; honest clients answer it and stay, dead ones are closed."""
    limits = Limits(idle_timeout=timedelta(seconds=0.5))
    async with served(family, limits) as server:
        attacker = await Attacker.meet(server)
        await attacker.server_auth()
        await attacker.show(family)
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as honest:
            with trio.fail_after(15):
                while server.connections == 2:  # noqa: ASYNC110 - the server's state has no event
                    await trio.sleep(0.1)
            assert await honest.call("Quick", "x") == "x"
        attacker.socket.close()


async def test_a_server_that_is_none(family: Parties) -> None:
    """A client that dials something else says what is wrong and with whom, and does not hang."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.receive_some()

    async def say_nothing(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await trio.sleep_forever()

    for behave, error in ((answer, ProtocolError), (say_nothing, UnreachableError)):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, behave, 0, host="127.0.0.1"))
            port = listener.socket.getsockname()[1]
            with pytest.raises(error, match=f"127.0.0.1:{port}"):
                async with connect(f"/127.0.0.1:{port}", family.client, timeout=0.5):
                    pass
            nursery.cancel_scope.cancel()
