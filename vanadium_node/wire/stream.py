"""One call on a connection, as both ends see it: a request, items both ways, the caller's end, the callee's response."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final


class StreamState(Enum):
    """How far a call is."""

    IDLE = auto()
    """Not called yet: the number is still to be used."""
    OPEN = auto()
    """Both ends may send items."""
    ENDED = auto()
    """The caller has sent its last item, or none was to come; the callee may still send some."""
    CLOSED = auto()
    """Answered or cancelled, or passed over. It is forgotten: what is not open is told from IDLE by its number alone."""


class StreamEvent(Enum):
    """What can happen to a call, whoever looks at it: a frame that one end sends and the other receives."""

    REQUEST = auto()
    """A call without items of the caller's."""
    REQUEST_WITH_ITEMS = auto()
    CALLER_ITEM = auto()
    CALLEE_ITEM = auto()
    END = auto()
    RESPONSE = auto()
    CANCEL = auto()
    CREDIT = auto()
    """In either direction."""


_OPEN, _ENDED, _CLOSED = StreamState.OPEN, StreamState.ENDED, StreamState.CLOSED

_TABLE: Final[Mapping[StreamState, tuple[StreamState | None, ...]]] = {
    # event:            REQUEST …_WITH_ITEMS CALLER_ITEM CALLEE_ITEM END      RESPONSE CANCEL   CREDIT
    StreamState.IDLE:   (_ENDED, _OPEN,      None,       None,       None,    None,    None,    None),
    StreamState.OPEN:   (None,   None,       _OPEN,      _OPEN,      _ENDED,  _CLOSED, _CLOSED, _OPEN),
    StreamState.ENDED:  (None,   None,       None,       _ENDED,     None,    _CLOSED, _CLOSED, _ENDED),
    StreamState.CLOSED: (None,   None,       _CLOSED,    _CLOSED,    _CLOSED, _CLOSED, _CLOSED, _CLOSED),
}  # fmt: skip

TRANSITIONS: Final[Mapping[tuple[StreamState, StreamEvent], StreamState | None]] = MappingProxyType(
    {(state, event): to for state, row in _TABLE.items() for event, to in zip(StreamEvent, row, strict=True)}
)
"""Where each event leads in each state; None: it breaks the protocol.

Nothing breaks a CLOSED stream but calling it again, since a cancel and what it crosses meet there: the frame is dropped.
"""


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
