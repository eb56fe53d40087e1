"""Cancelling either end at every single step: the connection goes on serving others, and nothing is left behind.

What could be left: tasks, running methods, streams (the server takes few at once, so that a lost one is missed soon),
credit (more than a window is sent afterwards), connections, descriptors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
from cancelling import MOST_STEPS, Moment, cancelled_at, each_step, open_files
from rpc_parties import Parties
from trio.testing import wait_all_tasks_blocked

from vanadium_node.errors import CallError, UnreachableError
from vanadium_node.rpc import Call, Client, Server, Service, Tag, connect, method, serve
from vanadium_node.rpc.deadlines import deadlines_of_run
from vanadium_node.security.authorization import everyone
from vanadium_node.wire.limits import STREAM_WINDOW_BYTES, Limits

CHUNK = STREAM_WINDOW_BYTES // 4
CHUNKS = 10
"""Of one stream: more than two windows, so that either end waits for credit."""
MAX_WORKERS = 8
"""Tasks that a server keeps for later calls."""


class Work(Service):
    """Work counts what runs, and streams more than a window each way."""

    def __init__(self) -> None:
        self.running = 0

    @method(tag=Tag.READ)
    async def echo(self, call: Call, text: str) -> str:
        """Returns the text, a little later."""
        self.running += 1
        try:
            await trio.lowlevel.checkpoint()
            return text
        finally:
            self.running -= 1

    @method(tag=Tag.READ)
    async def up(self, call: Call, items: AsyncIterator[bytes]) -> int:
        """Returns how many bytes were sent."""
        self.running += 1
        try:
            return sum([len(item) async for item in items])
        finally:
            self.running -= 1

    @method(tag=Tag.READ)
    async def down(self, call: Call, number: int) -> AsyncIterator[bytes]:
        """Streams so many chunks."""
        self.running += 1
        try:
            for _ in range(number):
                yield bytes(CHUNK)
        finally:
            self.running -= 1

    @method(tag=Tag.READ)
    async def keep(self, call: Call, items: AsyncIterator[bytes]) -> None:
        """Never reads what it is sent."""
        self.running += 1
        try:
            await trio.sleep_forever()
        finally:
            self.running -= 1

    @method(tag=Tag.READ)
    async def both(self, call: Call, items: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Streams back what it gets."""
        self.running += 1
        try:
            async for item in items:
                yield item
        finally:
            self.running -= 1


@dataclass
class Bench:
    """A server, a client of it, and what there was before anything was cancelled."""

    family: Parties
    work: Work
    server: Server
    client: Client
    name: str


async def call(client: Client) -> None:
    """Make one call."""
    assert await client.call("Echo", "x") == "x"


async def upload(client: Client) -> None:
    """Send more than a window."""
    async with client.stream("Up", has_items=True, result=int) as stream:
        for _ in range(CHUNKS):
            await stream.send(bytes(CHUNK))
        assert await stream.result() == CHUNKS * CHUNK


async def download(client: Client) -> None:
    """Receive more than a window."""
    async with client.stream("Down", CHUNKS, returns=bytes) as stream:
        assert len([item async for item in stream]) == CHUNKS


async def exchange(client: Client) -> None:
    """Send and receive more than a window, one after the other."""
    async with client.stream("Both", has_items=True, returns=bytes) as stream:
        for _ in range(CHUNKS):
            await stream.send(bytes(CHUNK))
            assert len(await anext(stream)) == CHUNK


async def give_up(client: Client) -> None:
    """Send what nobody reads, and receive what this end does not read, and leave."""
    for _ in range(4):
        async with client.stream("Keep", has_items=True) as stream:
            for _ in range(3):
                await stream.send(bytes(CHUNK))
        async with client.stream("Down", CHUNKS, returns=bytes) as stream:
            await anext(stream)
            await wait_all_tasks_blocked(0.002)  # until more of it is here


async def several(client: Client) -> None:
    """Make calls of several kinds at once."""
    async with trio.open_nursery() as nursery:
        for each in (call, upload, download):
            nursery.start_soon(each, client)


WORKS = [call, upload, download, exchange, give_up, several]


@asynccontextmanager
async def serving(family: Parties, work: Work, place: str) -> AsyncIterator[Server]:
    """Serve on TCP or a unix socket; one stream more than a test needs is too many."""
    async with serve(
        work, family.server, listen=[place], authorizer=everyone, now=family.clock, limits=Limits(max_streams=4)
    ) as server:
        yield server


@pytest.fixture(params=["tcp", "unix"])
async def bench(request: pytest.FixtureRequest, family: Parties, tmp_path: Path) -> AsyncIterator[Bench]:
    """A server and a client, over TLS and over a unix socket."""
    work = Work()
    place = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/sock"
    async with serving(family, work, place) as server:
        name = server.addresses[0] if request.param == "unix" else f"/{server.addresses[0]}"
        async with connect(name, family.client, now=family.clock) as client:
            await several(client)  # so that what is made once is there
            yield Bench(family, work, server, client, name)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds that the other end brings about."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the condition is the server's, which has no event for it
            await trio.sleep(0.001)


def living() -> int:
    """Return how many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living


@pytest.mark.parametrize("moment", Moment, ids=lambda each: each.name)
@pytest.mark.parametrize("work", WORKS, ids=lambda each: each.__name__)
async def test_cancelling_the_caller_at_every_step(
    bench: Bench, work: Callable[[Client], Awaitable[None]], moment: Moment
) -> None:
    """The method ends as well, and the same connection serves the next call, each time."""
    tasks, files = living(), open_files()
    steps = 0
    async with aclosing(each_step(moment, lambda: work(bench.client), alone=False)) as cancelled:
        async for _ in cancelled:
            steps += 1
            await eventually(lambda: bench.work.running == 0)
            assert await bench.client.call("Echo", "still there", timeout=5) == "still there"
            assert living() <= tasks + MAX_WORKERS
            assert len(open_files()) <= len(files), (files, open_files())
    assert steps >= 2
    assert bench.server.connections == 1
    with trio.fail_after(10):  # if credit was lost, they wait for it
        for each in (upload, download, exchange):
            await each(bench.client)


@pytest.mark.parametrize("moment", Moment, ids=lambda each: each.name)
async def test_cancelling_a_client_that_connects_at_every_step(bench: Bench, moment: Moment) -> None:
    """Neither end keeps anything of a connection that was given up in its handshake, its first call, or its goodbye."""

    async def come_and_go() -> None:
        async with connect(bench.name, bench.family.client, now=bench.family.clock) as client:
            await call(client)

    tasks, files = living(), open_files()
    steps = 0
    async with aclosing(each_step(moment, come_and_go, alone=False)) as cancelled:
        async for _ in cancelled:
            steps += 1
            await eventually(lambda: bench.server.connections == 1 and bench.server.strangers == 0)
            await eventually(lambda: len(open_files()) <= len(files))
            assert await bench.client.call("Echo", "still there") == "still there"
            await eventually(lambda: bench.work.running == 0)
            assert living() <= tasks + MAX_WORKERS
    assert steps >= 3


@pytest.mark.parametrize("moment", Moment, ids=lambda each: each.name)
@pytest.mark.parametrize("work", [call, several], ids=lambda each: each.__name__)
async def test_cancelling_the_server_at_every_step(
    family: Parties, work: Callable[[Client], Awaitable[None]], moment: Moment
) -> None:
    """Whoever connects, calls, sends or waits for credit is told that it has gone, and nothing hangs."""
    playing, outcomes = Work(), set[str]()
    deadlines_of_run()  # all clients have its one task in common
    tasks, files = living(), open_files()

    async def life(address: list[str], up: trio.Event, over: trio.Event) -> None:
        async with serving(family, playing, "127.0.0.1:0") as server:
            address.append(server.addresses[0])
            up.set()
            await over.wait()

    async def live(at: int, address: list[str], up: trio.Event, over: trio.Event) -> bool:
        was_cancelled = await cancelled_at(at, moment, lambda: life(address, up, over), alone=False)
        up.set()
        return was_cancelled

    for at in range(1, MOST_STEPS):
        address, up, over = list[str](), trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            ended: list[bool] = []
            nursery.start_soon(_collect, ended, partial(live, at, address, up, over))
            await up.wait()
            if address:
                try:
                    with trio.fail_after(5):
                        async with connect(f"/{address[0]}", family.client, now=family.clock) as client:
                            await work(client)
                    outcomes.add("done")
                except* (UnreachableError, CallError) as errors:
                    outcomes.update(type(error).__name__ for error in errors.exceptions)
            over.set()
        await eventually(lambda: playing.running == 0 and living() <= tasks)
        assert len(open_files()) <= len(files), (files, open_files())
        if not ended[0]:
            break
    assert {"done", "UnreachableError"} <= outcomes


async def _collect(results: list[bool], work: Callable[[], Awaitable[bool]]) -> None:
    results.append(await work())
