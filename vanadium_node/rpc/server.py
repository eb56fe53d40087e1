"""Serving: listeners, connections coming and going, and a graceful end.

`serve` is a context manager; while it is open, calls are answered. Leaving it takes no new calls, lets the running ones
finish for a while, and then cancels them.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

import trio
from OpenSSL import SSL

from vanadium_node.errors import ConfigurationError, ErrorCode, PeerError, VanadiumError
from vanadium_node.rpc import sockets
from vanadium_node.rpc.authentication import hear_hello, shake_hands, sign_auth
from vanadium_node.rpc.background import Background
from vanadium_node.rpc.connecting import discharging_of
from vanadium_node.rpc.deadlines import call_deadlines
from vanadium_node.rpc.discharging import NONE
from vanadium_node.rpc.host import Host
from vanadium_node.rpc.intercepting import Interceptor, intercepted
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.naming import parse_listen_address
from vanadium_node.rpc.observing import Handshake, Observer, observers_of
from vanadium_node.rpc.refusing import log
from vanadium_node.rpc.reserved import objects_of
from vanadium_node.rpc.service import Service
from vanadium_node.rpc.session import Session
from vanadium_node.rpc.strangers import Stage, Stranger, Strangers
from vanadium_node.rpc.tls import PlainChannel, TlsChannel, server_context
from vanadium_node.rpc.waiting_room import WaitingRoom
from vanadium_node.rpc.workers import Workers
from vanadium_node.security.authorization import Authorizer, default_authorizer
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import Validator
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import Event
from vanadium_node.wire.handshake import HandshakeState, Role
from vanadium_node.wire.limits import DEFAULT_LIMITS, Limits

DRAIN_TIMEOUT: Final = timedelta(seconds=5)
RENEWAL_INTERVAL: Final = timedelta(seconds=2)
"""How often a server looks whether its principal has other blessings to show on open connections."""

OUSTED: Final = "others waited for its place"
_OVERLOADED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_OVERLOADED_PAUSE_SECONDS: Final = 0.1
_ACCEPTED_AT_ONCE: Final = 4096
"""As many as the system's queue may hold: what does not fit there is lost."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Server:
    """A running server: where it listens, and how to end it well."""

    def __init__(self, host: Host, listeners: Sequence[socket.socket]) -> None:
        self._host = host
        self._listeners = tuple(listeners)
        self._tls = _tls_context(host, listeners)
        self._sessions: dict[Session, None] = host.crowd.members
        self._strangers = Strangers(host.limits)
        self._waiting = WaitingRoom(host.limits)
        self._accepting = trio.CancelScope()
        self.addresses: tuple[str, ...] = tuple(map(sockets.local_address, listeners))
        """Where the server is reached, as `host:port` or `unix:/path`."""

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._sessions)

    @property
    def waiting(self) -> int:
        """How many connections wait for a place among those."""
        return len(self._waiting)

    @property
    def strangers(self) -> int:
        """How many connections there are whose peer has not shown itself yet."""
        return len(self._strangers)

    async def drain(self, timeout: timedelta = DRAIN_TIMEOUT) -> None:
        """Take no new connections and calls, and wait until the running ones have ended, for `timeout` at most."""
        self._accepting.cancel()
        self._waiting.close()
        for listener in self._listeners:
            _close_listener(listener)
        for session in self._sessions:
            session.link.connection.send_goaway("", "this server is about to stop")
            session.link.flush()
        with trio.move_on_after(timeout.total_seconds()):
            while not all(session.is_quiet for session in self._sessions):
                await self._host.became_quiet.park()
            for session in tuple(self._sessions):
                await session.link.drained()

    async def accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        """Take connections of one listener until the server drains or is cancelled."""
        with self._accepting:
            while listener.fileno() != -1:
                try:
                    await trio.lowlevel.wait_readable(listener)
                except trio.ClosedResourceError:
                    return
                await self._waiting.room()
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
                    if self._strangers.places > 0 and not len(self._waiting):
                        self._admit(connection, nursery)
                    elif not self._have_wait(connection):
                        break

    def _have_wait(self, connection: socket.socket) -> bool:
        """Have a connection wait for a place; tell whether one more could."""
        self._waiting.enter(connection)
        if self._waiting.is_full:
            silent = self._waiting.oust()
            if silent is None:
                return False
            with silent, suppress(OSError):
                self._tell_late(sockets.peer_address(silent), is_ousted=True)
            self._host.observer.handshake_ended(Handshake.OVERLOADED, 0.0)
        return True

    async def let_in(self, nursery: trio.Nursery) -> None:
        """Serve those that wait, one after another, until cancelled."""
        try:
            while True:
                await self._waiting.somebody()
                await self._strangers.wait_for_a_place()
                for _ in range(min(self._strangers.places, len(self._waiting))):
                    self._admit(self._waiting.take(), nursery)
        finally:
            self._waiting.close()

    def _admit(self, connection: socket.socket, nursery: trio.Nursery) -> None:
        """Serve a connection, for which others make room; where none can, it is told so as soon as it understands."""
        self._host.crowd.make_room(1)
        nursery.start_soon(self._serve, self._strangers.enter(connection), Background(nursery.start_soon))

    def _enter(self, session: Session, stranger: Stranger) -> None:
        """Count a connection; others may have come while it shook hands."""
        crowd = self._host.crowd
        if crowd.make_room(1):
            self._sessions[session] = None
        else:
            log.warning("turned a new connection away: all %d are busy", len(self._sessions))
            stranger.is_ousted = True
            crowd.turn_away(session)
        session.begin()

    async def _serve(self, stranger: Stranger, background: Background) -> None:
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
            stranger.scope = scope
            observer, since, deadlines = self._host.observer, stranger.since, self._host.deadlines
            deadlines.add((stranger, 0), since + self._host.limits.handshake_timeout.total_seconds())
            observer.connection_opened()
            outcome, is_known = Handshake.LEFT, False
            session: Session | None = None
            try:
                session = await self._open(stranger, address, uid, background)
                self._enter(session, stranger)
                is_known = await self._until_known(session)
                if is_known:
                    observer.handshake_ended(Handshake.DONE, trio.current_time() - since)
                    self._strangers.leave(stranger)
                    deadlines.discard((stranger, 0))
                    await self._until_end(session)
            except (VanadiumError, OSError) as error:
                # A connection that is only opened and closed is a probe, or a client that changed its mind.
                outcome = Handshake.FAILED if isinstance(error, PeerError) else Handshake.LEFT
                level = logging.INFO if isinstance(error, PeerError) else logging.DEBUG
                self._tell(level, address or f"user {uid}", f"ended before it was up: {error}")
            finally:
                if not is_known:
                    self._turn_away(stranger, session, outcome)
                observer.connection_closed()
                if scope.cancel_called:
                    self._tell_late(address or f"user {uid}", is_ousted=stranger.is_ousted)
                if session is not None:
                    self._close(session)
                background.end()

    def _turn_away(self, stranger: Stranger, session: Session | None, outcome: Handshake) -> None:
        """Take a place back, and count what became of the handshake of who had it."""
        self._strangers.leave(stranger)
        self._host.deadlines.discard((stranger, 0))
        if stranger.is_ousted:
            outcome = Handshake.OVERLOADED
            if stranger.link is not None:
                stranger.link.connection.send_goaway(ErrorCode.OVERLOADED.value, OUSTED)
                stranger.link.flush()
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
        self._sessions.pop(session, None)
        session.close()
        link.flush()
        link.close()
        self._host.became_quiet.unpark_all()

    def _tell_late(self, peer: str, *, is_ousted: bool) -> None:
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

    async def fetch_discharges(self) -> None:
        """Get the discharges that this server's own blessings need; without them it shows itself all the same, and says so."""
        host = self._host
        if host.principal is None or host.discharging is None:
            return
        shown = host.principal.store.default
        if shown is host.discharged and host.now() < host.discharges.fresh_until:
            return
        try:
            host.discharges = await host.discharging.for_connection(shown)
            host.discharged = shown
        except VanadiumError as error:
            host.discharges = NONE
            log.warning("this server shows blessings without the discharges that they need: %s", error)

    async def keep_discharges(self) -> None:
        """Renew those discharges in time, until cancelled."""
        while True:
            await trio.sleep(RENEWAL_INTERVAL.total_seconds())
            await self.fetch_discharges()

    async def look_after(self) -> None:
        """Ping silent peers, end dead ones, and show renewed blessings, until cancelled."""
        idle_seconds = self._host.limits.idle_timeout.total_seconds()
        while True:
            await trio.sleep(min(RENEWAL_INTERVAL.total_seconds(), idle_seconds / 2))
            for session in tuple(self._sessions):
                session.link.look_alive()
                if not session.link.is_broken:
                    await self._renew(session)

    async def _renew(self, session: Session) -> None:
        principal = self._host.principal
        if principal is None or session.trust is None:
            return
        is_same = session.shown is principal.store.default or session.shown == principal.store.default
        if not is_same or session.shown_discharges is not self._host.discharges:
            try:
                await show(session, principal)
            except VanadiumError as error:  # an agent may be away for a moment; the next round tries again
                log.warning("cannot show renewed blessings to %s: %s", session, error)


async def show(session: Session, principal: Principal) -> None:
    """Show the principal's default blessings on a connection, at first or renewed, with the discharges there are for them."""
    shown, collected = principal.store.default, session.host.discharges
    auth = await sign_auth(principal, Role.SERVER, session.binding, shown, collected.encoded)
    session.show(shown, collected, auth)


def _tls_context(host: Host, listeners: Sequence[socket.socket]) -> SSL.Context | None:
    """Return the context of connections over TCP; where there are none, a certificate would be a megabyte for nothing."""
    is_needed = any(listener.family != socket.AF_UNIX for listener in listeners)
    return server_context(host.now()) if is_needed else None


def _close_listener(listener: socket.socket) -> None:
    """Stop listening; a unix socket's file goes too, as long as it is ours."""
    if listener.fileno() == -1:
        return
    path = listener.getsockname() if listener.family == socket.AF_UNIX else None
    trio.lowlevel.notify_closing(listener)
    listener.close()
    if path:
        with suppress(OSError):
            Path(path).unlink(missing_ok=True)


@asynccontextmanager
async def serve(
    services: Service | Mapping[str, Service],
    principal: Principal | None,
    *,
    listen: Sequence[str] = (":0",),
    authorizer: Authorizer = default_authorizer,
    validators: Mapping[int, Validator] = MappingProxyType({}),
    limits: Limits = DEFAULT_LIMITS,
    now: Callable[[], datetime] = _utc_now,
    unix_mode: int | None = None,
    drain_timeout: timedelta = DRAIN_TIMEOUT,
    interceptors: Sequence[Interceptor] = (),
    observers: Sequence[Observer] = (),
) -> AsyncIterator[Server]:
    """Serve objects (one, or several by suffix) until the block is left; then drain for `drain_timeout`.

    `principal` may be None where all of `listen` are unix sockets. `unix_mode` are the permissions of those. `interceptors`
    surround every call (`intercepting`), `observers` hear of everything (`observing`, `metrics`). With the logger
    `vanadium_node.rpc.calls` at debug, each call is a line of the log.

    Raises:
        InputError: an address to listen on is none.
        ConfigurationError, StorageError: it cannot be listened on.
    """
    addresses = [parse_listen_address(text) for text in listen]
    observer = observers_of(observers)
    objects = intercepted(
        objects_of(services if isinstance(services, Mapping) else {"": services}), interceptors, observer or None
    )
    listeners: list[socket.socket] = []
    failure: Exception | None = None
    try:
        for address in addresses:
            listeners += await sockets.listen(address, unix_mode=unix_mode)
        if principal is None and any(each.family != socket.AF_UNIX for each in listeners):
            raise ConfigurationError("a server without a principal serves unix sockets only")
        async with trio.open_nursery() as nursery:
            deadlines = call_deadlines()
            host = Host(
                objects=objects,
                principal=principal,
                authorizer=authorizer,
                limits=limits,
                validators=validators,
                now=now,
                workers=Workers(nursery),
                deadlines=deadlines,
                observer=observer,
                discharging=None if principal is None else discharging_of(principal, now),
            )
            server = Server(host, listeners)
            await server.fetch_discharges()
            nursery.start_soon(deadlines.run)
            nursery.start_soon(server.look_after)
            nursery.start_soon(server.keep_discharges)
            nursery.start_soon(server.let_in, nursery)
            for listener in listeners:
                nursery.start_soon(server.accept, listener, nursery)
            try:
                yield server
                await server.drain(drain_timeout)
            except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the caller's own error
                failure = error
            finally:
                nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            _close_listener(listener)
    if failure is not None:
        raise failure
