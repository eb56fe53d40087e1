"""Connecting to where a name leads: happy eyeballs over all of its addresses, IPv6 and IPv4 in turn, or a unix socket.

RFC 8305 ("Happy Eyeballs Version 2"): the addresses are tried in the resolver's order (RFC 6724), the families taking turns
(§4); the next one starts 250 ms after the last one, or as soon as that has failed (§5); the first to connect wins, and the
others are closed. Both families are asked for in one look-up, so that §3's race of DNS answers is the resolver's affair.

In a pod of the embedded cluster connections come from the pod's own address, `VANADIUM_POD_IP`; `VANADIUM_HOSTS` names a file
in the syntax of /etc/hosts that is asked before the resolver.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, zip_longest
from math import inf
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from vanadium_node.errors import UnreachableError
from vanadium_node.rpc.naming import Address, TcpAddress, UnixAddress
from vanadium_node.rpc.sockets import POD_ADDRESS_VARIABLE

HOSTS_VARIABLE: Final = "VANADIUM_HOSTS"

ATTEMPT_DELAY_SECONDS: Final = 0.25
"""RFC 8305 §5: the Connection Attempt Delay."""


@dataclass(frozen=True, slots=True)
class Place:
    """One address to try; `where` is what the system's `connect` takes."""

    family: int
    where: Any

    @property
    def own_version(self) -> int:
        """4 or 6."""
        return 6 if self.family == socket.AF_INET6 else 4


Failures: TypeAlias = list[tuple[Place, OSError]]


async def dial(address: Address, environ: Mapping[str, str] = os.environ, *, deadline: float = inf) -> socket.socket:
    """Return a connected, non-blocking socket, before the deadline by trio's clock.

    Raises:
        UnreachableError: nobody answers; names the addresses and the system's reasons.
        trio.TooSlowError: nothing is known in time.
    """
    failures: Failures = []
    own = environ.get(POD_ADDRESS_VARIABLE, "")
    try:
        if isinstance(address, TcpAddress) and (place := _literal(address)) is not None:
            connection, is_connected = _begin(place, own)
            if is_connected:
                return connection
            with trio.fail_at(deadline):
                return await _connected(connection)
        with trio.fail_at(deadline):
            if isinstance(address, UnixAddress):
                return await _dial_unix(address.path)
            found = await _dial_first(await _resolve(address, environ), own, failures)
    except (OSError, ValueError) as error:
        raise _unreachable(address, _why(error)) from error
    if found is None:
        raise _unreachable(address, _summed_up(failures)) from failures[-1][1]
    return found


def _unreachable(address: Address, reason: str) -> UnreachableError:
    return UnreachableError(
        f"nobody answers at {address}: {reason}", hint="is the server running, and is the address right?"
    )


# Where a name leads


def _literal(address: TcpAddress) -> Place | None:
    """Return the place of an address that needs no look-up."""
    version = _ip_version(address.host)
    return None if version is None else _place(version, address.host, address.port)


def _place(version: int, host: str, port: int) -> Place:
    return Place(socket.AF_INET6 if version == 6 else socket.AF_INET, (host, port))


async def _resolve(address: TcpAddress, environ: Mapping[str, str]) -> list[Place]:
    """Return the places to try, best first; at least one. Raises OSError (`gaierror`) for names that lead nowhere."""
    hosts = _look_up(address.host, environ) or [address.host]
    literals = [_literal(TcpAddress(host, address.port)) for host in hosts]
    found = [place for place in literals if place is not None]
    if len(found) < len(literals):
        infos = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        found = [Place(family, where) for family, _, _, _, where in infos]
    return list(dict.fromkeys(_in_turn(found)))


def _in_turn(places: Sequence[Place]) -> Iterator[Place]:
    """Let the families take turns, the first place's first (RFC 8305 §4, First Address Family Count 1)."""
    first = [place for place in places if place.family == places[0].family]
    others = [place for place in places if place.family != places[0].family]
    return (place for place in chain.from_iterable(zip_longest(first, others)) if place is not None)


def _look_up(host: str, environ: Mapping[str, str]) -> list[str]:
    """Return the addresses that the pod's hosts file gives a name."""
    file = environ.get(HOSTS_VARIABLE)
    if not file:
        return []
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []  # a pod without the file has the system's resolver
    fields = [line.partition("#")[0].split() for line in lines]
    return [each[0] for each in fields if host in each[1:] and _ip_version(each[0]) is not None]


@lru_cache(maxsize=256)
def _ip_version(host: str) -> int | None:
    """Return 4 or 6 for an IP address, None for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


# Connecting


async def _dial_first(places: Sequence[Place], own: str, failures: Failures) -> socket.socket | None:
    """Return the first connection that comes about; None, with all reasons in `failures`, where none does."""
    if len(places) == 1:
        return await _attempt(places[0], own, failures)
    won: list[socket.socket] = []
    try:
        async with trio.open_nursery() as nursery:
            for place in places:
                has_failed = trio.Event()
                nursery.start_soon(_race, place, own, failures, won, has_failed, nursery.cancel_scope)
                with trio.move_on_after(ATTEMPT_DELAY_SECONDS):
                    await has_failed.wait()
    except BaseException:
        for connection in won:
            connection.close()
        raise
    return won[0] if won else None


async def _race(
    place: Place,
    own: str,
    failures: Failures,
    won: list[socket.socket],
    has_failed: trio.Event,
    others: trio.CancelScope,
) -> None:
    """Try one place among several."""
    connection = await _attempt(place, own, failures)
    if connection is None:
        has_failed.set()
    elif won:
        connection.close()  # it came about together with the winner
    else:
        won.append(connection)
        others.cancel()


async def _attempt(place: Place, own: str, failures: Failures) -> socket.socket | None:
    try:
        return await _connect(place, own)
    except OSError as error:
        failures.append((place, error))
        return None


async def _connect(place: Place, own: str) -> socket.socket:
    connection, is_connected = _begin(place, own)
    return connection if is_connected else await _connected(connection)


def _begin(place: Place, own: str) -> tuple[socket.socket, bool]:
    """Return a socket that connects, and whether it has done so already: on one machine nothing waits."""
    connection = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if own and _ip_version(own) == place.own_version:
            connection.bind((own, 0))
        code = connection.connect_ex(place.where)
        # The second attempt tells what became of the first.
        if code == errno.EINPROGRESS and (code := connection.connect_ex(place.where)) == errno.EALREADY:
            return connection, False
        _require_connected(code)
    except BaseException:
        connection.close()
        raise
    return connection, True


async def _connected(connection: socket.socket) -> socket.socket:
    """Wait until a socket is connected; it is closed where that fails."""
    try:
        await trio.lowlevel.wait_writable(connection)
        _require_connected(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except BaseException:
        connection.close()
        raise
    return connection


def _require_connected(code: int) -> None:
    if code not in (0, errno.EISCONN):
        raise OSError(code, os.strerror(code))


async def _dial_unix(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(False)
        while True:
            try:
                connection.connect(str(path))
                break
            except BlockingIOError:  # the listener's queue is full; Linux gives no event for it
                await trio.sleep(0.01)
        await trio.lowlevel.checkpoint()
    except BaseException:
        connection.close()
        raise
    return connection


# What the system says


def _summed_up(failures: Failures) -> str:
    """Return the reasons, each with the addresses that it holds for, if there are several."""
    if len(failures) == 1:
        return _why(failures[0][1])
    addresses: dict[str, list[str]] = {}
    for place, error in failures:
        addresses.setdefault(_why(error), []).append(str(place.where[0]))
    return "; ".join(f"{reason} ({', '.join(hosts)})" for reason, hosts in addresses.items())


def _why(error: OSError | ValueError) -> str:
    """Return the system's words for a failed connection."""
    if isinstance(error, socket.gaierror):
        return error.strerror or "the name is unknown"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)
