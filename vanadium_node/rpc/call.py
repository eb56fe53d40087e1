"""What a method knows about the call it serves, and what either end knows about the other."""

from __future__ import annotations

from dataclasses import dataclass

from vanadium_node.rpc.tracing import TraceContext
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.validation import Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """The other end: which of its names count for a call, and what else is known of it.

    Over TCP it has proved `public_key`; on a unix socket the system names its user instead.
    """

    names: tuple[str, ...] = ()
    """Names that count: recognized roots, and every caveat holds."""
    rejected: tuple[Rejected, ...] = ()
    """Names that were presented and do not count, with the reasons."""
    public_key: PublicKey | None = None
    blessings: Blessings | None = None
    address: str = ""
    """`ip:port`; empty on unix sockets."""
    uid: int | None = None
    gids: tuple[int, ...] = ()
    """Groups of a user at the other end of a unix socket, its own first."""

    @property
    def presented(self) -> tuple[str, ...]:
        """All names it presented, in its order, whether they count or not."""
        return () if self.blessings is None else self.blessings.names

    def __str__(self) -> str:
        if self.uid is not None:
            return f"user {self.uid}"
        return ",".join(self.presented) or "nobody"


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, as its method sees it. It is made for every call, so it is not frozen, which would double its cost."""

    peer: PeerIdentity
    method: str
    suffix: str
    tags: frozenset[str]
    local_names: tuple[str, ...]
    """Names under which this server showed itself to the peer."""
    deadline: float
    """Time of trio's clock after which nobody waits for the answer; infinite where the caller set none."""
    granted: Blessings | None
    """Blessings that the caller gives to this server with the call; they are bound to the server's key."""
    trace_id: str
    """The caller's `traceparent` as it came; empty where it sent none."""

    @property
    def trace(self) -> TraceContext | None:
        """The W3C trace that the call belongs to, if any. Calls made while it is served continue it by themselves."""
        return TraceContext.parse(self.trace_id) if self.trace_id else None
