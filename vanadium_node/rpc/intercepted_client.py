"""A client whose calls are surrounded by interceptors. Clients without any are plain ones, and pay nothing for these."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from vanadium_node.rpc.call_stream import CallStream
from vanadium_node.rpc.client import Client
from vanadium_node.rpc.intercepting import ClientInterceptor, OutgoingCall, surrounded


class InterceptedClient(Client):
    """A client that enters its interceptors, the first one outermost, around each call and stream."""

    interceptors: tuple[ClientInterceptor, ...] = ()

    async def call(self, method: str, *arguments: object, **options: Any) -> Any:
        """Call a method as `Client.call` does, surrounded."""
        async with surrounded(self.interceptors, self._outgoing(method, is_stream=False)):
            return await super().call(method, *arguments, **options)

    @asynccontextmanager
    async def stream(self, method: str, *arguments: object, **options: Any) -> AsyncIterator[CallStream[Any]]:
        """Call a method that streams as `Client.stream` does, surrounded until its block is left."""
        async with (
            surrounded(self.interceptors, self._outgoing(method, is_stream=True)),
            super().stream(method, *arguments, **options) as items,
        ):
            yield items

    def _outgoing(self, method: str, *, is_stream: bool) -> OutgoingCall:
        return OutgoingCall(name=self.name, server=self.server, method=method, is_stream=is_stream)
