"""Streams over real sockets: both ways, with credit, with ends and errors; and readers who take their time."""

import pytest
import trio
from rpc_parties import Parties, connected

from vanadium_node.errors import CallError, DecodeError, ErrorCode
from vanadium_node.rpc import Client
from vanadium_node.wire.limits import STREAM_WINDOW_BYTES


async def test_items_out(client: Client) -> None:
    """Items come in order, and the end after the last."""
    async with client.stream("Count", 1000, returns=int) as numbers:
        assert [number async for number in numbers] == list(range(1000))


async def test_items_in(client: Client) -> None:
    """The method's result comes after the caller's end."""
    async with client.stream("Total", result=int, has_items=True) as adding:
        for number in range(1000):
            await adding.send(number)
        assert await adding.result() == sum(range(1000))


async def test_items_both_ways(client: Client) -> None:
    """A conversation: each item is answered before the next is sent, and half-closing ends it."""
    async with client.stream("Double", returns=int, has_items=True) as doubling:
        for number in range(20):
            await doubling.send(number)
            assert await anext(doubling) == 2 * number
        doubling.end()
        with pytest.raises(StopAsyncIteration):
            await anext(doubling)
        assert await doubling.result() is None


async def test_an_item_of_a_wrong_type(client: Client) -> None:
    """The receiver's type counts, at either end."""
    async with client.stream("Total", result=int, has_items=True) as adding:
        await adding.send("not a number")
        with pytest.raises(CallError, match="an item of the stream is wrong") as caught:
            await adding.result()
        assert caught.value.code is ErrorCode.BAD_ARG
    async with client.stream("Count", 3, returns=str) as numbers:
        with pytest.raises(DecodeError, match="an item of the stream is wrong"):
            await anext(numbers)


async def test_errors_end_streams(client: Client) -> None:
    """A stream that cannot be opened says why at the first item."""
    async with client.stream("Count", "x", returns=int) as numbers:
        with pytest.raises(CallError) as caught:
            await anext(numbers)
    assert caught.value.code is ErrorCode.BAD_ARG
    async with client.stream("Echo", "x", has_items=True) as wrong:
        with pytest.raises(CallError, match="takes no stream"):
            await wrong.result()


async def test_a_slow_reader_stops_the_sender(family: Parties) -> None:
    """Without reading, the server sends a window and no more; other calls go on; reading frees it."""
    async with connected(family) as client, client.stream("Blobs", 200, 20_000, returns=bytes) as blobs:
        await anext(blobs)
        for _ in range(20):
            await client.call("Quick", "x")
        sent = family.service.events.count("blob")
        assert sent <= STREAM_WINDOW_BYTES // 20_000 + 3
        received = 1 + len([blob async for blob in blobs])
    assert received == 200


async def test_many_streams_at_once(client: Client) -> None:
    """They share a connection and its credit, and all come to their ends."""
    totals: list[int] = []

    async def read() -> None:
        async with client.stream("Blobs", 50, 20_000, returns=bytes) as blobs:
            totals.append(sum([len(blob) async for blob in blobs]))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(read)
    assert totals == [1_000_000] * 8


async def test_a_method_that_never_waits_lets_others_run(client: Client) -> None:
    """Tiny items of a generator without a checkpoint of its own do not hold up other calls."""
    async with client.stream("Count", 10_000_000, returns=int) as numbers:
        await anext(numbers)
        with trio.fail_after(5):
            assert await client.call("Echo", "in between") == "in between"
