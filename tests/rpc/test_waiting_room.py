"""More connections than a server shakes hands with at once: who has spoken goes first, and nobody is dropped in the middle."""

import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from functools import partial

import pytest
import trio
from agent_parties import short_directory
from attacker import dial, dial_socket, frames_of, until_closed
from rpc_parties import Parties, served
from until import eventually

from vanadium_node.errors import ErrorCode
from vanadium_node.rpc import Server, connect, serve
from vanadium_node.rpc.authentication import shake_hands
from vanadium_node.rpc.tls import TlsChannel, client_context
from vanadium_node.rpc.waiting_room import WaitingRoom
from vanadium_node.security.authorization import everyone
from vanadium_node.wire.frames import Goaway
from vanadium_node.wire.limits import Limits

PLACES, WAITING = 2, 4
LIMITS = Limits(handshake_timeout=timedelta(seconds=5), max_unauthenticated=PLACES, max_waiting=WAITING)
"""A silent stranger that others wait for keeps its place for half a second."""


@pytest.fixture
async def server(family: Parties) -> AsyncIterator[Server]:
    """A server with few places."""
    async with served(family, LIMITS) as running:
        yield running


@pytest.fixture
def pairs() -> "Iterator[Pairs]":
    """Sockets that are connected."""
    with ExitStack() as stack:
        yield Pairs(stack)


class Pairs:
    """Makes connected sockets, closed in the end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def new(self) -> tuple[socket.socket, socket.socket]:
        """Return the server's end and the peer's."""
        near, far = socket.socketpair()
        return self._stack.enter_context(near), self._stack.enter_context(far)


def test_those_that_have_spoken_go_first(pairs: Pairs) -> None:
    """In the order in which they came, and then the others in theirs; those that have gone count as having spoken."""
    room, ends = WaitingRoom(LIMITS), [pairs.new() for _ in range(4)]
    for near, _ in ends:
        room.enter(near)
    ends[2][1].send(b"hello")
    ends[3][1].close()
    assert {room.take(), room.take()} == {ends[2][0], ends[3][0]}
    assert [room.take(), room.take()] == [ends[0][0], ends[1][0]]
    assert len(room) == 0
    room.close()


def test_the_one_silent_for_longest_is_ousted(pairs: Pairs) -> None:
    """And none where all have spoken."""
    room, ends = WaitingRoom(LIMITS), [pairs.new() for _ in range(3)]
    for near, _ in ends:
        room.enter(near)
    ends[0][1].send(b"hello")
    assert [room.oust(), room.oust(), room.oust()] == [ends[1][0], ends[2][0], None]
    assert room.take() is ends[0][0]
    room.close()


def test_it_leaves_files_for_others(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes half of the files that the process may open at most; a process without a limit has the setting's."""
    room = WaitingRoom(Limits(max_waiting=100))
    for _ in range(2):
        room.enter(pairs.new()[0])
    for files, is_full in ((4, True), (6, False), (resource.RLIM_INFINITY, False)):
        monkeypatch.setattr(resource, "getrlimit", lambda _kind, files=files: (files, files))
        assert room.is_full is is_full
    room.close()


async def test_an_honest_peer_overtakes_silent_ones(server: Server, family: Parties) -> None:
    """Silent ones have all places and the whole waiting room: the next one is served as soon as one of the places is free."""
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await dial(server.addresses[0])) for _ in range(PLACES + WAITING - 1)]
        await eventually(lambda: server.waiting == WAITING - 1)
        start = trio.current_time()
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
            assert await client.call("Quick", "x") == "x"
        assert trio.current_time() - start < 0.9, "it waited for more than the first of the places to be free"
        assert await until_closed(silent[PLACES]) == b"", "the one that had waited longest made room"


async def test_all_of_a_crowd_are_served(server: Server, family: Parties) -> None:
    """Many more than there are places and room come at once."""
    served_names: list[str] = []

    async def come(number: int) -> None:
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
            served_names.append(await client.call("Quick", str(number)))

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(partial(come, number))
    assert sorted(served_names, key=int) == [str(number) for number in range(40)]
    assert server.waiting == server.strangers == 0


async def test_one_that_loses_its_place_is_told_overloaded(family: Parties) -> None:
    """It was shown the server and says nothing while another waits: it may come again, and hears so."""
    limits = Limits(handshake_timeout=timedelta(seconds=1), max_unauthenticated=1)
    async with served(family, limits) as server:
        with await dial_socket(server.addresses[0]) as slow:
            slow.setblocking(False)
            channel = TlsChannel.connect(client_context())
            await shake_hands(slow, channel)
            async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as other:
                assert await other.call("Quick", "x") == "x"
            frames = await frames_of(slow, channel)
        assert frames[1:] == [Goaway(0, ErrorCode.OVERLOADED.value, "others waited for its place")]


async def test_those_that_wait_are_let_go_when_the_server_ends(family: Parties) -> None:
    """Each connection is closed."""
    async with served(family, LIMITS) as server:
        waiting = [await dial(server.addresses[0]) for _ in range(PLACES + 2)]
        await eventually(lambda: server.waiting == 2)
    for stream in waiting:
        async with stream:
            assert await until_closed(stream) == b""


async def test_a_hello_that_waited_is_read(server: Server, family: Parties) -> None:
    """What was sent while it waited is not lost."""
    async with AsyncExitStack() as stack:
        for _ in range(PLACES):
            await stack.enter_async_context(await dial(server.addresses[0]))
        await eventually(lambda: server.strangers == PLACES)
        with await dial_socket(server.addresses[0]) as connection:
            connection.setblocking(False)
            channel = TlsChannel.connect(client_context())
            with trio.fail_after(10):
                await shake_hands(connection, channel)
            assert channel.is_done


async def test_local_programs_wait_too(family: Parties) -> None:
    """Many more than there are places and room connect to a unix socket at once and say nothing: others are served still."""
    with short_directory() as folder:
        place = f"unix:{folder / 's'}"
        async with (
            serve(family.service, None, listen=[place], authorizer=everyone, limits=LIMITS, now=family.clock) as server,
            AsyncExitStack() as stack,
        ):
            for _ in range(4 * (PLACES + WAITING)):  # before the server has its turn
                local = stack.enter_context(socket.socket(socket.AF_UNIX))
                local.connect(str(folder / "s"))
            await eventually(lambda: server.waiting == server.strangers == 0)
            async with connect(place, None) as client:
                assert await client.call("Quick", "x") == "x"
