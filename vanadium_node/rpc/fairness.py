"""Who gives way when there are too many connections: the idle ones of whoever has the most, and never all to one peer.

Only connections without a running call are closed for others, and only for peers that have shown who they are. So a peer that keeps a call running on each of its own could keep
everybody out, were there no bound on what one peer may have: its further connections are its own to make room for, and where none
of them is idle, the new one is turned away.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

from vanadium_node.errors import ErrorCode
from vanadium_node.rpc.limiting import PeerLoad
from vanadium_node.rpc.link import Link
from vanadium_node.wire.limits import Limits

IDLEST: Final = "it was the idlest of too many connections"


class Member(Protocol):
    """A connection that counts."""

    link: Link
    load: PeerLoad
    """What its peer takes."""

    @property
    def is_quiet(self) -> bool:
        """Whether no call is being run."""


M = TypeVar("M", bound=Member)


class Crowd(Generic[M]):
    """The connections of one server whose peers are known. Those of strangers have places of their own (`strangers`)."""

    def __init__(self, limits: Limits) -> None:
        self.members: dict[M, None] = {}
        self._most = limits.max_connections
        self.most_of_a_peer = max(1, min(limits.max_connections_per_peer, limits.max_connections * 3 // 4))
        """One peer never has more than three quarters of all there may be."""

    def enter(self, newcomer: M) -> str:
        """Count a connection whose peer is known now, also as another one than before; return why it may not stay, or nothing.

        Idle ones make room: where its peer has too many, the idlest of those; where there are too many in all, the idlest one of the
        peer that has the most: who opens connections without end closes their own.
        """
        others = self._others(newcomer)
        if len(others) >= self.most_of_a_peer and not self._close_idlest(others):
            return f"{self.most_of_a_peer} connections of {newcomer} are open and busy, the most that one peer may have"
        if newcomer not in self.members:
            while len(self.members) >= self._most:
                if not self._close_idlest(list(self.members)):
                    return f"all {self._most} connections of this server are busy"
            self.members[newcomer] = None
        return ""

    def leave(self, member: M) -> None:
        """Count a connection no more; nothing happens when it is not counted."""
        self.members.pop(member, None)

    def _others(self, newcomer: M) -> list[M]:
        load = newcomer.load
        if load.connections <= self.most_of_a_peer:  # those closed for others count until their tasks have ended
            return []
        return [each for each in self.members if each.load is load and each is not newcomer]

    def _close_idlest(self, members: list[M]) -> bool:
        """Close the idlest one of the peer that has the most; tell whether any was idle."""
        idle = [member for member in members if member.is_quiet]
        if idle:
            idlest = min(idle, key=lambda member: (-member.load.connections, member.link.last_received))
            self.leave(idlest)  # it is the idlest only once, though it ends when its task gets to it
            idlest.link.connection.send_goaway(ErrorCode.OVERLOADED.value, IDLEST)
            idlest.link.flush()
            idlest.link.blame(IDLEST)
            idlest.link.abort()
        return bool(idle)
