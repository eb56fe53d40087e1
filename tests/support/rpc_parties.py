"""Principals of one family, a service to call, and a clock to turn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

import trio

from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.rpc import Call, Client, Server, Service, Tag, connect, method, serve
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.wire.limits import Limits


@dataclass
class Clock:
    """A wall clock that stands still until it is moved."""

    time: datetime = field(default_factory=lambda: datetime(2026, 11, 23, 10, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.time

    def move(self, step: timedelta) -> None:
        """Move the clock."""
        self.time += step


async def principal(name: str) -> Principal:
    """Return a principal that blessed itself."""
    return await Principal.create(PrivateKey.generate(), name)


async def blessed(root: Principal, extension: str, *caveats: Caveat) -> Principal:
    """Return a principal that shows everybody one blessing by `root`, and recognizes its root."""
    child = await principal("nobody")
    own = root.store.default
    assert own is not None
    given = await root.bless(child.public_key, own, extension, caveats or (Caveat.unconstrained(),))
    await wear(child, given)
    await child.add_roots_of(given)
    return child


async def wear(who: Principal, blessings: Blessings) -> None:
    """Make blessings what a principal shows, to everybody."""
    await who.set_default(blessings)
    await who.set_for_peer(blessings, Pattern.parse("..."))


class Colour(Enum):
    """Something with names."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    """Something with fields, one of them new."""

    x: int
    y: int
    label: str = ""


class Playground(Service):
    """Playground has a method for everything that methods can do."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.events: list[str] = []
        self.is_busy = trio.Event()
        self.may_go = trio.Event()

    @method(tag=Tag.READ)
    async def echo(self, call: Call, text: str) -> str:
        """Returns the text."""
        self.calls.append(call)
        return text

    @method(tag=Tag.READ)
    def quick(self, call: Call, text: str, times: int = 1) -> str:
        """Returns the text so many times, without a task of its own."""
        return text * times

    @method(tag=Tag.WRITE)
    async def everything(
        self,
        call: Call,
        a: bool,
        b: float,
        c: bytes,
        d: list[int],
        e: dict[str, Colour],
        f: tuple[int, str],
        g: datetime,
        h: Point,
        i: Point | None,
        j: Blessings | None,
    ) -> tuple[
        bool,
        float,
        bytes,
        list[int],
        dict[str, Colour],
        tuple[int, str],
        datetime,
        Point,
        Point | None,
        Blessings | None,
    ]:
        """Returns what it was given."""
        return (a, b, c, d, e, f, g, h, i, j)

    @method(tag=Tag.READ)
    async def fail(self, call: Call, code: str) -> None:
        """Fails with the code, or with a bug."""
        if code == "bug":
            raise ZeroDivisionError(code)
        raise CallError(ErrorCode(code), "as you wished", fields={"retry_after_ms": 7})

    @method(tag=Tag.ADMIN)
    async def take(self, call: Call) -> list[str]:
        """Returns the names of what was granted."""
        return [] if call.granted is None else list(call.granted.names)

    @method(tag=Tag.READ)
    async def wait(self, call: Call) -> str:
        """Waits until it may go, and says what became of it."""
        self.calls.append(call)
        self.is_busy.set()
        try:
            await self.may_go.wait()
        except trio.Cancelled:
            self.events.append("cancelled")
            raise
        self.events.append("done")
        return "done"

    @method(tag=Tag.READ)
    async def count(self, call: Call, to: int) -> AsyncIterator[int]:
        """Streams the numbers below `to`."""
        try:
            for number in range(to):
                yield number
                self.events.append(f"sent {number}")
        finally:
            self.events.append("closed")

    @method(tag=Tag.READ)
    async def blobs(self, call: Call, number: int, size: int) -> AsyncIterator[bytes]:
        """Streams so many blobs of a size."""
        for _ in range(number):
            self.events.append("blob")
            yield bytes(size)

    @method(tag=Tag.READ)
    async def total(self, call: Call, items: AsyncIterator[int]) -> int:
        """Returns the sum of the items."""
        return sum([item async for item in items])

    @method(tag=Tag.READ)
    async def double(self, call: Call, items: AsyncIterator[int]) -> AsyncIterator[int]:
        """Streams each item, doubled."""
        async for item in items:
            yield 2 * item


@dataclass
class Parties:
    """A server, a client that it admits, and their root."""

    root: Principal
    server: Principal
    client: Principal
    clock: Clock
    service: Playground


async def parties() -> Parties:
    """Return a family: `root`, `root:server`, and `root:server:client`, which the default authorizer admits."""
    root = await principal("root")
    server, client = await blessed(root, "server"), await blessed(root, "server:client")
    return Parties(root, server, client, Clock(), Playground())


@asynccontextmanager
async def served(
    family: Parties, limits: Limits | None = None, *, listen: str = "127.0.0.1:0"
) -> AsyncIterator[Server]:
    """Serve the family's playground."""
    async with serve(
        family.service, family.server, listen=[listen], limits=limits or Limits(), now=family.clock,
        drain_timeout=timedelta(seconds=0.05),
    ) as server:  # fmt: skip
        yield server


@asynccontextmanager
async def connected(family: Parties, limits: Limits | None = None) -> AsyncIterator[Client]:
    """Serve the family's playground and connect the family's client to it."""
    async with (
        served(family, limits) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):
        yield client


class Relaying(Service):
    """A service whose methods call on, while they serve a call."""

    def __init__(self) -> None:
        self.next: Client | None = None
        """The next server."""


@asynccontextmanager
async def relayed(family: Parties, relay: Relaying) -> AsyncIterator[Client]:
    """A client of the relay, which is a client of the family's server."""
    middle = await blessed(family.root, "server:middle")
    async with (
        served(family) as last,
        serve(relay, middle, listen=["127.0.0.1:0"]) as first,
        connect(f"/{last.addresses[0]}", middle, now=family.clock) as relay.next,
        connect(f"/(...)@{first.addresses[0]}", family.root) as client,
    ):
        yield client
