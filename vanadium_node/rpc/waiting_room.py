"""Connections that were accepted and wait for a place: who has spoken goes first, and who has not makes room for others.

When the pods of a whole cluster start at once, more connections come than the system's queue holds, and it would drop some in
the middle. Here one that waits costs a socket and nothing else: nothing of it is read. A peer that only opens connections gets
none of the places that honest ones wait for, since those have sent their hello.
"""

from __future__ import annotations

import resource
import selectors
import socket
from collections import deque

import trio

from vanadium_node.wire.limits import Limits


class WaitingRoom:
    """The waiting connections of one server, in the order in which they came."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_waiting
        self._silent: dict[int, socket.socket] = {}
        self._spoken: deque[socket.socket] = deque()
        self._selector: selectors.BaseSelector | None = None
        self._came = trio.lowlevel.ParkingLot()
        self._left = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._silent) + len(self._spoken)

    @property
    def is_full(self) -> bool:
        """Whether nobody more can enter: it never takes more than half of the files that the process may open."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return len(self) >= (self._most if files == resource.RLIM_INFINITY else min(self._most, files // 2))

    def enter(self, connection: socket.socket) -> None:
        """Have a connection wait."""
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        self._silent[connection.fileno()] = connection
        self._came.unpark()

    async def somebody(self) -> None:
        """Wait until somebody waits."""
        while not len(self):
            await self._came.park()

    async def room(self) -> None:
        """Wait until somebody could enter."""
        while self.is_full:
            await self._left.park()

    def take(self) -> socket.socket:
        """Return the one whose turn it is: of those that have spoken, or else of all. Raises KeyError where nobody waits."""
        if not self._spoken:
            self._listen()
        connection = self._spoken.popleft() if self._spoken else self._leave(next(iter(self._silent), -1))
        self._left.unpark()
        return connection

    def oust(self) -> socket.socket | None:
        """Return the one that has waited longest without a word, which waits no more; None where all have spoken."""
        self._listen()
        number = next(iter(self._silent), None)
        return None if number is None else self._leave(number)

    def close(self) -> None:
        """Close all connections: nobody will be served any more."""
        for connection in (*self._silent.values(), *self._spoken):
            connection.close()
        self._silent.clear()
        self._spoken.clear()
        if self._selector is not None:
            self._selector.close()
            self._selector = None

    def _listen(self) -> None:
        """Find out who has spoken, or gone."""
        if self._selector is not None and self._silent:
            for key, _ in self._selector.select(0):
                self._spoken.append(self._leave(key.fd))

    def _leave(self, number: int) -> socket.socket:
        connection = self._silent.pop(number)
        if self._selector is not None:
            self._selector.unregister(connection)
        return connection
