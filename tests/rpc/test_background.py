"""Tasks of a connection outside nurseries: a bug in one fails the calls of that connection and nothing else; none is left."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import trio
from cancelling import open_files
from rpc_parties import Parties, served
from trio.testing import wait_all_tasks_blocked
from until import eventually

from vanadium_node.errors import UnreachableError
from vanadium_node.rpc import Client, Server, connect
from vanadium_node.rpc.background import SYSTEM, Background, Spawn
from vanadium_node.rpc.conversation import Conversation
from vanadium_node.rpc.link import Link
from vanadium_node.wire.events import Event
from vanadium_node.wire.handshake import Role

LOGGED = "a task of a connection failed"


@pytest.fixture
async def server(family: Parties) -> AsyncIterator[Server]:
    """The family's server."""
    async with served(family) as running:
        yield running


def living() -> int:
    """Return how many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living


# The tasks alone


@pytest.fixture(params=["system", "nursery"])
async def spawn(request: pytest.FixtureRequest, nursery: trio.Nursery) -> Spawn:
    """What starts the tasks: a client's are trio's own, a server's are those of its nursery."""
    return SYSTEM if request.param == "system" else nursery.start_soon


async def test_a_task_that_fails_takes_nothing_else_along(spawn: Spawn, caplog: pytest.LogCaptureFixture) -> None:
    """It is in the log with its traceback; the others go on until all are ended."""
    ended: list[str] = []

    async def fail() -> None:
        raise ZeroDivisionError("a bug")

    async def go_on() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("the other")

    background, before = Background(spawn), living()
    background.start(go_on)
    background.start(fail)
    await wait_all_tasks_blocked()
    [record] = [each for each in caplog.records if each.getMessage() == LOGGED]
    assert (record.name, record.levelno) == ("vanadium_node.rpc", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert ended == []
    background.end()
    assert ended == []
    await wait_all_tasks_blocked()
    assert ended == ["the other"]
    assert living() == before


async def test_what_a_task_waited_for_is_free_when_end_returns(spawn: Spawn, caplog: pytest.LogCaptureFixture) -> None:
    """So a socket can be closed at once."""
    background = Background(spawn)
    here, there = socket.socketpair()
    with here, there:
        background.start(partial(trio.lowlevel.wait_readable, here))
        await wait_all_tasks_blocked()
        background.end()
        here.close()
        await wait_all_tasks_blocked()
    assert LOGGED not in caplog.text


async def test_a_task_that_is_ended_before_it_began_does_nothing(spawn: Spawn) -> None:
    """What it would have worked on is closed by then."""
    has_run: list[bool] = []

    async def run() -> None:
        has_run.append(True)
        await trio.lowlevel.checkpoint()

    background, before = Background(spawn), living()
    background.start(run)
    background.end()
    await wait_all_tasks_blocked()
    assert has_run == []
    assert living() == before


# Bugs in the tasks of a connection


async def fails_its_calls_only(server: Server, family: Parties, broken: Client, other: Client) -> None:
    """Expect that two calls on the broken connection fail soon, like those that come later, and nobody else's."""
    failures: list[UnreachableError] = []

    async def wait() -> None:
        with pytest.raises(UnreachableError) as caught:
            await broken.call("Wait", timeout=None)
        failures.append(caught.value)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(wait)
        with pytest.raises(UnreachableError):
            await broken.call("Quick", "x")
    assert len(failures) == 2
    assert not broken.is_open
    assert await other.call("Quick", "other") == "other"
    async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as newcomer:
        assert await newcomer.call("Quick", "new") == "new"


async def test_a_bug_in_the_clients_reader(
    server: Server, family: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever waits for an answer is told that it cannot come."""
    name = f"/{server.addresses[0]}"
    async with (
        connect(name, family.client, now=family.clock) as broken,
        connect(name, family.client, now=family.clock) as other,
    ):
        async with broken.stream("Count", 1) as items:  # from here on a task reads
            assert [item async for item in items] == [0]
        handle = Conversation._handle

        def stumble(self: Conversation, events: list[Event]) -> bool:
            if self is broken.conversation:
                raise ZeroDivisionError("a bug")
            return handle(self, events)

        monkeypatch.setattr(Conversation, "_handle", stumble)
        family.service.may_go.set()  # the answer is what it stumbles over
        await fails_its_calls_only(server, family, broken, other)
    assert caplog.text.count(LOGGED) == 1


async def test_a_bug_in_the_clients_writer(
    server: Server, family: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection ends: what was to be sent never will be."""
    name = f"/{server.addresses[0]}"
    async with (
        connect(name, family.client, now=family.clock) as broken,
        connect(name, family.client, now=family.clock) as other,
    ):
        stumbling(monkeypatch, lambda link: link is broken._link)
        await fails_its_calls_only(server, family, broken, other)
    assert caplog.text.count(LOGGED) == 1


async def test_a_bug_in_the_servers_writer(
    server: Server, family: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its connection ends, and the server serves the others."""
    name = f"/{server.addresses[0]}"
    stumbled: list[Link] = []

    def is_first(link: Link) -> bool:
        if link.connection.role is Role.SERVER and not stumbled:
            stumbled.append(link)
        return link in stumbled

    async with connect(name, family.client, now=family.clock) as other:
        assert await other.call("Quick", "x") == "x"
        async with connect(name, family.client, now=family.clock) as broken:
            stumbling(monkeypatch, is_first)
            async with broken.stream("Blobs", 10**9, 10_000) as items:
                with trio.fail_after(5), pytest.raises(UnreachableError):
                    await drop_all(items)
            await eventually(lambda: server.connections == 1)
        assert await other.call("Quick", "other") == "other"
    assert caplog.text.count(LOGGED) == 1


async def drop_all(items: AsyncIterator[object]) -> None:
    """Read until there is nothing more."""
    async for _ in items:
        pass


def stumbling(monkeypatch: pytest.MonkeyPatch, is_broken: Callable[[Link], bool]) -> None:
    """Have a bug in the writer of some links."""
    send_rest = Link._send_rest

    async def stumble(self: Link) -> None:
        if is_broken(self):
            raise ZeroDivisionError("a bug")
        await send_rest(self)

    monkeypatch.setattr(Link, "_send_rest", stumble)


# What is left


async def one_call(client: Client) -> None:
    """Make a call that reads its own answer."""
    assert await client.call("Quick", "x") == "x"


async def calls_at_once(client: Client) -> None:
    """Make calls that a reader and a writer serve."""
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(client.call, "Quick", "x")


async def a_stream_that_is_left(client: Client) -> None:
    """Start a reader and a writer, and end both before they have begun."""
    async with client.stream("Count", 5):
        pass


async def a_stream_that_is_begun(client: Client) -> None:
    """Leave while items are under way."""
    async with client.stream("Blobs", 100, 10_000) as items:
        await anext(items)


async def a_call_that_is_cancelled(client: Client) -> None:
    """Leave a call for the server to be told of."""
    with trio.move_on_after(0.01):
        await client.call("Wait")


@pytest.mark.parametrize(
    "work", [one_call, calls_at_once, a_stream_that_is_left, a_stream_that_is_begun, a_call_that_is_cancelled]
)
async def test_nothing_is_left_of_a_connection(
    server: Server, family: Parties, caplog: pytest.LogCaptureFixture, work: Callable[[Client], Awaitable[None]]
) -> None:
    """Neither tasks nor descriptors, nor a word in the log, whatever it was used for; also where its block fails."""
    name = f"/{server.addresses[0]}"
    async with connect(name, family.client, now=family.clock) as client:
        await a_stream_that_is_begun(client)  # so that there is what all connections have in common
    await eventually(lambda: server.connections == 0)
    await wait_all_tasks_blocked()
    tasks, files = living(), open_files()
    for _ in range(3):
        with suppress(ZeroDivisionError):
            async with connect(name, family.client, now=family.clock) as client:
                await work(client)
                raise ZeroDivisionError
        await eventually(lambda: server.connections == 0)
        await wait_all_tasks_blocked()
        assert living() <= tasks
        assert open_files() == files
    assert LOGGED not in caplog.text


async def test_leaving_while_a_peer_does_not_read(
    server: Server, family: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    """A writer that waits for the peer, and a call that waits for its answer, end together with the connection."""
    failed = trio.Event()
    async with trio.open_nursery() as nursery:
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
            client._link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

            async def wait() -> None:
                with pytest.raises(UnreachableError, match="is closed"):
                    await client.call("Quick", "x" * 900_000, 1)
                failed.set()

            nursery.start_soon(wait)
            while client._link._rest is None:  # until the socket's buffer is full
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        with trio.fail_after(5):
            await failed.wait()
        await wait_all_tasks_blocked()
    assert LOGGED not in caplog.text
