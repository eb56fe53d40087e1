"""A pool of connections for programs that run long: shared by all their calls, made again when they break.

    async with open_pool(principal) as pool:
        fortune = pool.client("/(root:fortuned)@fortune:2345")
        print(await fortune.call("Get"))

There is one connection for each address, pattern and principal, made when it is first needed and used by any number of calls
at once, for all objects of the server. Blessings need none of their own: an open connection shows the principal's new ones
before the next call. One that nobody uses is closed after a while; one that broke, or whose server drains, is replaced, and
calls that still run on a draining one end there.

What is tried again, with growing and random waits: connecting; calls that the server turned away before they ran; and calls
whose connection broke while they ran, if the method is idempotent. Whether it is, the caller says, or else the server's
`__signature`. A call that may have run, and may not run twice, fails with an error that says so. Streams are not tried
again once they have begun.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

import trio

from vanadium_node.rpc.intercepting import ClientInterceptor
from vanadium_node.rpc.naming import Name
from vanadium_node.rpc.pooled_client import PooledClient
from vanadium_node.rpc.pooled_connections import ConnectionPool, Options
from vanadium_node.rpc.retrying import Retrying
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import Validator
from vanadium_node.wire.limits import DEFAULT_LIMITS, Limits

MAX_CONNECTIONS: Final = 64
IDLE_TIMEOUT: Final = timedelta(minutes=5)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ClientPool:
    """Clients that share connections. Made by `open_pool`."""

    def __init__(self, principal: Principal | None, connections: ConnectionPool, retrying: Retrying) -> None:
        self._principal = principal
        self._connections = connections
        self._retrying = retrying

    @property
    def connections(self) -> int:
        """How many connections there are now, those included that drain."""
        return self._connections.connections

    def client(self, name: Name | str, *, principal: Principal | None = None) -> PooledClient:
        """Return a client of a server, as the pool's principal or another one. Nothing is connected yet.

        Raises InputError: the name is none.
        """
        server = Name.parse(name) if isinstance(name, str) else name
        return PooledClient(self._connections, self._retrying, server, principal or self._principal)


@asynccontextmanager
async def open_pool(
    principal: Principal | None,
    *,
    insecure: bool = False,
    retrying: Retrying | None = None,
    max_connections: int = MAX_CONNECTIONS,
    idle_timeout: timedelta = IDLE_TIMEOUT,
    limits: Limits = DEFAULT_LIMITS,
    validators: Mapping[int, Validator] = MappingProxyType({}),
    interceptors: Sequence[ClientInterceptor] = (),
    now: Callable[[], datetime] = _utc_now,
) -> AsyncIterator[ClientPool]:
    """Open a pool of at most `max_connections`; leaving the block closes them, and fails calls that still run."""
    options = Options(insecure=insecure, limits=limits, validators=validators, now=now, interceptors=interceptors)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        connections = ConnectionPool(options, max_connections, idle_timeout.total_seconds(), nursery)
        nursery.start_soon(connections.close_unused)
        try:
            yield ClientPool(principal, connections, retrying or Retrying())
        except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the caller's own error
            failure = error
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
