"""Serving one connection from its first byte to its last: the handshake, in time, and then its events."""

from __future__ import annotations

import logging
import socket
from typing import Final

import trio
from OpenSSL import SSL

from vanadium_node.errors import ConfigurationError, ErrorCode, PeerError, VanadiumError
from vanadium_node.rpc import sockets
from vanadium_node.rpc.authentication import hear_hello, shake_hands, sign_auth
from vanadium_node.rpc.background import Background
from vanadium_node.rpc.host import Host
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.observing import Handshake
from vanadium_node.rpc.refusing import log
from vanadium_node.rpc.session import Session
from vanadium_node.rpc.strangers import Stage, Stranger, Strangers
from vanadium_node.rpc.tls import PlainChannel, TlsChannel
from vanadium_node.security.principal import Principal
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import Event
from vanadium_node.wire.handshake import HandshakeState, Role

OUSTED: Final = "others waited for its place"
STOPPING: Final = "this server is about to stop"


class Attendant:
    """Serves the connections of one server. `tls` is None where it serves unix sockets only."""

    def __init__(self, host: Host, tls: SSL.Context | None, strangers: Strangers) -> None:
        self._host = host
        self._tls = tls
        self._strangers = strangers
        self.sessions: dict[Session, None] = {}
        """Connections on which this end has shown itself."""
        self.is_stopping = False
        """No new calls are taken, on connections that are still to come up either."""

    async def serve(self, stranger: Stranger, background: Background) -> None:
        """Serve one connection from its first byte to its last."""
        with stranger.connection as connection, trio.CancelScope() as scope:
            try:
                connection.setblocking(False)
                if connection.family == socket.AF_UNIX:
                    address, uid = "", sockets.peer_uid(connection)
                else:
                    address, uid = sockets.peer_address(connection), None
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                self._strangers.leave(stranger)
                return  # it was gone before we looked
            stranger.scope, who = scope, address or f"user {uid}"
            observer, since, deadlines = self._host.observer, stranger.since, self._host.deadlines
            deadlines.add((stranger, 0), since + self._host.limits.handshake_timeout.total_seconds())
            observer.connection_opened()
            outcome, is_known = Handshake.LEFT, False
            session: Session | None = None
            try:
                session = await self._open(stranger, address, uid, background)
                is_known = self._enter(session) and await self._until_known(session)
                if is_known:
                    observer.handshake_ended(Handshake.DONE, trio.current_time() - since)
                    self._strangers.leave(stranger)
                    deadlines.discard((stranger, 0))
                    await self._until_end(session)
            except (VanadiumError, OSError) as error:
                # A connection that is only opened and closed is a probe, or a client that changed its mind.
                outcome = Handshake.FAILED if isinstance(error, PeerError) else Handshake.LEFT
                level = logging.INFO if isinstance(error, PeerError) else logging.DEBUG
                self._tell(level, who, f"ended before it was up: {error}")
            finally:
                if not is_known:
                    self._turn_away(stranger, session, outcome)
                observer.connection_closed()
                if scope.cancel_called:
                    self.tell_late(who, is_ousted=stranger.is_ousted)
                if session is not None:
                    self._close(session)
                background.end()

    def _enter(self, session: Session) -> bool:
        """Count a connection to which this end has shown itself; tell whether it may go on."""
        self.sessions[session] = None
        if self.is_stopping:
            session.link.connection.send_goaway("", STOPPING)
            session.link.flush()
        return session.begin()

    def _turn_away(self, stranger: Stranger, session: Session | None, outcome: Handshake) -> None:
        """Take a place back, and count what became of the handshake of who had it."""
        self._strangers.leave(stranger)
        self._host.deadlines.discard((stranger, 0))
        if stranger.is_ousted:
            outcome = Handshake.OVERLOADED
            if stranger.link is not None:
                stranger.link.connection.send_goaway(ErrorCode.OVERLOADED.value, OUSTED)
                stranger.link.flush()
        elif session is not None and session.is_turned_away:
            outcome = Handshake.OVERLOADED
        elif stranger.scope is not None and stranger.scope.cancel_called:
            outcome = Handshake.TIMEOUT
        elif session is not None and session.link.is_peers_fault:
            outcome = Handshake.FAILED
        self._host.observer.handshake_ended(outcome, trio.current_time() - stranger.since)

    async def _open(self, stranger: Stranger, address: str, uid: int | None, background: Background) -> Session:
        """Bring a connection to where this end has shown itself."""
        limits, principal, connection = self._host.limits, self._host.principal, stranger.connection
        if uid is not None:
            wire = Connection(Role.SERVER, limits, authenticates=False)
            link = Link(connection, PlainChannel(), wire, limits, background)
            return Session(self._host, link, address, uid, sockets.peer_gids(connection))
        if self._tls is None:
            raise ConfigurationError("a server of unix sockets has no TLS")
        channel = TlsChannel.accept(self._tls)
        await hear_hello(connection, channel, stranger.talks)
        link = stranger.link = Link(connection, channel, Connection(Role.SERVER, limits), limits, background)
        session = Session(self._host, link, address, uid)
        session.binding = channel.binding
        if principal is None:
            raise ConfigurationError("a server without a principal serves unix sockets only")
        try:
            await show(session, principal)
        except VanadiumError as error:
            log.warning("cannot show this server's blessings to %s: %s", address, error)
            raise
        await shake_hands(connection, channel)
        stranger.stage = Stage.ENCRYPTED
        return session

    async def _until_known(self, session: Session) -> bool:
        """Handle events until the peer has shown itself; tell whether it has."""
        if session.link.connection.handshake is HandshakeState.OPEN:
            return True
        events: list[Event] | None = session.link.take(b"")
        while events is not None and not session.link.is_broken and session.handle(events):
            if session.trust is not None:
                return True
            events = await session.link.receive()
        return False

    async def _until_end(self, session: Session) -> None:
        """Handle events until the connection is over."""
        link, receive, handle = session.link, session.link.receive, session.handle
        while True:
            while session.postponed or link.is_full:
                await link.drained()
                if link.is_broken or not handle(session.take_postponed()):
                    return
            events = await receive()
            if events is None or link.is_broken or not handle(events):
                return  # whoever was turned away is told that nothing more is begun with

    def _close(self, session: Session) -> None:
        link = session.link
        if link.fault:
            level = logging.INFO if link.is_peers_fault else logging.DEBUG
            if log.isEnabledFor(level):
                self._tell(level, str(session), f"ended: {link.fault}")
        self.sessions.pop(session, None)
        session.close()
        link.flush()
        link.close()
        self._host.became_quiet.unpark_all()

    def tell_late(self, peer: str, *, is_ousted: bool) -> None:
        """Log that a peer has not shown itself in time."""
        reason = OUSTED if is_ousted else "its time is over"
        self._tell(logging.INFO, peer, f"has not authenticated in time: {reason}")

    def _tell(self, level: int, peer: str, what: str) -> None:
        """Log what became of a connection, with both ends' names."""
        if not log.isEnabledFor(level):
            return
        principal = self._host.principal
        shown = None if principal is None else principal.store.default
        names = () if shown is None else shown.names
        fields = {"local_names": list(names), "peer": peer}
        log.log(level, "connection to %s from %s %s", ",".join(names) or "this server", peer, what, extra=fields)


async def show(session: Session, principal: Principal) -> None:
    """Show the principal's default blessings on a connection, at first or renewed, with the discharges there are for them."""
    shown, collected = principal.store.default, session.host.discharges
    auth = await sign_auth(principal, Role.SERVER, session.binding, shown, collected.encoded)
    session.show(shown, collected, auth)
