"""A gate between clients and a server, on real sockets: it can cut connections, go silent, close, and lead elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Gate:
    """Forwards bytes both ways to `target`, `host:port`, as long as it is open and not silent."""

    def __init__(self, target: str, listener: trio.SocketListener) -> None:
        self.target = target
        self.accepted = 0
        """Connections that came so far."""
        self.is_closed = False
        """Whether new connections are cut at once."""
        self._scopes: dict[trio.CancelScope, None] = {}
        self._silent: set[trio.CancelScope] = set()
        host, port = listener.socket.getsockname()[:2]
        self.address = f"{host}:{port}"

    @property
    def connections(self) -> int:
        """Connections that go through now."""
        return len(self._scopes)

    def cut(self) -> None:
        """Cut all connections, as a machine that loses power."""
        for scope in self._scopes:
            scope.cancel()

    def silence(self) -> None:
        """Forward nothing any more on the connections there are, and say nothing: they are half open."""
        self._silent.update(self._scopes)

    async def serve(self, near: trio.SocketStream) -> None:
        """Carry one connection."""
        self.accepted += 1
        with trio.CancelScope() as scope:
            async with near:
                if self.is_closed:
                    return
                host, _, port = self.target.rpartition(":")
                try:
                    far = await trio.open_tcp_stream(host, int(port))
                except OSError:
                    return
                self._scopes[scope] = None
                try:
                    async with far, trio.open_nursery() as nursery:
                        nursery.start_soon(self._carry, near, far, scope)
                        nursery.start_soon(self._carry, far, near, scope)
                finally:
                    del self._scopes[scope]
                    self._silent.discard(scope)

    async def _carry(self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in source:
                if scope not in self._silent:
                    await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def gate_to(target: str) -> AsyncIterator[Gate]:
    """Open a gate on 127.0.0.1 that leads to `target`."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    gate = Gate(target, listener)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, gate.serve, [listener])
        yield gate
        nursery.cancel_scope.cancel()
