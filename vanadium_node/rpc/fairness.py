"""Who gives way when there are too many connections: the idle ones of whoever has the most, and never all to one peer.

Only connections without a running call are closed for others. So a peer that keeps a call running on each of its own could keep
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
    """The connections of one server."""

    def __init__(self, limits: Limits) -> None:
        self.members: dict[M, None] = {}
        self._most = limits.max_connections
        self.most_of_a_peer = max(1, min(limits.max_connections_per_peer, limits.max_connections * 3 // 4))
        """One peer never has more than three quarters of all there may be."""

    def make_room(self, wanted: int) -> bool:
        """Close the idlest connections where there are too many for so many more; tell whether there is room.

        It is the idlest one of the peer that has the most: who opens connections without end closes their own.
        """
        while len(self.members) + wanted > self._most:
            idle = [member for member in self.members if member.is_quiet]
            if not idle:
                return False
            self._close(min(idle, key=lambda member: (-member.load.connections, member.link.last_received)))
        return True

    def why_not(self, newcomer: M) -> str:
        """Return why a connection whose peer is known now may not stay; empty where it may. Idle ones of the peer make room for it."""
        load = newcomer.load
        if load.connections <= self.most_of_a_peer:
            return ""
        others = [each for each in self.members if each.load is load and each is not newcomer]
        if len(others) < self.most_of_a_peer:
            return ""  # the rest was closed for others, and is counted until its tasks have ended
        idle = [each for each in others if each.is_quiet]
        if idle:
            self._close(min(idle, key=lambda member: member.link.last_received))
            return ""
        return f"{self.most_of_a_peer} connections of {newcomer} are open and busy, the most that one peer may have"

    def turn_away(self, newcomer: M) -> None:
        """Close a connection for which there is no room, and tell its peer so."""
        _end(newcomer, f"all {self._most} connections of this server are busy")

    def _close(self, member: M) -> None:
        del self.members[member]  # it is the idlest only once, though it ends when its task gets to it
        _end(member, IDLEST)


def _end(member: Member, reason: str) -> None:
    member.link.connection.send_goaway(ErrorCode.OVERLOADED.value, reason)
    member.link.flush()
    member.link.blame(reason)
    member.link.abort()
