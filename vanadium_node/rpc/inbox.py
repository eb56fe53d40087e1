"""Items of a stream on their way from the connection to whoever reads them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import trio

from vanadium_node.errors import VanadiumError
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.types import Codec, from_wire
from vanadium_node.wire.events import ReceivedItem


class Inbox(AsyncIterator[Any]):
    """The items that the peer sent on one stream, in order; reading one gives the peer credit for more."""

    __slots__ = ("_codec", "_error", "_is_ended", "_items", "_link", "_readers")

    def __init__(self, link: Link, codec: Codec) -> None:
        self._link = link
        self._codec = codec
        self._items: deque[ReceivedItem] = deque()
        self._is_ended = False
        self._error: VanadiumError | None = None
        self._readers = trio.lowlevel.ParkingLot()

    def put(self, item: ReceivedItem) -> None:
        """Take an item from the connection; flow control bounds how many wait here."""
        self._items.append(item)
        self._readers.unpark()

    def end(self, error: VanadiumError | None = None) -> None:
        """Take note that no more items come; a reader gets what is there, then the end or the error."""
        if not self._is_ended:
            self._is_ended, self._error = True, error
            self._readers.unpark_all()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Any:
        """Return the next item. Raises DecodeError for one of a wrong type, and what ended the stream."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                raise StopAsyncIteration
            await self._readers.park()
        item = self._items.popleft()
        connection = self._link.connection
        connection.item_read(item.stream, item.size)
        if connection.outgoing:
            self._link.wake()
        return from_wire(self._codec, item.value, "an item of the stream")

    def discard(self) -> None:
        """Give back the credit of what nobody will read."""
        while self._items:
            item = self._items.popleft()
            self._link.connection.item_read(item.stream, item.size)
