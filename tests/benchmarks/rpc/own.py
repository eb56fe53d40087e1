"""This project's server and client for the benchmark."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import trio
from cases import WARM_UP_SECONDS, Case, Kind, Measurement, Meter
from identities import CLIENT, SERVER, own_principal

from vanadium_node.rpc import Call, Client, Service, Tag, connect, method, serve
from vanadium_node.security.principal import Principal

PLAIN, ASYNC = "own-def", "own-async"
"""The methods are a plain `def`, which runs without a task of its own, or an `async def`."""

ITEMS_AT_ONCE = 1 << 30


class Benchmark(Service):
    """Benchmark gives back what it gets."""

    @method(tag=Tag.READ)
    def echo(self, call: Call, data: bytes) -> bytes:
        """Returns the data."""
        return data

    @method(tag=Tag.READ)
    async def echo_async(self, call: Call, data: bytes) -> bytes:
        """Returns the data, from a method that could wait."""
        return data

    @method(tag=Tag.READ)
    async def items(self, call: Call, size: int) -> AsyncIterator[bytes]:
        """Streams items for as long as the caller reads."""
        item = bytes(size)
        for _ in range(ITEMS_AT_ONCE):
            yield item


def run_server(folder: Path) -> None:
    """Serve until killed; the port is the first line of standard output."""

    async def main() -> None:
        async with serve(Benchmark(), own_principal(folder, SERVER), listen=["127.0.0.1:0"]) as server:
            print(server.addresses[0].rpartition(":")[2], flush=True)
            await trio.sleep_forever()

    trio.run(main)


def run_client(variant: str, folder: Path, port: int, case: Case, seconds: float) -> Measurement:
    """Measure one case."""
    return trio.run(_measure, variant, folder, port, case, seconds)


async def call_once(principal: Principal, port: int) -> None:
    """Connect, make one call, and leave."""
    async with connect(_name(port), principal) as client:
        await client.call("Echo", b"")


def _name(port: int) -> str:
    return f"/(root:server)@127.0.0.1:{port}"


async def _measure(variant: str, folder: Path, port: int, case: Case, seconds: float) -> Measurement:
    principal, name = own_principal(folder, CLIENT), _name(port)
    echo, payload = "Echo" if variant == PLAIN else "EchoAsync", bytes(case.size)

    async def call_anew() -> None:
        async with connect(name, principal) as client:
            await client.call(echo, payload)

    if case.kind is Kind.CONNECT:
        return await _repeat(call_anew, case, seconds)
    async with connect(name, principal) as client:
        if case.kind is Kind.STREAM:
            return await _read_items(client, case, seconds)
        return await _repeat(lambda: client.call(echo, payload), case, seconds)


async def _repeat(operation: Callable[[], Awaitable[object]], case: Case, seconds: float) -> Measurement:
    """Do something over and over, so many times at once, and measure after warming up."""
    meter, clock = Meter(), time.perf_counter

    async def work(until: float) -> None:
        began = clock()
        while began < until:
            await operation()
            ended = clock()
            meter.seconds.append(ended - began)
            began = ended

    for duration in (WARM_UP_SECONDS, seconds):
        meter.start()
        async with trio.open_nursery() as nursery:
            for _ in range(case.in_flight):
                nursery.start_soon(work, clock() + duration)
    return meter.stop()


async def _read_items(client: Client, case: Case, seconds: float) -> Measurement:
    meter = Meter()

    async def read(duration: float) -> None:
        async with client.stream("Items", case.size, returns=bytes) as items:
            began = time.perf_counter()
            until = began + duration
            async for item in items:
                if len(item) != case.size:
                    raise RuntimeError(f"an item of {len(item)} bytes came")
                ended = time.perf_counter()
                meter.seconds.append(ended - began)
                began = ended
                if ended >= until:
                    return

    for duration in (WARM_UP_SECONDS, seconds):
        meter.start()
        async with trio.open_nursery() as nursery:
            for _ in range(case.in_flight):
                nursery.start_soon(read, duration)
    return meter.stop(case.size / 1e6)
