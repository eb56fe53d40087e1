"""Serving: listeners, connections coming and going, and a graceful end.

`serve` is a context manager; while it is open, calls are answered. Leaving it takes no new calls, lets the running ones
finish for a while, and then cancels them.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

import trio
from OpenSSL import SSL

from vanadium_node.errors import ConfigurationError, VanadiumError
from vanadium_node.rpc import sockets
from vanadium_node.rpc.attending import STOPPING, Attendant, show
from vanadium_node.rpc.connecting import discharging_of
from vanadium_node.rpc.deadlines import call_deadlines
from vanadium_node.rpc.discharging import NONE
from vanadium_node.rpc.host import Host
from vanadium_node.rpc.intercepting import Interceptor, intercepted
from vanadium_node.rpc.naming import parse_listen_address
from vanadium_node.rpc.observing import Observer, observers_of
from vanadium_node.rpc.reception import Reception
from vanadium_node.rpc.refusing import log
from vanadium_node.rpc.reserved import objects_of
from vanadium_node.rpc.service import Service
from vanadium_node.rpc.session import Session
from vanadium_node.rpc.strangers import Strangers
from vanadium_node.rpc.tls import server_context
from vanadium_node.rpc.workers import Workers
from vanadium_node.security.authorization import Authorizer, default_authorizer
from vanadium_node.security.principal import Principal
from vanadium_node.security.validation import Validator
from vanadium_node.wire.limits import DEFAULT_LIMITS, Limits

DRAIN_TIMEOUT: Final = timedelta(seconds=5)
RENEWAL_INTERVAL: Final = timedelta(seconds=2)
"""How often a server looks whether its principal has other blessings to show on open connections."""
ROUND_SECONDS: Final = 30.0
"""How long it may take to show them on all; then it looks again."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Server:
    """A running server: where it listens, and how to end it well."""

    def __init__(self, host: Host, listeners: Sequence[socket.socket]) -> None:
        self._host = host
        self._listeners = tuple(listeners)
        self._strangers = Strangers(host.limits)
        self._attendant = Attendant(host, _tls_context(host, listeners), self._strangers)
        self._sessions = self._attendant.sessions
        self.reception = Reception(host, self._attendant, self._strangers)
        """Takes connections, while its tasks run."""
        self.addresses: tuple[str, ...] = tuple(map(sockets.local_address, listeners))
        """Where the server is reached, as `host:port` or `unix:/path`."""

    @property
    def connections(self) -> int:
        """How many connections there are now."""
        return len(self._sessions)

    @property
    def strangers(self) -> int:
        """How many connections there are whose peer has not shown itself yet."""
        return len(self._strangers)

    @property
    def waiting(self) -> int:
        """How many connections wait for a place among those."""
        return len(self.reception.waiting)

    async def drain(self, timeout: timedelta = DRAIN_TIMEOUT) -> None:
        """Take no new connections and calls, and wait until the running ones have ended, for `timeout` at most."""
        self.reception.close()
        self._attendant.is_stopping = True
        for listener in self._listeners:
            _close_listener(listener)
        for session in self._sessions:
            session.link.connection.send_goaway("", STOPPING)
            session.link.flush()
        with trio.move_on_after(timeout.total_seconds()):
            while not all(session.is_quiet for session in self._sessions):
                await self._host.became_quiet.park()
            for session in tuple(self._sessions):
                await session.link.drained()

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
        """Ping silent peers and end dead ones, until cancelled."""
        idle_seconds = self._host.limits.idle_timeout.total_seconds()
        while True:
            await trio.sleep(min(RENEWAL_INTERVAL.total_seconds(), idle_seconds / 2))
            for session in tuple(self._sessions):
                session.link.look_alive()

    async def keep_showing(self) -> None:
        """Show renewed blessings on open connections, until cancelled. An agent that signs may take its time, and keeps nobody else."""
        while True:
            await trio.sleep(RENEWAL_INTERVAL.total_seconds())
            with trio.move_on_after(ROUND_SECONDS):
                for session in tuple(self._sessions):
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
            nursery.start_soon(server.keep_showing)
            nursery.start_soon(server.keep_discharges)
            nursery.start_soon(server.reception.let_in, nursery)
            for listener in listeners:
                nursery.start_soon(server.reception.accept, listener, nursery)
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
