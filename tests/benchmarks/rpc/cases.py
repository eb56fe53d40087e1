"""What is measured, and how one measurement looks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

WARM_UP_SECONDS = 0.2


class Kind(StrEnum):
    """What a client does over and over."""

    UNARY = "unary"
    """Send `size` bytes and get them back, with `in_flight` callers on one connection."""
    CONNECT = "connect"
    """Make an authenticated connection, one call on it, and leave; `in_flight` of them at a time."""
    STREAM = "stream"
    """Read a stream of items of `size` bytes; `in_flight` streams on one connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    kind: Kind
    size: int
    in_flight: int

    def __str__(self) -> str:
        at_once = "one after another" if self.in_flight == 1 else f"{self.in_flight} at once"
        match self.kind:
            case Kind.UNARY:
                return f"calls/s, {_bytes(self.size)}, {at_once}"
            case Kind.CONNECT:
                return f"new connections/s, {at_once}"
            case Kind.STREAM:
                return f"MB/s, items of {_bytes(self.size)}, {at_once}"


CASES = (
    Case(kind=Kind.UNARY, size=1, in_flight=1),
    Case(kind=Kind.UNARY, size=1024, in_flight=1),
    Case(kind=Kind.UNARY, size=1, in_flight=64),
    Case(kind=Kind.UNARY, size=1024, in_flight=64),
    Case(kind=Kind.CONNECT, size=1, in_flight=1),
    Case(kind=Kind.CONNECT, size=1, in_flight=16),
    Case(kind=Kind.STREAM, size=64 << 10, in_flight=1),
)


def required_ratio(case: Case) -> float | None:
    """Return how many times the best grpcio variant the best own one must reach; None where nothing is promised."""
    match case.kind, case.in_flight:
        case Kind.UNARY, 1:
            return 4.0
        case Kind.UNARY, 64:
            return 10.0
        case Kind.CONNECT, 16:
            return 1.5
        case Kind.STREAM, _:
            return 1.0
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One run of one case: `rate` in the case's unit; CPU in microseconds per call, connection or item."""

    rate: float
    p50_us: float
    p99_us: float
    client_cpu_us: float
    server_cpu_us: float


class Meter:
    """Counts operations between `start` and `stop`, with the time each took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = self._cpu = 0.0

    def start(self) -> None:
        """Forget what was before: that was warming up."""
        self.seconds.clear()
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def stop(self, megabytes: float | None = None) -> Measurement:
        """Return the run, its rate in `megabytes` each where the case wants that. The server's CPU is added by the driver."""
        wall, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu
        taken, count = sorted(self.seconds), len(self.seconds)
        return Measurement(
            rate=count * (1 if megabytes is None else megabytes) / wall,
            p50_us=taken[count // 2] * 1e6,
            p99_us=taken[int(count * 0.99)] * 1e6,
            client_cpu_us=cpu / count * 1e6,
            server_cpu_us=0.0,
        )


def middle(runs: Iterable[Measurement]) -> Measurement:
    """Return the median of each figure."""
    taken = tuple(runs)
    return Measurement(
        rate=median(each.rate for each in taken),
        p50_us=median(each.p50_us for each in taken),
        p99_us=median(each.p99_us for each in taken),
        client_cpu_us=median(each.client_cpu_us for each in taken),
        server_cpu_us=median(each.server_cpu_us for each in taken),
    )


def _bytes(size: int) -> str:
    return f"{size >> 10} KiB" if size >= 1024 else f"{size} B"
