"""Listening sockets, and who is at the other end of a connection.

In a pod of the embedded cluster, `VANADIUM_POD_IP` is the pod's own address: `:PORT` listens on it alone.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from vanadium_node.errors import ConfigurationError, StorageError
from vanadium_node.rpc.naming import Address, TcpAddress, UnixAddress

POD_ADDRESS_VARIABLE = "VANADIUM_POD_IP"
BACKLOG = 4096
_SO_PEERGROUPS = 59
"""asm-generic/socket.h; the socket module does not have it."""

_MAX_GROUPS_BYTES = 1024
"""As much as Python's `getsockopt` can return."""

_NOT_OURS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


async def listen(
    address: Address, *, unix_mode: int | None = None, environ: Mapping[str, str] = os.environ
) -> list[socket.socket]:
    """Return non-blocking sockets that listen at the address: all addresses of a name, on one port.

    Raises:
        ConfigurationError: the address is in use, or is none of this machine's.
        StorageError: the directory of a unix socket cannot be used.
    """
    if isinstance(address, UnixAddress):
        return [_listen_unix(address, unix_mode)]
    host = address.host or environ.get(POD_ADDRESS_VARIABLE, "")
    try:
        if not host:
            return [_listen_everywhere(address.port)]
        found = await trio.socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _listen_on_all(
            list(dict.fromkeys((family, str(place[0])) for family, _, _, _, place in found)), address.port
        )
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {TcpAddress(host, address.port)}: {error.strerror or error}",
            hint="choose another port, or stop the program that uses it"
            if error.errno == errno.EADDRINUSE
            else "choose an address of this machine",
        ) from error


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    else:
        listener = socket.create_server(("", port), backlog=BACKLOG)
    listener.setblocking(False)
    return listener


def _listen_on_all(places: list[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    """Listen on all addresses that a name has on this machine. Raises OSError: none can be, or one is in use."""
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    for family, host in places:
        try:
            listeners.append(socket.create_server((host, port), family=family, backlog=BACKLOG))
        except OSError as error:
            failure = error
            if error.errno in _NOT_OURS:  # such as ::1 where the system has no IPv6
                continue
            for listener in listeners:
                listener.close()
            raise
        listeners[-1].setblocking(False)
        port = listeners[-1].getsockname()[1]
    if failure is not None and not listeners:
        raise failure
    return listeners


def _listen_unix(address: UnixAddress, mode: int | None) -> socket.socket:
    """Bind a unix socket that is never more open than `mode`, in the place of one that nobody serves any more."""
    path = address.path
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setblocking(False)
        if mode is not None:
            os.fchmod(listener.fileno(), mode)  # Linux creates the file with these permissions, less the umask
        _remove_dead_socket(path)
        listener.bind(str(path))
        if mode is not None:
            path.chmod(mode)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"cannot listen on {address}: somebody else serves it, or the file is no socket",
                hint="choose another path, or stop the program that uses it",
            ) from error
        raise StorageError(
            f"cannot make the socket {path}: {error.strerror}", hint="does its directory exist, and may it be written?"
        ) from error
    return listener


def _remove_dead_socket(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink(missing_ok=True)


def local_address(listener: socket.socket) -> str:
    """Return where others on this machine reach a listener: `host:port` or `unix:/path`."""
    place = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{place}"
    host = place[0]
    if host == "0.0.0.0":  # noqa: S104 - a name for it, not a bind
        host = "127.0.0.1"
    elif host == "::":
        host = "::1" if listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) else "127.0.0.1"
    return str(TcpAddress(host, place[1]))


def peer_address(connection: socket.socket) -> str:
    """Return `ip:port` of the other end of a TCP connection. Raises OSError when it is gone already."""
    place = connection.getpeername()
    return str(TcpAddress(str(place[0]).removeprefix("::ffff:"), place[1]))


def peer_uid(connection: socket.socket) -> int:
    """Return the user at the other end of a unix socket (SO_PEERCRED). Raises OSError."""
    _pid, uid, _gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


def peer_name(connection: socket.socket) -> str:
    """Return what the log calls the other end: `ip:port`, or `user N`. Raises OSError when it is gone already."""
    return f"user {peer_uid(connection)}" if connection.family == socket.AF_UNIX else peer_address(connection)


def peer_gids(connection: socket.socket) -> tuple[int, ...]:
    """Return the groups of the user at the other end of a unix socket, its own first, as they were when it connected.

    Of a user in more than 256 groups only its own group is told; rules about the others do not let it in.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return ()
    _pid, _uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        others = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS_BYTES)
    except OSError:  # ERANGE; or a kernel before 4.13, which does not tell
        others = b""
    return (int(gid), *struct.unpack(f"{len(others) // 4}I", others))
