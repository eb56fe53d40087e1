"""grpcio's servers and clients for the benchmark: TLS with certificates of both ends, nothing serialized."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cases import WARM_UP_SECONDS, Case, Kind, Measurement, Meter
from identities import CLIENT, SERVER, certificate_files

SYNC, AIO = "grpc-sync", "grpc-aio"
"""Threads at both ends, or asyncio at both ends."""

ITEMS_AT_ONCE = 1 << 30
SERVER_OPTIONS = [("grpc.max_concurrent_streams", 1000)]
CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]  # a new channel is a new connection, not a shared one
THREADS = 8
"""Of the sync server; measured to be its best on two cores."""


def run_server(variant: str, folder: Path) -> None:
    """Serve until killed; the port is the first line of standard output."""
    if variant == AIO:
        asyncio.run(_serve_aio(folder))
        return
    server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(lambda request, _context: request, _items_sync),))
    port = server.add_secure_port("127.0.0.1:0", _server_credentials(folder))
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


async def _serve_aio(folder: Path) -> None:
    async def echo(request: bytes, _context: object) -> bytes:
        return request

    async def items(request: bytes, _context: object) -> AsyncIterator[bytes]:
        item = bytes(int(request))
        for _ in range(ITEMS_AT_ONCE):
            yield item

    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(echo, items),))
    port = server.add_secure_port("127.0.0.1:0", _server_credentials(folder))
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def _items_sync(request: bytes, _context: object) -> Iterator[bytes]:
    item = bytes(int(request))
    for _ in range(ITEMS_AT_ONCE):
        yield item


def _handlers(echo: Callable[..., Any], items: Callable[..., Any]) -> Any:
    return grpc.method_handlers_generic_handler(
        "Benchmark",
        {
            "Echo": grpc.unary_unary_rpc_method_handler(echo, None, None),
            "Items": grpc.unary_stream_rpc_method_handler(items, None, None),
        },
    )


def _server_credentials(folder: Path) -> Any:
    root, key, certificate = certificate_files(folder, SERVER)
    return grpc.ssl_server_credentials([(key, certificate)], root, require_client_auth=True)


def run_client(variant: str, folder: Path, port: int, case: Case, seconds: float) -> Measurement:
    """Measure one case."""
    root, key, certificate = certificate_files(folder, CLIENT)
    credentials = grpc.ssl_channel_credentials(root, key, certificate)
    if variant == AIO:
        return asyncio.run(_measure_aio(credentials, port, case, seconds))
    return _measure_sync(credentials, port, case, seconds)


async def _measure_aio(credentials: Any, port: int, case: Case, seconds: float) -> Measurement:
    payload = bytes(case.size)

    def open_channel() -> Any:
        return grpc.aio.secure_channel(f"localhost:{port}", credentials, options=CHANNEL_OPTIONS)

    async def call_anew() -> None:
        async with open_channel() as channel:
            await channel.unary_unary("/Benchmark/Echo")(payload)

    if case.kind is Kind.CONNECT:
        return await _repeat_aio(call_anew, case, seconds)
    async with open_channel() as channel:
        if case.kind is Kind.STREAM:
            return await _read_items_aio(channel, case, seconds)
        echo = channel.unary_unary("/Benchmark/Echo")
        return await _repeat_aio(lambda: echo(payload), case, seconds)


async def _repeat_aio(operation: Callable[[], Awaitable[object]], case: Case, seconds: float) -> Measurement:
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
        await asyncio.gather(*(work(clock() + duration) for _ in range(case.in_flight)))
    return meter.stop()


async def _read_items_aio(channel: Any, case: Case, seconds: float) -> Measurement:
    meter = Meter()

    async def read(duration: float) -> None:
        began = time.perf_counter()
        until = began + duration
        call = channel.unary_stream("/Benchmark/Items")(b"%d" % case.size)
        async for _item in call:
            ended = time.perf_counter()
            meter.seconds.append(ended - began)
            began = ended
            if ended >= until:
                call.cancel()
                return

    for duration in (WARM_UP_SECONDS, seconds):
        meter.start()
        await asyncio.gather(*(read(duration) for _ in range(case.in_flight)))
    return meter.stop(case.size / 1e6)


def _measure_sync(credentials: Any, port: int, case: Case, seconds: float) -> Measurement:
    payload, meter = bytes(case.size), Meter()

    def open_channel() -> Any:
        return grpc.secure_channel(f"localhost:{port}", credentials, options=CHANNEL_OPTIONS)

    def call_anew() -> None:
        with open_channel() as channel:
            channel.unary_unary("/Benchmark/Echo")(payload)

    if case.kind is Kind.CONNECT:
        _repeat_sync(call_anew, meter, case, seconds)
        return meter.stop()
    with open_channel() as channel:
        if case.kind is Kind.STREAM:
            _read_items_sync(channel, meter, case, seconds)
            return meter.stop(case.size / 1e6)
        echo = channel.unary_unary("/Benchmark/Echo")
        _repeat_sync(lambda: echo(payload), meter, case, seconds)
        return meter.stop()


def _repeat_sync(operation: Callable[[], object], meter: Meter, case: Case, seconds: float) -> None:
    def work(until: float) -> None:
        began = time.perf_counter()
        while began < until:
            operation()
            ended = time.perf_counter()
            meter.seconds.append(ended - began)
            began = ended

    for duration in (WARM_UP_SECONDS, seconds):
        meter.start()
        threads = [threading.Thread(target=work, args=(time.perf_counter() + duration,)) for _ in range(case.in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _read_items_sync(channel: Any, meter: Meter, case: Case, seconds: float) -> None:
    for duration in (WARM_UP_SECONDS, seconds):
        meter.start()
        began = time.perf_counter()
        until = began + duration
        call = channel.unary_stream("/Benchmark/Items")(b"%d" % case.size)
        for _item in call:
            ended = time.perf_counter()
            meter.seconds.append(ended - began)
            began = ended
            if ended >= until:
                call.cancel()
                break
