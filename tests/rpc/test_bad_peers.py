"""Too many peers, and servers that are none. What a single peer can do wrong is in `test_bad_input`."""

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial

import pytest
import trio
from attacker import Attacker, dial, introduced, until_closed
from rpc_parties import Parties, Playground, served

from vanadium_node.errors import ProtocolError, UnreachableError
from vanadium_node.rpc import Call, Server, Tag, connect, method, serve
from vanadium_node.rpc.authentication import shake_hands, sign_auth
from vanadium_node.rpc.tls import TlsChannel, server_context
from vanadium_node.security.authorization import everyone
from vanadium_node.wire.frames import Request, encode_frame
from vanadium_node.wire.handshake import Role
from vanadium_node.wire.limits import Limits

LIMITS = Limits(handshake_timeout=timedelta(seconds=1), max_unauthenticated=3, max_connections=6)


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


async def test_strangers_that_say_nothing_make_room(
    server: Server, family: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    """All places are taken by silent ones; who comes then waits a moment, and the one that was silent longest is closed."""
    silent = [await dial(server.addresses[0]) for _ in range(3)]
    await eventually(lambda: server.strangers == 3)
    start = trio.current_time()
    async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
        assert await client.call("Quick", "x") == "x"
        assert trio.current_time() - start < 0.9, "it waited for the handshake's time to be over"
        assert await until_closed(silent[0]) == b""
        assert "others waited for its place" in caplog.text
        assert server.strangers == 2
    for stream in silent:
        await stream.aclose()
    await eventually(lambda: server.strangers == 0)


async def test_strangers_keep_their_places_while_nobody_waits(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """As many as there are places may take their time."""
    silent = [await dial(server.addresses[0]) for _ in range(3)]
    await eventually(lambda: server.strangers == 3)
    await trio.sleep(0.4)
    assert server.strangers == 3
    assert "others waited" not in caplog.text
    for stream in silent:
        await stream.aclose()


async def test_too_many_connections(server: Server, family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """The idlest of them make room for new ones, however many come at once; a busy one is kept."""
    async with (
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as busy,
        AsyncExitStack() as idle,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(busy.call, "Wait")
        await family.service.is_busy.wait()
        attackers = [await idle.enter_async_context(introduced(server.addresses[0], family.client)) for _ in range(30)]
        await eventually(lambda: server.strangers == 0)
        assert server.connections <= LIMITS.max_connections
        for each in attackers[: 30 - LIMITS.max_connections]:
            await each.until_closed()
        assert caplog.text.count("it was the idlest of too many connections") >= 30 - LIMITS.max_connections
        family.service.may_go.set()
        assert await busy.call("Quick", "x") == "x"


@asynccontextmanager
async def shown_off(family: Parties, at_once: int, later: int) -> AsyncIterator[str]:
    """A server that shows itself so often, and again so often when its client has shown itself. Yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def show_off() -> None:
            await trio.lowlevel.wait_readable(listener)
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                connection.setblocking(False)
                channel = TlsChannel.accept(server_context(family.clock()))
                await shake_hands(connection, channel)
                shown = family.server.store.default
                auth = await sign_auth(family.server, Role.SERVER, channel.binding, shown, ())
                for times in (at_once, later):
                    if times:
                        connection.send(channel.encrypt(encode_frame(auth) * times))
                    await trio.lowlevel.wait_readable(connection)
                    connection.recv(65536)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(show_off)
            yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_a_server_that_shows_itself_without_end(family: Parties) -> None:
    """Its client verifies a few of them, and then leaves it, with the reason."""
    with trio.fail_after(5):
        async with (
            shown_off(family, 1, 100) as address,
            connect(f"/{address}", family.client, now=family.clock) as client,
        ):
            with pytest.raises(UnreachableError, match="showed itself too often"):
                await client.call("Quick", "x")


async def test_a_server_that_breaks_the_protocol_as_it_begins(family: Parties) -> None:
    """It is named before it sees who is calling; the caller has made no mistake."""
    with trio.fail_after(5):
        async with shown_off(family, 2, 0) as address:
            with pytest.raises(ProtocolError, match=f"{address} ended the connection as it began"):
                async with connect(f"/{address}", family.client, now=family.clock):
                    pass


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


async def test_a_server_that_calls_its_client_without_end(family: Parties) -> None:
    """A client has no methods; a server that asks all the same, and never reads the answers, is left."""

    async def flood(stream: trio.SocketStream) -> None:
        peer = Attacker(socket.socket(fileno=stream.socket.detach()), TlsChannel.accept(server_context(family.clock())))
        with peer.socket:
            peer.socket.setblocking(False)
            await shake_hands(peer.socket, peer.channel)
            shown = await sign_auth(family.server, Role.SERVER, peer.channel.binding, family.server.store.default)
            await peer.send(encode_frame(shown))
            await trio.lowlevel.wait_readable(peer.socket)
            for first in range(2, 1 << 20, 2000):
                calls = [Request(n, "M", "", [], None, False, None, [], "") for n in range(first, first + 2000, 2)]
                await peer.send(b"".join(encode_frame(each) for each in calls))

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, flood, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        limits = Limits(max_queued_bytes=100_000)
        async with connect(f"/127.0.0.1:{port}", family.client, now=family.clock, limits=limits) as client:
            with pytest.raises(UnreachableError, match="without end"):
                await client.call("Quick", "x", timeout=20)
        nursery.cancel_scope.cancel()


async def test_a_call_that_comes_with_false_credentials_is_not_run(family: Parties) -> None:
    """Not even one that everybody may make: who sends both at once has shown nothing."""

    class Open(Playground):
        authorizer = staticmethod(everyone)

        @method(tag=Tag.READ)
        def touch(self, call: Call) -> None:
            """Remembers that it was called."""
            self.calls.append(call)

    service = Open()
    async with serve(service, family.server, listen=["127.0.0.1:0"], now=family.clock) as server:
        attacker = await Attacker.meet(server.addresses[0])
        await attacker.server_auth()
        false = await sign_auth(family.client, Role.CLIENT, bytes(32), family.client.store.default)
        touch = Request(1, "Touch", "", [], None, False, None, [], "")
        await attacker.send(encode_frame(false) + encode_frame(touch))
        await attacker.until_closed()
        assert service.calls == []
