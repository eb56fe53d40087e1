"""A call that streams, as its caller holds it; and what an answer says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar, cast

import trio

from vanadium_node.errors import VanadiumError
from vanadium_node.rpc.failures import call_error
from vanadium_node.rpc.inbox import Inbox
from vanadium_node.rpc.types import codec_of, from_wire, to_wire
from vanadium_node.wire.frames import Response, Wire

T = TypeVar("T")


class Sender(Protocol):
    """Whoever can send on a stream: the client that opened it."""

    async def send_item(self, number: int, value: Wire) -> bool:
        """Send an item when there is credit; tell whether the stream was still open."""

    def send_end(self, number: int) -> None:
        """Say that no more items follow."""


class CallStream(AsyncIterator[T]):
    """A call whose method streams. Iterate to receive; `send` and `end` for methods that receive; then `result`."""

    def __init__(self, client: Sender, number: int, method: str, inbox: Inbox, returns: Any) -> None:
        self.inbox = inbox
        self._client = client
        self._number = number
        self._method = method
        self._returns = returns
        self._response: Response | None = None
        self._error: VanadiumError | None = None
        self._over = trio.Event()

    def __aiter__(self) -> CallStream[T]:
        return self

    async def __anext__(self) -> T:
        """Return the next item, checked. Raises the method's error at the end, if it is one."""
        return cast("T", await anext(self.inbox))

    async def send(self, item: object) -> None:
        """Send an item when there is credit. An item for a method that has answered already is dropped."""
        if not await self._client.send_item(self._number, to_wire(item)) and self._error is not None:
            raise self._error

    def end(self) -> None:
        """Send no more items."""
        self._client.send_end(self._number)

    async def result(self) -> Any:
        """End the sending, and return the method's result, checked. Raises as `Client.call` does."""
        self.end()
        return await self.outcome()

    async def outcome(self) -> Any:
        """Return the method's result, checked, while another task may still send. Raises as `Client.call` does."""
        await self._over.wait()
        if self._error is not None:
            raise self._error
        if self._response is None:
            raise RuntimeError("a stream that is over has neither response nor error")
        return from_wire(codec_of(self._returns), self._response.result, f"the result of {self._method}")

    def respond(self, response: Response) -> None:
        """Take the answer."""
        self._response = response
        if response.error is not None:
            self.fail(call_error(response.error))
        else:
            self.inbox.end()
            self._over.set()

    def fail(self, error: VanadiumError) -> None:
        """End with an error."""
        self._error = self._error or error
        self.inbox.end(error)
        self._over.set()
