"""Connections whose peer has not shown itself yet: few at a time, and those that keep others waiting leave first.

A peer without a key can open connections by the thousand and say nothing on them. When all places are taken, those that come wait
(`waiting_room`) until a place is free. A stranger that others wait for keeps its place
for a tenth of the handshake's time while it says nothing, for three once it has begun TLS, and for half of that time when that is
done, which takes work; and longer only while this end has not read all that it sent. So a server that is busy with the handshakes
of many honest peers does not turn on those that it has kept waiting itself, and machines on which many pods start at once have
seconds to answer.
"""

from __future__ import annotations

import socket
from enum import Enum

import trio

from vanadium_node.rpc.link import Link
from vanadium_node.wire.limits import Limits


class Stage(Enum):
    """How far a stranger has come; the value is the share of the handshake's time for which it keeps its place from others."""

    SILENT = 0.1
    TALKING = 0.3
    ENCRYPTED = 0.5


class Stranger:
    """A connection that has a place. `scope` surrounds whatever serves it; it is there once that has begun."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.since = trio.current_time()
        self.scope: trio.CancelScope | None = None
        self.link: Link | None = None
        """There as soon as this end may speak."""
        self.stage = Stage.SILENT
        self.is_ousted = False
        """It was cut off because others waited."""

    def talks(self) -> None:
        """Take note that it has said something."""
        self.stage = Stage.TALKING

    def expire(self, _number: int) -> None:
        """Cut it off: the handshake's time is over."""
        if self.scope is not None:
            self.scope.cancel()

    @property
    def keeps_us_waiting(self) -> bool:
        """Whether it is the peer's turn: everything that it sent has been read."""
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:  # nothing there, or the connection is broken
            return True


class Strangers:
    """The places of one server, in the order in which they were taken."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.max_unauthenticated
        self._handshake_seconds = limits.handshake_timeout.total_seconds()
        self._places: dict[Stranger, None] = {}
        self._left = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def places(self) -> int:
        """How many more there may be."""
        return self._limit - len(self._places)

    def enter(self, connection: socket.socket) -> Stranger:
        """Give a connection a place."""
        stranger = Stranger(connection)
        self._places[stranger] = None
        return stranger

    def leave(self, stranger: Stranger) -> None:
        """Take the place back: the peer is known, or gone. Nothing happens the second time."""
        if self._places.pop(stranger, self) is None:
            self._left.unpark_all()

    async def wait_for_a_place(self) -> None:
        """Wait until there is a place; cut off a stranger that has kept one too long."""
        while self.places <= 0:
            longest = next((each for each in self._overdue() if each.keeps_us_waiting), None)
            if longest is not None and longest.scope is not None:
                longest.is_ousted = True
                longest.scope.cancel()
                self.leave(longest)
                return
            with trio.move_on_after(self._handshake_seconds * Stage.SILENT.value / 4):
                await self._left.park()

    def _overdue(self) -> list[Stranger]:
        now, whole = trio.current_time(), self._handshake_seconds
        return [each for each in self._places if now - each.since >= whole * each.stage.value]
