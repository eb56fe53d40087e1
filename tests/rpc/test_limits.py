"""Each limit by its name: what the peer is told, and that others are served. Attacks on them are in `test_bad_peers`."""

import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from rpc_parties import Parties, blessed, served
from tcp_gate import gate_to
from until import eventually

from vanadium_node.config import ClusterAgentSettings, DaemonSettings, DischargerSettings, PodAgentSettings
from vanadium_node.errors import CallError, ErrorCode, UnreachableError, VanadiumError
from vanadium_node.rpc import Call, Client, Retrying, Service, Tag, connect, method, open_pool, serve
from vanadium_node.rpc.limiting import PeerLoads, limits_of
from vanadium_node.security.authorization import everyone
from vanadium_node.wire.limits import DEFAULT_LIMITS, Limits


async def waiting(client: Client, nursery: trio.Nursery) -> None:
    """Begin a call that takes until its service may go."""

    async def wait() -> None:
        assert await client.call("Wait") == "done"

    nursery.start_soon(wait)


async def test_calls_of_one_peer_on_all_its_connections(family: Parties) -> None:
    """One more is turned away by name, with a time to come again; other peers and calls that take no time are served."""
    other = await blessed(family.root, "server:other")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(family, Limits(max_calls_per_peer=4)))
        name = f"/{server.addresses[0]}"
        clients = [await stack.enter_async_context(connect(name, family.client, now=family.clock)) for _ in range(3)]
        stranger = await stack.enter_async_context(connect(name, other, now=family.clock))
        async with trio.open_nursery() as nursery:
            for client in (*clients[:2], *clients[:2], stranger):
                await waiting(client, nursery)
            await eventually(lambda: len(family.service.calls) == 5)
            with pytest.raises(CallError, match=r"4 calls of root:server:client at .* are running already") as caught:
                await clients[2].call("Echo", "x")
            assert caught.value.code is ErrorCode.OVERLOADED
            assert caught.value.fields == {"retry_after_ms": 100}
            assert await stranger.call("Echo", "x") == "x"
            assert await clients[2].call("Quick", "x") == "x"
            family.service.may_go.set()
        assert await clients[2].call("Echo", "x") == "x"


async def test_a_pooled_client_waits_for_its_turn(family: Parties) -> None:
    """It comes again when the server said, and the call is made then."""
    async with (
        served(family, Limits(max_calls_per_peer=1)) as server,
        open_pool(family.client, now=family.clock, retrying=Retrying(attempts=100, first_delay=0.01)) as pool,
    ):
        client = pool.client(f"/{server.addresses[0]}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "Wait")
            await family.service.is_busy.wait()

            async def let_go() -> None:
                await trio.sleep(0.05)
                family.service.may_go.set()

            nursery.start_soon(let_go)
            assert await client.call("Echo", "x", idempotent=False) == "x"


async def test_cancelled_calls_and_lost_connections_count_no_more(family: Parties) -> None:
    """Whatever way a call ends, there is room for another one."""
    async with (
        served(family, Limits(max_calls_per_peer=2)) as server,
        gate_to(server.addresses[0]) as gate,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):
        for _ in range(5):
            with trio.move_on_after(0.02):
                await client.call("Wait")
        before = len(family.service.calls)
        async with (
            connect(f"/{gate.address}", family.client, now=family.clock) as lost,
            trio.open_nursery() as nursery,
        ):

            async def fail() -> None:
                with pytest.raises(UnreachableError):
                    await lost.call("Wait")

            nursery.start_soon(fail)
            nursery.start_soon(fail)
            await eventually(lambda: len(family.service.calls) == before + 2)
            gate.cut()
        await eventually(lambda: family.service.events.count("cancelled") == len(family.service.calls))
        assert await client.call("Echo", "x") == "x"


async def test_who_opens_too_many_connections_closes_their_own(family: Parties) -> None:
    """`max_connections`: however idle the others' are, the idlest one of the greediest peer makes room."""
    greedy = await blessed(family.root, "server:greedy")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(family, Limits(max_connections=4)))
        name = f"/{server.addresses[0]}"
        modest = await stack.enter_async_context(connect(name, family.client, now=family.clock))
        assert await modest.call("Quick", "first") == "first"
        taken = []
        for _ in range(9):
            taken.append(await stack.enter_async_context(connect(name, greedy, now=family.clock)))
            assert await taken[-1].call("Quick", "it has shown itself") == "it has shown itself"
        await eventually(lambda: [client.is_open for client in taken] == 6 * [False] + 3 * [True])
        assert await modest.call("Quick", "still there") == "still there"
        assert server.connections == 4


def test_peers_without_calls_are_forgotten() -> None:
    """However many different keys come and go."""
    peers = PeerLoads()
    kept = peers.of(b"key")
    for number in range(1000):
        peers.of(number)
    assert len(peers) == 1
    assert peers.of(b"key") is kept


async def test_streams_of_one_connection(family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """`max_streams`: one more call on the same connection is turned away, and that is logged."""
    caplog.set_level(logging.INFO, "vanadium_node.rpc")
    async with (
        served(family, Limits(max_streams=2)) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as other,
        trio.open_nursery() as nursery,
    ):
        await waiting(client, nursery)
        await waiting(client, nursery)
        await eventually(lambda: len(family.service.calls) == 2)
        with pytest.raises(CallError, match="more than 2 calls") as caught:
            await client.call("Echo", "x")
        assert caught.value.code is ErrorCode.OVERLOADED
        assert "refused Echo of root:server to root:server:client at 127.0.0.1:" in caplog.text
        assert "more than 2 calls" in caplog.text
        assert await other.call("Echo", "x") == "x"
        family.service.may_go.set()


class Keeping(Service):
    """Keeps what it is given until it may go."""

    def __init__(self) -> None:
        self.running = 0
        self.may_go = trio.Event()

    @method(tag=Tag.READ)
    async def keep(self, call: Call, data: bytes) -> int:
        """Returns its size, in the end."""
        self.running += 1
        await self.may_go.wait()
        return len(data)


async def test_bytes_of_requests_that_are_worked_on(family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """`max_request_bytes`: one more on the same connection is turned away, and another connection is served; later there is room."""
    caplog.set_level(logging.INFO, "vanadium_node.rpc")
    service, some = Keeping(), bytes(40_000)
    async with (
        serve(
            service, family.server, listen=["127.0.0.1:0"], now=family.clock, limits=Limits(max_request_bytes=100_000)
        ) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as other,
    ):
        async with trio.open_nursery() as nursery:
            for each in (client, client, other):
                nursery.start_soon(each.call, "Keep", some)
            await eventually(lambda: service.running == 3)
            with pytest.raises(CallError, match="100000 bytes of them, at once") as caught:
                await client.call("Keep", some)
            assert caught.value.code is ErrorCode.OVERLOADED
            assert caught.value.fields == {"retry_after_ms": 100}
            assert "refused Keep of root:server to root:server:client at 127.0.0.1:" in caplog.text
            service.may_go.set()
        for _ in range(5):
            assert await client.call("Keep", some) == len(some)


async def test_a_message_that_is_too_large(family: Parties) -> None:
    """`max_frame_bytes`: the sender's connection ends; others go on."""
    limits = Limits(max_frame_bytes=1 << 17)
    async with (
        served(family, limits) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as other,
    ):
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
            assert await client.call("Quick", "x" * (1 << 16)) == "x" * (1 << 16)
            with pytest.raises(VanadiumError) as caught:
                await client.call("Quick", "x" * (1 << 18))
            assert "131072" in str(caught.value)
        assert await other.call("Quick", "x") == "x"


async def test_limits_hold_on_unix_sockets_too(family: Parties, tmp_path_factory: pytest.TempPathFactory) -> None:
    """There a peer is a user of the machine."""
    path = tmp_path_factory.mktemp("s") / "s"
    async with (
        serve(family.service, None, listen=[f"unix:{path}"], authorizer=everyone, limits=Limits(max_calls_per_peer=1)),
        connect(f"unix:{path}", None) as client,
        connect(f"unix:{path}", None) as other,
        trio.open_nursery() as nursery,
    ):
        await waiting(client, nursery)
        await family.service.is_busy.wait()
        with pytest.raises(CallError, match=r"1 calls of user \d+ are running already"):
            await other.call("Echo", "x")
        family.service.may_go.set()


@pytest.mark.parametrize(
    "settings",
    [
        ClusterAgentSettings(root_dir=Path("data")),
        PodAgentSettings(agent="/h:1", socket_path=Path("s"), secret_key_file=Path("f"), root_blessings=()),
        DischargerSettings(),
    ],
)
def test_daemons_have_the_limits_of_the_library(settings: DaemonSettings) -> None:
    """Unless they are told otherwise."""
    assert limits_of(settings) == DEFAULT_LIMITS
    changed = limits_of(
        replace(settings, max_calls_per_peer=7, max_frame_size=1 << 16, idle_timeout=timedelta(seconds=9))
    )
    assert (changed.max_calls_per_peer, changed.max_frame_bytes, changed.max_auth_bytes) == (7, 1 << 16, 1 << 16)
    assert changed.idle_timeout == timedelta(seconds=9)
