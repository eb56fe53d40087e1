"""What a daemon says of itself over HTTP, and the loading of what that needs: nothing of it is in memory where none is wanted.

GET /livez      200 while the event loop turns; nothing else is looked at, since a restart would mend nothing else
GET /readyz     200, with what may end that a line, or 503 with a reason a line
GET /metrics    Prometheus' text format: `vanadium_rpc_…` of the daemon's server, `vanadium_ready`, and of the process
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from vanadium_node.rpc.observing import Observer

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class Health:
    """How a daemon is. `not_ready` returns why it is not, a sentence each; none when it is."""

    not_ready: Callable[[], Sequence[str]] = lambda: ("it is starting",)
    worries: Callable[[], Sequence[str]] = tuple
    """Returns what will keep it from being ready if it lasts, a sentence each. A restart or less traffic would not help."""
    observers: Sequence[Observer] = ()
    """To be given to the daemon's server, so that its calls are counted."""
    addresses: tuple[str, ...] = ()
    """Where it can be asked, `host:port` or `unix:/path`; empty: nowhere."""
    gauges: dict[str, tuple[str, Callable[[], float]]] = field(default_factory=dict)
    """More to be measured: name → what it is, and its value when somebody asks."""


@asynccontextmanager
async def health_endpoint(listen: str | None) -> AsyncIterator[Health]:
    """Serve what the yielded object says, on `host:port` or `unix:/path`; None: nowhere, and at no cost.

    Raises:
        ConfigurationError, StorageError: it cannot be listened on.
    """
    if listen is None:
        yield Health()
        return
    from vanadium_node.health.http import listen_for_health, serve_health, written
    from vanadium_node.health.pages import Pages

    listeners = await listen_for_health(listen)
    health = Health(addresses=tuple(map(written, listeners)))
    _log.info("health and metrics at %s", ", ".join(health.addresses))
    pages = Pages(health)
    health.observers = (pages.rpc,)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_health, listeners, pages)
        try:
            yield health
        except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the daemon's own error
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
