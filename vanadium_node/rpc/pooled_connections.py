"""The connections of a pool: one for each address, pattern and principal, made when it is needed, shared, closed when idle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

import trio

from vanadium_node.errors import CallError, UnreachableError
from vanadium_node.rpc.client import Client
from vanadium_node.rpc.connecting import connect
from vanadium_node.rpc.intercepting import ClientInterceptor
from vanadium_node.rpc.naming import Address, Name
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import Validator
from vanadium_node.wire.limits import Limits

CONNECT_SECONDS: Final = 10.0
"""For one attempt to connect, unless the call must be over earlier."""

Key: TypeAlias = tuple[Address, Pattern | None, Principal | None]


@dataclass(slots=True, eq=False)
class Pooled:
    """A connection, and who uses it."""

    client: Client
    uses: int = 0
    last_used: float = 0.0
    may_close: trio.Event = field(default_factory=trio.Event)


@dataclass(slots=True, eq=False)
class Slot:
    """The place of one server's connection; `lock` lets one task at a time connect."""

    pooled: Pooled | None = None
    lock: trio.Lock = field(default_factory=trio.Lock)
    waiting: int = 0
    failures: int = 0
    failure: UnreachableError | CallError = field(default_factory=lambda: UnreachableError("nothing was tried"))
    """The last failure to connect."""
    idempotent: dict[str, frozenset[str]] = field(default_factory=dict)
    """Object → its methods that may run twice, for the objects that were asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a pool was opened with."""

    insecure: bool
    limits: Limits
    validators: Mapping[int, Validator]
    now: Callable[[], datetime]
    interceptors: Sequence[ClientInterceptor]


def _copy(error: UnreachableError | CallError) -> UnreachableError | CallError:
    """Return the same error anew: one that many tasks raise would collect all their tracebacks."""
    if isinstance(error, CallError):
        return CallError(error.code, error.message, fields=error.fields, hint=error.hint)
    return UnreachableError(error.message, hint=error.hint)


class ConnectionPool:
    """Connections by server and principal, made and closed as `using` asks for them."""

    def __init__(self, options: Options, max_connections: int, idle_seconds: float, nursery: trio.Nursery) -> None:
        self._options = options
        self._max_connections = max_connections
        self._idle_seconds = idle_seconds
        self._nursery = nursery
        self._slots: dict[Key, Slot] = {}
        self._open: dict[Pooled, None] = {}
        self._connecting = 0
        self._became_idle = trio.lowlevel.ParkingLot()

    @property
    def connections(self) -> int:
        """How many connections there are now, those included that drain."""
        return len(self._open)

    @asynccontextmanager
    async def using(
        self, name: Name, principal: Principal | None, deadline: float
    ) -> AsyncIterator[tuple[Slot, Client]]:
        """Use the connection to a server, made now where there is none that works. Raises as `connect` does."""
        key = (name.address, name.pattern, principal)
        slot = self._slots.setdefault(key, Slot())
        with self._waiting_at(key, slot):
            pooled = None
            with trio.move_on_at(deadline):
                while (pooled := self._working(slot)) is None:
                    await self._connect_once(slot, name, principal, deadline)
                pooled.uses += 1
            if pooled is None:
                raise UnreachableError(f"no connection to {name} in time", hint="is the server overloaded, or away?")
        try:
            yield slot, pooled.client
        finally:
            pooled.uses -= 1
            pooled.last_used = trio.current_time()
            if not pooled.uses:
                self._became_idle.unpark()
                if not pooled.client.is_open:
                    pooled.may_close.set()

    @contextmanager
    def _waiting_at(self, key: Key, slot: Slot) -> Iterator[None]:
        """Keep a slot in the table as long as somebody waits at it; an empty one goes, so that the table stays small."""
        slot.waiting += 1
        try:
            yield
        finally:
            slot.waiting -= 1
            if slot.pooled is None and not slot.waiting and self._slots.get(key) is slot:
                del self._slots[key]

    def _working(self, slot: Slot) -> Pooled | None:
        """Return the connection of a slot, if calls can still be made on it; else forget it."""
        pooled = slot.pooled
        if pooled is not None and not pooled.client.is_open:
            slot.pooled, pooled = None, None
            slot.idempotent.clear()
        return pooled

    async def _connect_once(self, slot: Slot, name: Name, principal: Principal | None, deadline: float) -> None:
        """Connect, or wait until somebody else has tried; his failure is that of all who waited for him."""
        failures = slot.failures
        async with slot.lock:
            if slot.failures != failures:
                raise _copy(slot.failure)
            if self._working(slot) is None:
                try:
                    await self._connect(slot, name, principal, deadline)
                except (UnreachableError, CallError) as error:
                    slot.failures, slot.failure = slot.failures + 1, error
                    raise

    async def _connect(self, slot: Slot, name: Name, principal: Principal | None, deadline: float) -> None:
        await self._make_room()
        self._connecting += 1
        try:
            seconds = max(0.0, min(CONNECT_SECONDS, deadline - trio.current_time()))
            server = Name(address=name.address, pattern=name.pattern)
            slot.pooled = await self._nursery.start(self._hold, server, principal, seconds)
        finally:
            self._connecting -= 1
            self._became_idle.unpark()  # where it failed there is room now

    async def _make_room(self) -> None:
        """Close the connection that was not used for longest when there are too many; wait while all are in use."""
        while len(self._open) + self._connecting >= self._max_connections:
            idle = [pooled for pooled in self._open if not pooled.uses]
            if not idle:
                await self._became_idle.park()
                continue
            oldest = min(idle, key=lambda each: each.last_used)
            oldest.client.close()
            self._retire(oldest)
            await trio.lowlevel.checkpoint()

    async def _hold(
        self,
        name: Name,
        principal: Principal | None,
        seconds: float,
        *,
        task_status: trio.TaskStatus[Pooled],
    ) -> None:
        """Keep one connection open until it may be closed."""
        options = self._options
        async with connect(
            name,
            principal,
            insecure=options.insecure,
            timeout=seconds,
            limits=options.limits,
            validators=options.validators,
            now=options.now,
            interceptors=options.interceptors,
        ) as client:
            pooled = Pooled(client, last_used=trio.current_time())
            self._open[pooled] = None
            try:
                task_status.started(pooled)
                await pooled.may_close.wait()
            finally:
                self._open.pop(pooled, None)
                self._became_idle.unpark()

    def _retire(self, pooled: Pooled) -> None:
        self._open.pop(pooled, None)
        pooled.may_close.set()

    async def close_unused(self) -> None:
        """Close connections that nobody uses: broken and draining ones soon, others after the idle time. Until cancelled."""
        while True:
            await trio.sleep(min(1.0, self._idle_seconds / 2))
            now = trio.current_time()
            for pooled in tuple(self._open):
                is_old = now - pooled.last_used > self._idle_seconds
                if not pooled.uses and (is_old or not pooled.client.is_open):
                    pooled.client.close()
                    self._retire(pooled)
            for key, slot in tuple(self._slots.items()):
                if self._working(slot) is None and not slot.waiting:
                    del self._slots[key]
