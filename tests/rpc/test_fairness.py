"""One peer that keeps all of its connections busy: others are served, and who is turned away is told so."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import trio
from agent_parties import short_directory
from attacker import Attacker, dial, until_closed
from rpc_parties import Parties, blessed, served
from until import eventually

from vanadium_node.errors import CallError, UnreachableError
from vanadium_node.rpc import Client, Server, connect, serve
from vanadium_node.rpc.fairness import Crowd
from vanadium_node.rpc.limiting import PeerLoad
from vanadium_node.rpc.observing import Handshake, Observer
from vanadium_node.rpc.retrying import is_turned_away
from vanadium_node.security.authorization import everyone
from vanadium_node.security.principal import Principal
from vanadium_node.wire.limits import Limits


async def keep_busy(client: Client, way: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Have a call or a stream running on a connection, until cancelled or cut off."""
    task_status.started()
    try:
        if way == "call":
            await client.call("Wait", timeout=None)
        else:
            async with client.stream("Double", has_items=True) as stream:
                async for _ in stream:
                    pass
    except (UnreachableError, CallError):
        pass


@asynccontextmanager
async def greed(
    family: Parties, server: Server, who: Principal, number: int, way: str = "call"
) -> AsyncIterator[list[Client]]:
    """Keep so many connections busy at once, as far as the server lets one."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        clients = []
        for _ in range(number):
            clients.append(await stack.enter_async_context(connect(f"/{server.addresses[0]}", who, now=family.clock)))
            await nursery.start(keep_busy, clients[-1], way)
        await eventually(lambda: server.strangers == 0)
        yield clients
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("way", ["call", "stream"])
async def test_a_greedy_peer_keeps_nobody_out(family: Parties, way: str) -> None:
    """With a call or a stream on each of its connections it has three quarters of them at most; its running calls go on."""
    greedy = await blessed(family.root, "server:greedy")
    async with served(family, Limits(max_connections=8)) as server, greed(family, server, greedy, 20, way) as taken:
        assert server.connections <= 8
        await eventually(lambda: sum(client.is_open for client in taken) == 6)
        for _ in range(5):
            async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as modest:
                assert await modest.call("Echo", "x") == "x"
        assert [client.is_open for client in taken] == 6 * [True] + 14 * [False]


async def test_whoever_has_too_many_is_told_so(family: Parties) -> None:
    """By name, with the limit; the call that came along is not run, and when one of its connections is idle that one gives way."""
    limits = Limits(max_connections_per_peer=2)
    async with served(family, limits) as server, greed(family, server, family.client, 2) as taken:
        await eventually(lambda: len(family.service.calls) == 2)
        with pytest.raises(CallError, match=r"calls: 2 connections of root:server:client at .* the most that") as told:
            async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as one_more:
                await one_more.call("Echo", "x")
        assert is_turned_away(told.value), "a client may try again: the call was not begun with"
        assert len(family.service.calls) == 2
        family.service.may_go.set()
        await eventually(lambda: family.service.events.count("done") == 2)
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as one_more:
            assert await one_more.call("Echo", "x") == "x"
        await eventually(lambda: sum(client.is_open for client in taken) == 1)


class Outcomes(Observer):
    """Remembers how handshakes ended."""

    def __init__(self) -> None:
        self.all: list[Handshake] = []

    def handshake_ended(self, outcome: Handshake, seconds: float) -> None:
        """Remember it."""
        self.all.append(outcome)


async def test_a_server_that_is_full_says_so(family: Parties) -> None:
    """Several peers keep all connections busy: a newcomer is told, and not just cut off."""
    others = [await blessed(family.root, f"server:{number}") for number in range(4)]
    outcomes = Outcomes()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            serve(
                family.service, family.server, listen=["127.0.0.1:0"], limits=Limits(max_connections=4),
                now=family.clock, observers=[outcomes],
            )
        )  # fmt: skip
        for number, other in enumerate(others):
            await stack.enter_async_context(greed(family, server, other, 1))
            await eventually(lambda number=number: len(family.service.calls) == number + 1)  # type: ignore[misc]
        with pytest.raises(CallError, match="all 4 connections of this server are busy") as told:
            async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as newcomer:
                await newcomer.call("Echo", "x")
        assert is_turned_away(told.value)
        await eventually(lambda: outcomes.all[4:] == [Handshake.OVERLOADED])
        assert server.connections == 4
        family.service.may_go.set()


async def test_users_of_the_machine_are_peers_too(family: Parties) -> None:
    """On unix sockets the system names them."""
    with short_directory() as folder:
        async with (
            serve(
                family.service, None, listen=[f"unix:{folder / 's'}"], authorizer=everyone,
                limits=Limits(max_connections_per_peer=1),
            ),
            connect(f"unix:{folder / 's'}", None) as first,
            trio.open_nursery() as nursery,
        ):  # fmt: skip
            await nursery.start(keep_busy, first, "call")
            await family.service.is_busy.wait()
            with pytest.raises(CallError, match=r"1 connections of user \d+ are open and busy"):
                await refused_call(folder / "s")
            nursery.cancel_scope.cancel()


async def refused_call(path: Path) -> None:
    """Connect once more, and call."""
    async with connect(f"unix:{path}", None) as client:
        await client.call("Quick", "x")


class Idle:
    """A connection without a call, of which nothing is sent."""

    def __init__(self, load: PeerLoad) -> None:
        self.load, self.link, self.is_quiet = load, MagicMock(last_received=0.0), True
        load.connections += 1


def test_what_was_closed_for_others_counts_no_more() -> None:
    """Although a peer's counter is set right only when the connection's own task gets to its end."""
    crowd: Crowd[Idle] = Crowd(Limits(max_connections=4))
    peer = PeerLoad()
    assert crowd.enter(Idle(PeerLoad())) == ""
    for number in range(1, 8):
        assert crowd.enter(Idle(peer)) == ""
        assert sum(member.load is peer for member in crowd.members) == min(3, number)
    assert peer.connections == 7


@asynccontextmanager
async def full_of_idle(family: Parties) -> AsyncIterator[tuple[Server, AsyncExitStack]]:
    """Yield a server whose four places are taken by idle peers, and a stack for those who come: beside them, the idle must still be
    there in the end.
    """
    peers = [await blessed(family.root, f"server:{number}") for number in range(4)]
    async with served(family, Limits(max_connections=4)) as server, AsyncExitStack() as stack:
        name = f"/{server.addresses[0]}"
        idle = [await stack.enter_async_context(connect(name, peer, now=family.clock)) for peer in peers]
        for client in idle:
            assert await client.call("Quick", "x") == "x"
        yield server, stack
        assert [await client.call("Quick", "still there") for client in idle] == ["still there"] * 4


async def test_whoever_shows_nothing_takes_nobodys_place(family: Parties) -> None:
    """A server that is full closes no connection for peers that only connect, however many come: they have shown no right to it."""
    async with full_of_idle(family) as (server, stack):
        silent = [await stack.enter_async_context(await dial(server.addresses[0])) for _ in range(20)]
        await eventually(lambda: server.strangers == len(silent))


async def test_tls_alone_takes_nobodys_place_either(family: Parties) -> None:
    """Peers that go as far as they can without a key: they have been shown the server, and show nothing."""
    async with full_of_idle(family) as (server, stack):
        strangers = [await Attacker.meet(server.addresses[0]) for _ in range(10)]
        for each in strangers:
            stack.callback(each.socket.close)
            await each.server_auth()
            each.socket.send(each.channel.take_pending())
        await eventually(lambda: server.connections == 4 + len(strangers))


async def test_a_local_program_that_does_not_listen_is_cut_off(family: Parties) -> None:
    """Where a user has too many connections, the next one is ended by the server, and not left to its peer."""
    with short_directory() as folder:
        async with (
            serve(
                family.service, None, listen=[f"unix:{folder / 's'}"], authorizer=everyone,
                limits=Limits(max_connections_per_peer=1),
            ) as server,
            connect(f"unix:{folder / 's'}", None) as first,
            trio.open_nursery() as nursery,
        ):  # fmt: skip
            await nursery.start(keep_busy, first, "call")
            await family.service.is_busy.wait()
            async with await trio.open_unix_socket(folder / "s") as stream:
                assert b"overloaded" in await until_closed(stream)
            await eventually(lambda: server.connections == 1)
            nursery.cancel_scope.cancel()
