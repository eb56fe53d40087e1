"""What a connection reports of the peer's bytes, and how far it is itself."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from vanadium_node.wire.frames import Auth, Cancel, Credit, End, Goaway, Pong, Request, Response, Wire


class ReceivedItem(NamedTuple):
    """An item; `size` is to be given back with `item_read` when somebody has read it."""

    stream: int
    value: Wire
    size: int


class Failed(NamedTuple):
    """The peer broke the protocol; the connection is over, and a goaway with the reason is in `outgoing`."""

    reason: str


class Refused(NamedTuple):
    """A request beyond a limit, or at an end that drains: it has been answered `overloaded` already."""

    request: Request
    reason: str


Event: TypeAlias = Auth | Request | Response | ReceivedItem | End | Cancel | Credit | Pong | Goaway | Failed | Refused
"""What `receive` reports: frames as they are, where they are right, and the three above."""


class ConnectionState(Enum):
    """How far a connection is, once it can carry frames."""

    ACTIVE = auto()
    DRAINING = auto()
    """One end takes no new calls; the running ones finish."""
    FAILED = auto()
    """The peer broke the protocol: bytes that still come are not looked at, and no stream is left to send on."""


class ConnectionEvent(Enum):
    """What changes a connection as a whole, or depends on how far it is."""

    SENT_REQUEST = auto()
    RECEIVED_REQUEST = auto()
    GOAWAY = auto()
    """Sent or received."""
    FAULT = auto()


_ACTIVE, _DRAINING, _FAILED = ConnectionState

_TABLE: Final[Mapping[ConnectionState, tuple[ConnectionState | None, ...]]] = {
    # event:                  SENT_REQUEST RECEIVED_REQUEST GOAWAY     FAULT
    ConnectionState.ACTIVE:   (_ACTIVE,    _ACTIVE,         _DRAINING, _FAILED),
    ConnectionState.DRAINING: (None,       _DRAINING,       _DRAINING, _FAILED),
    ConnectionState.FAILED:   (None,       _FAILED,         _FAILED,   _FAILED),
}  # fmt: skip

TRANSITIONS: Final[Mapping[tuple[ConnectionState, ConnectionEvent], ConnectionState | None]] = MappingProxyType(
    {(state, event): to for state, row in _TABLE.items() for event, to in zip(ConnectionEvent, row, strict=True)}
)
"""Where each event leads in each state; None: our own caller's mistake. A request received while DRAINING is answered
`overloaded`, since it may have crossed the goaway."""
