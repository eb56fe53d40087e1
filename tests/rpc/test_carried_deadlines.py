"""A deadline goes along with the work: from a caller to a method, and to the calls that the method makes in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf, isfinite

import pytest
import trio
from rpc_parties import Parties, Relaying, blessed, relayed, served
from until import eventually

from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.rpc import Call, Tag, connect, method, open_pool, serve


class Relay(Relaying):
    """Calls on, while it serves a call."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: list[float] = []

    @method(tag=Tag.READ)
    async def relay(self, call: Call, name: str) -> None:
        """Calls a method of the next server, from a task of its own, as handlers do."""
        assert self.next is not None
        self.deadlines.append(call.deadline)
        arguments = ["x"] if name == "Echo" else []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.next.call, name, *arguments)

    @method(tag=Tag.READ)
    async def items(self, call: Call) -> AsyncIterator[int]:
        """Calls on between its items."""
        assert self.next is not None
        for number in range(3):
            yield number
            await self.next.call("Echo", "x")


async def test_a_deadline_goes_on_through_a_handler(family: Parties) -> None:
    """The last server knows how long the first caller waits; the next request on the same worker has no part in it."""
    relay = Relay()
    async with relayed(family, relay) as client:
        await client.call("Relay", "Echo", timeout=20)
        await client.call("Relay", "Echo", timeout=None)
        with trio.fail_after(20):
            await client.call("Relay", "Echo")
    first, without, scoped = relay.deadlines
    last = [call.deadline for call in family.service.calls]
    assert isfinite(first)
    assert first <= last[0] < first + 1, "in whole milliseconds, and what the way takes"
    assert without == inf
    assert last[1] > last[0] + 5, "it is that of a call for which nothing is said"
    assert scoped <= last[2] < scoped + 1


async def test_a_deadline_goes_on_through_a_stream(family: Parties) -> None:
    """A method that streams calls on with it, too."""
    async with relayed(family, Relay()) as client:
        latest = trio.current_time() + 21
        async with client.stream("Items", timeout=20, returns=int) as items:
            assert [item async for item in items] == [0, 1, 2]
    assert all(call.deadline < latest for call in family.service.calls)


async def test_a_deadline_that_passes_ends_all_of_it(family: Parties) -> None:
    """The first caller is told, and the last server's method is cancelled."""
    async with relayed(family, Relay()) as client:
        with pytest.raises(CallError) as caught:
            await client.call("Relay", "Wait", timeout=0.2)
        assert caught.value.code is ErrorCode.TIMEOUT
        await eventually(lambda: family.service.events == ["cancelled"])
        await client.call("Relay", "Echo", timeout=20)


async def test_a_task_that_outlives_its_call_is_not_bound_by_it(family: Parties) -> None:
    """It was started by the method, in a nursery that goes on; the deadline was that of the call, and is over with it."""

    class Starter(Relay):
        """Leaves something behind."""

        @method(tag=Tag.READ)
        async def begin(self, call: Call) -> None:
            """Starts a task that calls on after this call has been answered."""
            nursery.start_soon(later)

    async def later() -> None:
        await may_go.wait()
        assert relay.next is not None
        await relay.next.call("Echo", "x", timeout=None)

    relay, may_go = Starter(), trio.Event()
    async with relayed(family, relay) as client, trio.open_nursery() as nursery:
        await client.call("Begin", timeout=20)
        may_go.set()
    assert [call.deadline for call in family.service.calls] == [inf]


async def test_a_pool_carries_it_too(family: Parties) -> None:
    """With all its attempts."""
    async with served(family) as last, open_pool(family.client, now=family.clock) as pool:

        class Pooling(Relay):
            """Calls on with a pool."""

            @method(tag=Tag.READ)
            async def on(self, call: Call) -> None:
                """Calls Echo."""
                self.deadlines.append(call.deadline)
                await pool.client(f"/{last.addresses[0]}").call("Echo", "x")

        relay = Pooling()
        middle = await blessed(family.root, "server:middle")
        async with (
            serve(relay, middle, listen=["127.0.0.1:0"]) as first,
            connect(f"/(...)@{first.addresses[0]}", family.root) as client,
        ):
            await client.call("On", timeout=20)
    (first_deadline,), (call,) = relay.deadlines, family.service.calls
    assert first_deadline <= call.deadline < first_deadline + 1
