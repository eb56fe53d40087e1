"""Calls over a pool's connections, tried again where that does no harm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import trio

from vanadium_node.errors import CallError, UnreachableError, VanadiumError
from vanadium_node.rpc.call_stream import CallStream
from vanadium_node.rpc.client import DEFAULT_TIMEOUT, Client
from vanadium_node.rpc.naming import Name
from vanadium_node.rpc.pooled_connections import ConnectionPool, Slot
from vanadium_node.rpc.reserved import InterfaceSignature
from vanadium_node.rpc.retrying import Attempts, Retrying, deadline_of, is_turned_away
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.principal import Principal


class PooledClient:
    """A server that can be called at any time, whether there is a connection or not."""

    def __init__(self, pool: ConnectionPool, retrying: Retrying, name: Name, principal: Principal | None) -> None:
        self.name = name
        self._pool = pool
        self._retrying = retrying
        self._principal = principal

    async def call(
        self,
        method: str,
        *arguments: object,
        returns: Any = object,
        granted: Blessings | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        trace_id: str = "",
        idempotent: bool | None = None,
    ) -> Any:
        """Call a method as `Client.call` does, connecting and trying again where that does no harm.

        `timeout` is for all attempts together. `idempotent` says whether the method may run twice; None: ask the server when
        it matters.

        Raises:
            CallError: the method's error, `timeout`, or `overloaded` after all attempts.
            UnreachableError: no connection, or it broke while a method ran that may not run twice.
            NotTrustedError: the server is not who it must be.
        """
        deadline = deadline_of(timeout)
        attempts = Attempts(self._retrying, f"{method} of {self.name}", deadline)
        lost: UnreachableError | None = None
        while True:
            used: Client | None = None
            try:
                async with self._pool.using(self.name, self._principal, deadline) as (slot, client):
                    if lost is not None and idempotent is None:
                        idempotent = await self._is_idempotent(slot, client, method, deadline)
                    if lost is not None and not idempotent:
                        raise _may_have_run(method, lost)
                    used = client
                    return await client.call(
                        method,
                        *arguments,
                        returns=returns,
                        granted=granted,
                        timeout=None if deadline == inf else deadline - trio.current_time(),
                        trace_id=trace_id,
                        suffix=self.name.suffix,
                    )
            except UnreachableError as error:
                if isinstance(error, _MayHaveRun):
                    raise
                if used is not None and not used.is_open:
                    lost = error
                    if idempotent is False:
                        raise _may_have_run(method, error) from error
                await attempts.failed(error)
            except CallError as error:
                if not is_turned_away(error):
                    raise
                await attempts.failed(error)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        *arguments: object,
        returns: Any = object,
        result: Any = object,
        granted: Blessings | None = None,
        timeout: float | None = None,
        has_items: bool = False,
    ) -> AsyncIterator[CallStream[Any]]:
        """Call a method that streams, as `Client.stream` does; only connecting is tried again."""
        deadline = deadline_of(timeout)
        attempts = Attempts(self._retrying, f"{method} of {self.name}", deadline)
        while True:
            is_begun = False
            try:
                async with self._pool.using(self.name, self._principal, deadline) as (_slot, client):
                    remaining = None if deadline == inf else deadline - trio.current_time()
                    is_begun = True
                    async with client.stream(
                        method,
                        *arguments,
                        returns=returns,
                        result=result,
                        granted=granted,
                        timeout=remaining,
                        has_items=has_items,
                        suffix=self.name.suffix,
                    ) as items:
                        yield items
                    return
            except (UnreachableError, CallError) as error:
                if is_begun or (isinstance(error, CallError) and not is_turned_away(error)):
                    raise
                await attempts.failed(error)

    async def _is_idempotent(self, slot: Slot, client: Client, method: str, deadline: float) -> bool:
        """Ask the server whether a method may run twice; where it does not say, it may not."""
        suffix = self.name.suffix
        if suffix not in slot.idempotent:
            timeout = None if deadline == inf else deadline - trio.current_time()
            try:
                interfaces = await client.call(
                    "__signature", returns=list[InterfaceSignature], timeout=timeout, suffix=suffix
                )
            except UnreachableError:
                raise
            except VanadiumError:
                return False
            methods = (each for interface in interfaces for each in interface.methods)
            slot.idempotent[suffix] = frozenset(each.name for each in methods if each.idempotent)
        return method in slot.idempotent[suffix]


class _MayHaveRun(UnreachableError):
    """The connection broke while a method ran that may not run twice."""


def _may_have_run(method: str, lost: UnreachableError) -> _MayHaveRun:
    return _MayHaveRun(
        f"{lost.message} while {method} ran; it may have run, and was not tried again",
        hint=f"look before you repeat it, or say idempotent=True if {method} may run twice",
    )
