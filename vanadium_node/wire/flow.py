"""Credit for items: how much the other end may send before we have read what it sent, and the other way round.

An item may be sent while credit is above zero, so it overdraws by one frame at most; the receiver allows for that.
"""

from __future__ import annotations

from vanadium_node.errors import ProtocolError
from vanadium_node.wire.limits import CONNECTION_WINDOW_BYTES, MAX_CREDIT, STREAM_WINDOW_BYTES
from vanadium_node.wire.stream import Stream


class Flow:
    """The credit of a connection, and what it has in common with that of its streams."""

    __slots__ = ("_max_frame_bytes", "credit", "unreturned", "used")

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self.credit = CONNECTION_WINDOW_BYTES
        self.used = 0
        self.unreturned = 0

    def may_send(self, stream: Stream) -> bool:
        """Tell whether an item may be sent on the stream now."""
        return stream.credit > 0 and self.credit > 0

    def sent(self, stream: Stream, size: int) -> None:
        """Spend credit on an item that is being sent."""
        stream.credit -= size
        self.credit -= size

    def granted(self, target: Stream | Flow, size: int) -> None:
        """Take credit from the peer. Raises ProtocolError when it grants more than anybody could use."""
        if size == 0 or target.credit + size > MAX_CREDIT:
            raise ProtocolError(f"the peer granted {size} bytes of credit to {target.credit}: none, or an overflow")
        target.credit += size

    def received(self, stream: Stream | None, size: int) -> None:
        """Count an item that came in; None for a stream that is closed. Raises ProtocolError when credit is exceeded."""
        self.used += size
        if self.used > CONNECTION_WINDOW_BYTES + self._max_frame_bytes:
            raise ProtocolError("the peer sent more items than the connection's credit allows")
        if stream is not None:
            stream.used += size
            if stream.used > STREAM_WINDOW_BYTES + self._max_frame_bytes:
                raise ProtocolError("the peer sent more items than its stream's credit allows")

    def read_from_stream(self, stream: Stream, size: int) -> int:
        """Count an item of the stream as read, and return the credit to give back now: 0, or half a window at least."""
        stream.unreturned += size
        if stream.unreturned * 2 < STREAM_WINDOW_BYTES:
            return 0
        returned, stream.unreturned = stream.unreturned, 0
        stream.used -= returned
        return returned

    def read_from_connection(self, size: int) -> int:
        """Count an item of any stream as read, and return the credit to give back now."""
        self.unreturned += size
        if self.unreturned * 2 < CONNECTION_WINDOW_BYTES:
            return 0
        returned, self.unreturned = self.unreturned, 0
        self.used -= returned
        return returned
