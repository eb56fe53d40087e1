"""The time limit of connecting, wherever it is that somebody does not go on; by a clock that jumps when nobody does."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf

import pytest
import trio
from cancelling import open_files
from hanging import Hanging
from rpc_parties import Parties, served, wear
from trio.testing import MockClock, wait_all_tasks_blocked

from vanadium_node.errors import UnreachableError
from vanadium_node.rpc import connect
from vanadium_node.rpc.authentication import hear_hello, shake_hands, sign_auth
from vanadium_node.rpc.deadlines import deadlines_of_run
from vanadium_node.rpc.discharging import ASK_SECONDS
from vanadium_node.rpc.tls import TlsChannel, server_context
from vanadium_node.security.discharge import ThirdParty
from vanadium_node.security.principal import Principal
from vanadium_node.wire.frames import encode_frame
from vanadium_node.wire.handshake import Role

SECONDS = 7.0
"""Less than any limit of a server's, or a discharger may take."""
assert SECONDS < ASK_SECONDS


@pytest.fixture
def clock() -> MockClock:
    """A clock that jumps to what is due next when everybody has waited for a moment."""
    return MockClock(autojump_threshold=0.02)


Behave = Callable[[Parties, socket.socket], Awaitable[None]]
"""What a server does on a connection, before it does nothing more."""


@asynccontextmanager
async def stuck(family: Parties, behave: Behave) -> AsyncIterator[str]:
    """Yield the address of a server that behaves like that, and wait until its connections are closed by the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)

        async def serve(connection: socket.socket) -> None:
            with connection, suppress(ConnectionError):
                connection.setblocking(False)
                await behave(family, connection)
                while await receive(connection):
                    pass

        async def accept(nursery: trio.Nursery) -> None:
            while True:
                await trio.lowlevel.wait_readable(listener)
                nursery.start_soon(serve, listener.accept()[0])

        async with trio.open_nursery() as serving, trio.open_nursery() as accepting:
            accepting.start_soon(accept, serving)
            yield f"127.0.0.1:{listener.getsockname()[1]}"
            accepting.cancel_scope.cancel()


async def receive(connection: socket.socket) -> bytes:
    """Return what the peer sends next."""
    await trio.lowlevel.wait_readable(connection)
    return connection.recv(1 << 16)


async def say_nothing(_family: Parties, _connection: socket.socket) -> None:
    """Accept, and nothing else."""


async def flight_of(family: Parties, connection: socket.socket) -> bytes:
    """Return what a server answers to a hello: its part of TLS, and its `auth`."""
    channel = TlsChannel.accept(server_context(family.clock()))
    await hear_hello(connection, channel, lambda: None)
    auth = await sign_auth(family.server, Role.SERVER, channel.binding, family.server.store.default)
    return channel.encrypt(encode_frame(auth))


async def stop_after(part: float, family: Parties, connection: socket.socket) -> None:
    """Send some of the flight."""
    flight = await flight_of(family, connection)
    connection.send(flight[: int(len(flight) * part)])


async def drip(family: Parties, connection: socket.socket) -> None:
    """Send the flight byte by byte, for ever."""
    for byte in await flight_of(family, connection):
        connection.send(bytes([byte]))
        await trio.sleep(SECONDS / 100)


async def show_nothing(family: Parties, connection: socket.socket) -> None:
    """Do TLS, and nothing else."""
    channel = TlsChannel.accept(server_context(family.clock()))
    await shake_hands(connection, channel)


BEHAVIOURS: dict[str, Behave] = {
    "accepts and says nothing": say_nothing,
    "stops in the middle of its hello": partial(stop_after, 0.02),
    "stops in the middle of its flight": partial(stop_after, 0.5),
    "stops before the end of its flight": partial(stop_after, 0.99),
    "sends its flight in drops": drip,
    "does not show itself": show_nothing,
}


@asynccontextmanager
async def nothing_is_left() -> AsyncIterator[None]:
    """Expect that the block leaves no task, no descriptor and no deadline."""
    deadlines = deadlines_of_run()  # all clients have its one task in common
    await wait_all_tasks_blocked()
    tasks, files = trio.lowlevel.current_statistics().tasks_living, open_files()
    yield
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert open_files() == files
    assert deadlines._due == {}


async def no_answer_in_time(address: str, who: Principal, family: Parties, seconds: float = SECONDS) -> None:
    """Expect that connecting fails when its time is over, and says so."""
    start = trio.current_time()
    with pytest.raises(UnreachableError, match=f"no answer from .*{address} within {seconds:g} seconds"):
        await connect(f"/{address}", who, now=family.clock, timeout=seconds).__aenter__()
    assert trio.current_time() - start == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
async def test_a_server_that_does_not_go_on(clock: MockClock, family: Parties, behaviour: str) -> None:
    """Its client leaves it in time, and closes the connection."""
    async with nothing_is_left(), stuck(family, BEHAVIOURS[behaviour]) as address:
        await no_answer_in_time(address, family.client, family)


@pytest.mark.parametrize("seconds", [0, -1, 0.001])
async def test_no_time_at_all(clock: MockClock, family: Parties, seconds: float) -> None:
    """Nobody is waited for, and it is an error like any other."""
    async with nothing_is_left(), stuck(family, say_nothing) as address:
        with pytest.raises(UnreachableError, match=f"no answer from .* within {seconds:g} seconds"):
            await connect(f"/{address}", family.client, now=family.clock, timeout=seconds).__aenter__()


async def test_all_the_time_in_the_world(clock: MockClock, family: Parties) -> None:
    """A server that needs a month is waited for, and can be called."""
    month = 30 * 86400.0

    async def take_long(family: Parties, connection: socket.socket) -> None:
        flight = await flight_of(family, connection)
        await trio.sleep(month)
        connection.send(flight)

    async with nothing_is_left(), stuck(family, take_long) as address:
        start = trio.current_time()
        async with connect(f"/{address}", family.client, now=family.clock, timeout=inf) as client:
            assert client.is_open
            assert trio.current_time() - start >= month


async def test_who_waits_for_ever_can_be_cancelled(clock: MockClock, family: Parties) -> None:
    """By a scope around it, which is no error of the server's."""
    async with nothing_is_left(), stuck(family, say_nothing) as address:
        with trio.move_on_after(3) as waiting:
            await connect(f"/{address}", family.client, now=family.clock, timeout=inf).__aenter__()
        assert waiting.cancelled_caught


async def test_a_flight_that_comes_as_the_time_is_over(clock: MockClock, family: Parties) -> None:
    """Either the connection is there and can be used, or it is too late; not a connection that is broken already."""

    async def come_at_the_last_moment(family: Parties, connection: socket.socket) -> None:
        connection.send(await flight_of(family, connection))
        clock.jump(SECONDS)

    for _ in range(20):  # which of the two is seen first, is chance
        async with nothing_is_left(), stuck(family, come_at_the_last_moment) as address:
            with suppress(UnreachableError):
                async with connect(f"/{address}", family.client, now=family.clock, timeout=SECONDS) as client:
                    assert client._link.socket.send(b"") == 0  # raises where it is shut down


# Others that are waited for


async def test_an_agent_that_does_not_sign(clock: MockClock, family: Parties) -> None:
    """The server has been met by then; the time is for all of it together."""
    client = family.client
    behind = Principal(Hanging(client.public_key), client.store, client.roots)
    async with served(family) as server, nothing_is_left():
        await no_answer_in_time(server.addresses[0], behind, family)
        await wait_all_tasks_blocked(0.05)
        assert server.connections == 0


@pytest.mark.parametrize("behaviour", ["accepts and says nothing", "does not show itself"])
async def test_a_discharger_that_does_not_go_on(clock: MockClock, family: Parties, behaviour: str) -> None:
    """Neither the discharger's connection nor the server's is left."""
    async with served(family) as server, nothing_is_left(), stuck(family, BEHAVIOURS[behaviour]) as discharger:
        caveat = ThirdParty(
            nonce=secrets.token_bytes(16),
            discharger_key=family.server.public_key,
            location=f"/{discharger}",
            caveats=(),
        ).to_caveat()
        own = family.root.store.default
        assert own is not None
        await wear(family.client, await family.root.bless(family.client.public_key, own, "server:client", [caveat]))
        await no_answer_in_time(server.addresses[0], family.client, family)
        await wait_all_tasks_blocked(0.05)
        assert server.connections == 0
