"""Everything a peer could otherwise make us hold, count or wait for, with the attack each limit answers."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

MAX_DEPTH: Final = 16
"""Nesting of a frame's CBOR. A megabyte of opening brackets must not become a tower of lists."""

MAX_CREDIT: Final = 1 << 31
"""Credit that a peer may pile up, in bytes; more is an overflow and breaks the protocol."""

STREAM_WINDOW_BYTES: Final = 1 << 20
"""Credit of a new stream in each direction: the unread items that its receiver holds at most. Part of the protocol, since
both ends count with it."""

CONNECTION_WINDOW_BYTES: Final = 4 << 20
"""Credit of a new connection in each direction, for all its streams together. Part of the protocol too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one connection. Each end chooses its own; none is negotiated."""

    max_frame_bytes: int = 1 << 20
    """One frame. A length prefix beyond it ends the connection before any of it is held."""

    max_auth_bytes: int = 1 << 17
    """One frame before the peer is authenticated: 64 KiB of blessings, discharges, a signature. Strangers get no more."""

    max_streams: int = 1024
    """Calls that the peer may have open at once on one connection; one more is answered `overloaded`."""

    max_calls_per_peer: int = 4096
    """Calls that one public key, or one user of the machine, may have running on all its connections to a server; one more is
    answered `overloaded`. Connections cost a peer little, so a limit for each of them is none for the peer."""

    max_request_bytes: int = 16 << 20
    """Requests of one connection being worked on, in bytes together; one more is answered `overloaded`."""

    max_queued_bytes: int = 4 << 20
    """Bytes waiting for a peer that does not read. Beyond it, nothing more is read from that peer either."""

    max_pings: int = 16
    """Pings answered in one batch of frames; a flood of them is a fault."""

    handshake_timeout: timedelta = timedelta(seconds=10)
    """From accepting the connection to the peer's `auth`; a slow loris is cut off after it."""

    idle_timeout: timedelta = timedelta(minutes=5)
    """Silence after which a connection is asked for a sign of life; as long again without one, and it is closed."""

    max_connections: int = 4096
    """Connections of one server; the idlest one makes room for one more."""

    max_connections_per_peer: int = 1024
    """Connections that one public key, or one user of the machine, may have to a server, and never more than three quarters of
    `max_connections`. Busy connections are not closed for others, so a peer that had them all would keep everybody out."""

    max_unauthenticated: int = 512
    """Connections of one server that have not authenticated yet. Further ones wait, and the silent ones that they wait for are
    closed after a tenth of the handshake's time."""

    max_waiting: int = 16384
    """Connections of one server that wait for a place among those, with nothing of them read yet. When there are so many, the
    one that has been silent longest is closed for the next; where none is silent, others wait in the system's queue."""


DEFAULT_LIMITS: Final = Limits()
