"""Accepting connections: into a place, where one is free, or into the waiting room."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Final

import trio

from vanadium_node.rpc import sockets
from vanadium_node.rpc.attending import Attendant
from vanadium_node.rpc.background import Background
from vanadium_node.rpc.host import Host
from vanadium_node.rpc.observing import Handshake
from vanadium_node.rpc.refusing import log
from vanadium_node.rpc.strangers import Strangers
from vanadium_node.rpc.waiting_room import WaitingRoom

_OVERLOADED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_OVERLOADED_PAUSE_SECONDS: Final = 0.1
_ACCEPTED_AT_ONCE: Final = 4096
"""As many as the system's queue may hold: what does not fit there is lost."""


class Reception:
    """Where the connections of one server come in. The nursery holds whoever is served."""

    def __init__(self, host: Host, attendant: Attendant, strangers: Strangers) -> None:
        self.waiting = WaitingRoom(host.limits)
        self._host = host
        self._attendant = attendant
        self._strangers = strangers
        self._accepting = trio.CancelScope()

    def close(self) -> None:
        """Take no more connections, and close those that wait."""
        self._accepting.cancel()
        self.waiting.close()

    async def accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        """Take connections of one listener until the server drains or is cancelled."""
        with self._accepting:
            while listener.fileno() != -1:
                try:
                    await trio.lowlevel.wait_readable(listener)
                except trio.ClosedResourceError:
                    return
                await self.waiting.room()
                for _ in range(_ACCEPTED_AT_ONCE):
                    try:
                        connection, _address = listener.accept()
                    except BlockingIOError:
                        break
                    except OSError as error:
                        if error.errno in _OVERLOADED:
                            log.error("cannot accept connections: %s", error.strerror)
                            await trio.sleep(_OVERLOADED_PAUSE_SECONDS)
                        break
                    if self._strangers.places > 0 and not len(self.waiting):
                        self._admit(connection, nursery)
                    elif not self._have_wait(connection):
                        break

    def _have_wait(self, connection: socket.socket) -> bool:
        """Have a connection wait for a place; tell whether one more could."""
        self.waiting.enter(connection)
        if self.waiting.is_full:
            silent = self.waiting.oust()
            if silent is None:
                return False
            with silent, suppress(OSError):
                self._attendant.tell_late(sockets.peer_name(silent), is_ousted=True)
            self._host.observer.handshake_ended(Handshake.OVERLOADED, 0.0)
        return True

    async def let_in(self, nursery: trio.Nursery) -> None:
        """Serve those that wait, one after another, until cancelled."""
        try:
            while True:
                await self.waiting.somebody()
                await self._strangers.wait_for_a_place()
                for _ in range(min(self._strangers.places, len(self.waiting))):
                    self._admit(self.waiting.take(), nursery)
        finally:
            self.waiting.close()

    def _admit(self, connection: socket.socket, nursery: trio.Nursery) -> None:
        """Serve a connection."""
        nursery.start_soon(self._attendant.serve, self._strangers.enter(connection), Background(nursery.start_soon))
