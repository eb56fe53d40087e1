"""A server that stops: what runs may finish in its time, what is new is sent elsewhere, and every connection is told."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio
from attacker import dial_socket, frames_of
from rpc_parties import Parties, served
from trio.testing import MockClock, wait_all_tasks_blocked
from until import eventually

from vanadium_node.errors import CallError, ErrorCode, UnreachableError
from vanadium_node.rpc import Client, connect, serve
from vanadium_node.rpc.authentication import shake_hands
from vanadium_node.rpc.tls import TlsChannel, client_context
from vanadium_node.wire.frames import Auth, Goaway

SECONDS = 5.0


@pytest.fixture
def clock() -> MockClock:
    """A clock that jumps to what is due next when everybody has waited for a moment."""
    return MockClock(autojump_threshold=0.01)


async def test_streams_finish_in_both_directions(clock: MockClock, family: Parties) -> None:
    """After the goaway items still go both ways, and the end is the stream's own."""
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
        trio.open_nursery() as nursery,
    ):
        async with client.stream("Double", returns=int, has_items=True) as doubling:
            await doubling.send(1)
            assert await anext(doubling) == 2
            nursery.start_soon(server.drain)
            await eventually(lambda: not client.is_open)
            for number in range(10):
                await doubling.send(number)
                assert await anext(doubling) == 2 * number
            assert await doubling.result() is None
        with pytest.raises(UnreachableError, match="takes no more calls"):
            await client.call("Quick", "x")


async def test_what_takes_longer_is_ended(clock: MockClock, family: Parties) -> None:
    """When the time for draining is over: the method is cancelled, and its caller is told at once."""
    failed: list[float] = []

    async def ask(client: Client) -> None:
        with pytest.raises(UnreachableError):
            await client.call("Wait", timeout=None)
        failed.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        async with serve(
            family.service, family.server, listen=["127.0.0.1:0"], now=family.clock,
            drain_timeout=timedelta(seconds=SECONDS),
        ) as server:  # fmt: skip
            client = await connected(nursery, server.addresses[0], family)
            nursery.start_soon(ask, client)
            await family.service.is_busy.wait()
            start = trio.current_time()
        assert trio.current_time() - start == pytest.approx(SECONDS, abs=0.1)
        await eventually(lambda: len(failed) == 1)
        assert failed[0] - start == pytest.approx(SECONDS, abs=0.1)
        assert family.service.events == ["cancelled"]
        nursery.cancel_scope.cancel()


async def connected(nursery: trio.Nursery, address: str, family: Parties) -> Client:
    """Return a client that stays connected for longer than its server."""

    async def hold(task_status: trio.TaskStatus[Client]) -> None:
        async with connect(f"/{address}", family.client, now=family.clock) as client:
            task_status.started(client)
            await trio.sleep_forever()

    client: Client = await nursery.start(hold)
    return client


async def test_nothing_to_wait_for(clock: MockClock, family: Parties) -> None:
    """A server without calls stops at once, whoever is connected."""
    async with trio.open_nursery() as nursery:
        async with serve(
            family.service, family.server, listen=["127.0.0.1:0"], now=family.clock,
            drain_timeout=timedelta(seconds=SECONDS),
        ) as server:  # fmt: skip
            client = await connected(nursery, server.addresses[0], family)
            assert await client.call("Quick", "x") == "x"
            start = trio.current_time()
        assert trio.current_time() - start < 1
        with pytest.raises(UnreachableError):
            await client.call("Quick", "x")
        nursery.cancel_scope.cancel()


async def test_a_call_that_crosses_the_goaway(clock: MockClock, family: Parties) -> None:
    """It has not run, and its error says that it may be made elsewhere."""
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.call, "Wait")
        await family.service.is_busy.wait()
        [session] = server._sessions
        session.link.connection.send_goaway("", "stopping")  # queued, and not sent before the next answer
        with pytest.raises(CallError, match="about to stop") as caught:
            await client.call("Echo", "x")
        assert caught.value.code is ErrorCode.OVERLOADED
        assert caught.value.fields == {"retry_elsewhere": 1}
        assert [call.method for call in family.service.calls] == ["Wait"]
        family.service.may_go.set()
        await wait_all_tasks_blocked()


async def test_a_connection_that_comes_up_meanwhile(family: Parties) -> None:
    """Whoever was in its handshake when the server began to stop is told too, and its call is not run."""
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as busy,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(busy.call, "Wait")
        await family.service.is_busy.wait()
        with await dial_socket(server.addresses[0]) as connection:
            connection.setblocking(False)
            await eventually(lambda: server.strangers == 1)
            nursery.start_soon(server.drain)
            await wait_all_tasks_blocked()
            channel = TlsChannel.connect(client_context())
            await shake_hands(connection, channel)
            connection.send(channel.take_pending())  # a client's last word, which waits for its first frame
            frames = await frames_of(connection, channel, 2)
        assert [type(frame) for frame in frames] == [Auth, Goaway]
        family.service.may_go.set()
        await wait_all_tasks_blocked()
