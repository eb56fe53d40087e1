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


Event: TypeAlias = Auth | Request | Response | ReceivedItem | End | Cancel | Credit | Pong | Goaway | Failed
"""What `receive` reports: frames as they are, where they are right, and the two above."""


class ConnectionState(Enum):
    """How far a connection is, once it can carry frames."""

    ACTIVE = auto()
    DRAINING = auto()
    """One end takes no new calls; the running ones finish."""
    FAILED = auto()


class ConnectionEvent(Enum):
    """What changes a connection as a whole."""

    GOAWAY = auto()
    """Sent or received."""
    FAULT = auto()


TRANSITIONS: Final[Mapping[tuple[ConnectionState, ConnectionEvent], ConnectionState]] = MappingProxyType(
    {
        (ConnectionState.ACTIVE, ConnectionEvent.GOAWAY): ConnectionState.DRAINING,
        (ConnectionState.ACTIVE, ConnectionEvent.FAULT): ConnectionState.FAILED,
        (ConnectionState.DRAINING, ConnectionEvent.GOAWAY): ConnectionState.DRAINING,
        (ConnectionState.DRAINING, ConnectionEvent.FAULT): ConnectionState.FAILED,
    }
)
"""FAILED has no row: nothing leads out of it, and bytes that still come in are not looked at."""
