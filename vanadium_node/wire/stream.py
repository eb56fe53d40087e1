"""One call on a connection, as both ends see it: a request, items both ways, the caller's end, the callee's response."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final


class StreamState(Enum):
    """How far a call is."""

    OPEN = auto()
    """Both ends may send items."""
    ENDED = auto()
    """The caller has sent its last item; the callee may still send some."""
    CLOSED = auto()
    """Answered or cancelled; frames that were on their way are dropped."""


class StreamEvent(Enum):
    """What can happen to a call after its request, whoever looks at it."""

    CALLER_ITEM = auto()
    CALLEE_ITEM = auto()
    END = auto()
    RESPONSE = auto()
    CANCEL = auto()


TRANSITIONS: Final[Mapping[tuple[StreamState, StreamEvent], StreamState]] = MappingProxyType(
    {
        (StreamState.OPEN, StreamEvent.CALLER_ITEM): StreamState.OPEN,
        (StreamState.OPEN, StreamEvent.CALLEE_ITEM): StreamState.OPEN,
        (StreamState.OPEN, StreamEvent.END): StreamState.ENDED,
        (StreamState.OPEN, StreamEvent.RESPONSE): StreamState.CLOSED,
        (StreamState.OPEN, StreamEvent.CANCEL): StreamState.CLOSED,
        (StreamState.ENDED, StreamEvent.CALLEE_ITEM): StreamState.ENDED,
        (StreamState.ENDED, StreamEvent.RESPONSE): StreamState.CLOSED,
        (StreamState.ENDED, StreamEvent.CANCEL): StreamState.CLOSED,
    }
)
"""What is not here breaks the protocol, such as an item after the end. A CLOSED stream is forgotten and has no row."""


class Stream:
    """The state of one call, and the credit for its items."""

    __slots__ = ("credit", "request_bytes", "state", "unreturned", "used")

    def __init__(self, state: StreamState, credit: int, request_bytes: int) -> None:
        self.state = state
        self.credit = credit
        """Bytes of items that we may still send; may be overdrawn by one frame."""
        self.used = 0
        """Bytes of items received for which no credit has been returned."""
        self.unreturned = 0
        """Those of `used` that have been read, and whose credit is still to be returned."""
        self.request_bytes = request_bytes
