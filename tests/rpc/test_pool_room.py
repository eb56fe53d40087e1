"""Who waits for room in a pool gets it, whatever becomes of those before: connected, failed, late or cancelled."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
from rpc_parties import Parties, served
from trio.testing import MockClock, wait_all_tasks_blocked

from vanadium_node.errors import UnreachableError
from vanadium_node.rpc import ClientPool, Retrying, open_pool

ONCE = Retrying(attempts=1)


@pytest.fixture
def clock() -> MockClock:
    """A clock that jumps to what is due next when everybody has waited for a moment."""
    return MockClock(autojump_threshold=0.02)


@pytest.fixture
def silent() -> Iterator[str]:
    """The name of a server that says nothing: connecting to it takes all the time there is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"/127.0.0.1:{listener.getsockname()[1]}"


async def fail(pool: ClientPool, name: str, seconds: float) -> None:
    """Wait in vain."""
    with pytest.raises(UnreachableError):
        await pool.client(name).call("Echo", "x", timeout=seconds)


async def test_after_one_that_failed(clock: MockClock, family: Parties, silent: str) -> None:
    """Its place is free at once, not when the one who waits has no more time."""
    async with (
        served(family) as server,
        open_pool(family.client, now=family.clock, retrying=ONCE, max_connections=1) as pool,
        trio.open_nursery() as nursery,
    ):
        start = trio.current_time()
        nursery.start_soon(fail, pool, silent, 3)
        await wait_all_tasks_blocked()
        assert await pool.client(f"/{server.addresses[0]}").call("Echo", "x", timeout=60) == "x"
        assert trio.current_time() - start == pytest.approx(3, abs=0.5)


async def test_after_one_that_was_cancelled(clock: MockClock, family: Parties, silent: str) -> None:
    """As it connected."""
    async with (
        served(family) as server,
        open_pool(family.client, now=family.clock, retrying=ONCE, max_connections=1) as pool,
        trio.open_nursery() as nursery,
    ):
        start = trio.current_time()

        async def change_ones_mind() -> None:
            with trio.move_on_after(2):
                await fail(pool, silent, 9)

        nursery.start_soon(change_ones_mind)
        await wait_all_tasks_blocked()
        assert await pool.client(f"/{server.addresses[0]}").call("Echo", "x", timeout=60) == "x"
        assert trio.current_time() - start == pytest.approx(2, abs=0.5)


async def test_several_one_after_another(clock: MockClock, family: Parties, silent: str) -> None:
    """Those whose time is over while they wait take nobody's turn."""
    async with (
        served(family) as server,
        open_pool(family.client, now=family.clock, retrying=ONCE, max_connections=1) as pool,
        trio.open_nursery() as nursery,
    ):
        start = trio.current_time()
        nursery.start_soon(fail, pool, silent, 5)
        await wait_all_tasks_blocked()
        for number in range(3):
            nursery.start_soon(fail, pool, f"/127.0.0.1:{number + 1}", 1)
        await wait_all_tasks_blocked()
        assert await pool.client(f"/{server.addresses[0]}").call("Echo", "x", timeout=60) == "x"
        assert trio.current_time() - start == pytest.approx(5, abs=0.5)
