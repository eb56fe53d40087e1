"""The calls of one connection that are open, by the numbers of their streams.

Streams opened by the client are odd, by the server even, and their numbers only grow: one that is not open was once, or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vanadium_node.errors import ProtocolError
from vanadium_node.wire.frames import Request
from vanadium_node.wire.handshake import Role
from vanadium_node.wire.limits import STREAM_WINDOW_BYTES
from vanadium_node.wire.stream import Stream, StreamState

_OWN_PARITY: Final[Mapping[Role, int]] = MappingProxyType({Role.CLIENT: 1, Role.SERVER: 0})


class StreamTable:
    """The open calls that this end made, and those that the peer made."""

    __slots__ = ("_last_own", "_last_peers", "_parity", "incoming", "own", "request_bytes")

    def __init__(self, role: Role) -> None:
        self.own: dict[int, Stream] = {}
        """Calls that this end made."""
        self.incoming: dict[int, Stream] = {}
        """Calls that the peer made."""
        self.request_bytes = 0
        """What the requests of those are, together."""
        self._parity = _OWN_PARITY[role]
        self._last_own = -1 if self._parity else 0
        self._last_peers = 0 if self._parity else -1

    @property
    def next_own(self) -> int:
        """The number of the next call that this end makes."""
        return self._last_own + 2

    def open_own(self, *, has_items: bool) -> None:
        """Take note that this end has made that call."""
        self._last_own = number = self._last_own + 2
        self.own[number] = Stream(StreamState.OPEN if has_items else StreamState.ENDED, STREAM_WINDOW_BYTES, 0)

    def open_incoming(self, request: Request, size: int) -> None:
        """Take a call of the peer's. Raises ProtocolError for a stream that is not the peer's, or not new."""
        number = request.stream
        if number & 1 == self._parity or number <= self._last_peers:
            raise ProtocolError(f"the peer opened stream {number}, which is not its next one")
        self._last_peers = number
        self.request_bytes += size
        state = StreamState.OPEN if request.has_items else StreamState.ENDED
        self.incoming[number] = Stream(state, STREAM_WINDOW_BYTES, size)

    def close_incoming(self, number: int) -> bool:
        """Forget a call of the peer's, which is answered or cancelled; tell whether it was open."""
        stream = self.incoming.pop(number, None)
        if stream is None:
            return False
        self.request_bytes -= stream.request_bytes
        return True

    def find(self, number: int) -> Stream | None:
        """Return an open stream, whoever opened it."""
        return (self.own if number & 1 == self._parity else self.incoming).get(number)

    def of_peer(self, number: int) -> Stream | None:
        """Return the open stream of a frame that only a caller sends; None for a closed one. Raises ProtocolError."""
        stream = self.incoming.get(number)
        if stream is None and (number & 1 == self._parity or not self.was_open(number)):
            raise ProtocolError(f"the peer ended or cancelled stream {number}, which it never opened")
        return stream

    def was_own(self, number: int) -> bool:
        """Tell whether this end once opened a stream that is not open now."""
        return number & 1 == self._parity and self.was_open(number)

    def was_open(self, number: int) -> bool:
        """Tell whether a stream that is not open now once was."""
        return 0 < number <= (self._last_own if number & 1 == self._parity else self._last_peers)
