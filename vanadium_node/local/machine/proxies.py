"""Service proxies: connections to a service's addresses go on to one of its ready pods, in turn.

The outgoing side takes the caller's own address as its source, which Linux allows for all of 127/8, so that servers see who calls.
There is a listener only while a pod is ready: without one, callers are refused as with a real service. TCP only.
"""

from __future__ import annotations

import errno
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

from vanadium_node.local.api.kinds import ENDPOINTS, SERVICE
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.machine.addresses import LOOPBACK
from vanadium_node.local.machine.controllers import Controller, everything
from vanadium_node.local.machine.recorder import Recorder

PIECE_BYTES: Final = 64 * 1024
DIAL_SECONDS: Final = 5.0
BACKLOG: Final = 128
ACCEPT_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, order=True)
class Listening:
    """Where a proxy listens, and for which port of which service."""

    address: str
    port: int
    namespace: str
    service: str
    port_name: str


class Proxies:
    """Keeps one listener for each port of each service on each of its addresses; `nursery` is where they run."""

    def __init__(self, store: ObjectStore, recorder: Recorder, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._store = store
        self._events = recorder
        self._running: dict[Listening, trio.CancelScope] = {}
        self._turn: dict[tuple[str, str, str], int] = {}

    def controller(self) -> Controller:
        """Return the controller to run."""
        watches = dict.fromkeys((SERVICE, ENDPOINTS), everything)
        return Controller(name="proxies", reconcile=lambda *_: self.arrange(), watches=watches)

    def arrange(self) -> None:
        """Stop the listeners that nobody needs any more, and start those that are missing."""
        wanted = {w for service in self._store.list(SERVICE) for w in listening(service) if self._targets(w)}
        for gone in self._running.keys() - wanted:
            self._running.pop(gone).cancel()
        for new in sorted(wanted - self._running.keys()):
            scope = self._running[new] = trio.CancelScope()
            self._nursery.start_soon(self._listen, new, scope)

    async def _listen(self, where: Listening, scope: trio.CancelScope) -> None:
        """Listen, and go on with the connections that there are when it is over."""
        try:
            listener = _listener(where)
        except OSError as error:
            self._refused(where, error)
            self._running.pop(where, None)
            return
        async with trio.open_nursery() as connections:
            with scope, listener:
                while True:
                    try:
                        caller, address = await listener.accept()
                    except OSError:  # no descriptors left, or the caller has gone again
                        await trio.sleep(ACCEPT_PAUSE_SECONDS)
                    else:
                        connections.start_soon(self._carry, where, caller, str(address[0]))

    def _refused(self, where: Listening, error: OSError) -> None:
        service = self._store.find(SERVICE, where.namespace, where.service)
        if service is not None:
            why = (error.strerror or str(error)).lower()
            text = f"cannot listen on {where.address}:{where.port}: {why}; is another cluster or server using it?"
            self._events.warning(service, "ListenFailed", text)

    async def _carry(self, where: Listening, caller: trio.socket.SocketType, source: str) -> None:
        """Carry one connection to a pod and back."""
        with caller:
            server = await self._dial(where, source)
            if server is None:
                _reset(caller)
                return
            with server:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_copy, caller, server, nursery.cancel_scope)
                    nursery.start_soon(_copy, server, caller, nursery.cancel_scope)

    async def _dial(self, where: Listening, source: str) -> trio.socket.SocketType | None:
        """Connect to the pod whose turn it is, or to the next one that answers."""
        targets = self._targets(where)
        key = (where.namespace, where.service, where.port_name)
        first = self._turn.get(key, 0)
        self._turn[key] = first + 1
        for number in range(len(targets)):
            with trio.move_on_after(DIAL_SECONDS):
                server = await _connected(targets[(first + number) % len(targets)], source)
                if server is not None:
                    return server
        return None

    def _targets(self, where: Listening) -> tuple[tuple[str, int], ...]:
        endpoints = self._store.find(ENDPOINTS, where.namespace, where.service) or {}
        return tuple(
            (str(address["ip"]), int(port["port"]))
            for subset in endpoints.get("subsets") or ()
            for address in subset.get("addresses") or ()
            for port in subset.get("ports") or ()
            if port.get("name", "") == where.port_name and port.get("protocol", "TCP") == "TCP"
        )


def listening(service: Object) -> set[Listening]:
    """Return where a service is to be reached."""
    metadata, spec = service["metadata"], service["spec"]
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = {str(entry["ip"]) for entry in ingress if entry.get("ip")}
    addresses |= {str(a) for a in (spec.get("clusterIP"), *(spec.get("externalIPs") or ())) if a and a != "None"}
    found: set[Listening] = set()
    for port in spec.get("ports") or ():
        if port.get("protocol", "TCP") != "TCP":
            continue
        rest = (metadata["namespace"], metadata["name"], str(port.get("name") or ""))
        found |= {Listening(address, int(port["port"]), *rest) for address in addresses}
        if port.get("nodePort"):
            found.add(Listening(LOOPBACK, int(port["nodePort"]), *rest))
    return found


def _listener(where: Listening) -> trio.socket.SocketType:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((where.address, where.port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return trio.socket.from_stdlib_socket(sock)


async def _connected(target: tuple[str, int], source: str) -> trio.socket.SocketType | None:
    """Connect with the caller's address as the source, or with any where that is not possible; None when refused."""
    for own in (source, None):
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if own is not None:
                await sock.bind((own, 0))
            await sock.connect(target)
        except OSError as error:
            sock.close()
            if own is None or error.errno == errno.ECONNREFUSED:
                return None
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    return None


async def _copy(source: trio.socket.SocketType, sink: trio.socket.SocketType, both: trio.CancelScope) -> None:
    """Copy one direction until its end; a connection that breaks ends both directions, with a reset for both peers."""
    try:
        while data := await source.recv(PIECE_BYTES):
            view = memoryview(data)
            while view:
                view = view[await sink.send(view) :]
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            _reset(end)
        both.cancel()


def _reset(sock: trio.socket.SocketType) -> None:
    """Make the next close a reset, which tells the peer that something is wrong."""
    with suppress(OSError):  # it is broken already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
