"""Non-blocking sockets: dialling, listening, and who is at the other end.

In a pod of the embedded cluster, `VANADIUM_POD_IP` is the pod's own address: `:PORT` listens on it alone, and connections
are made from it. `VANADIUM_HOSTS` names a file in the syntax of /etc/hosts that is asked before the system's resolver.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import Mapping
from pathlib import Path

import trio

from vanadium_node.errors import ConfigurationError, StorageError, UnreachableError
from vanadium_node.rpc.naming import Address, TcpAddress, UnixAddress

POD_ADDRESS_VARIABLE = "VANADIUM_POD_IP"
HOSTS_VARIABLE = "VANADIUM_HOSTS"
BACKLOG = 512


async def dial(address: Address, environ: Mapping[str, str] = os.environ) -> socket.socket:
    """Return a connected, non-blocking socket. Raises UnreachableError, naming the address and the system's reason."""
    try:
        if isinstance(address, UnixAddress):
            return await _dial_unix(address.path)
        host = _look_up(address.host, environ)
        own = environ.get(POD_ADDRESS_VARIABLE) or None
        version = _ip_version(host)
        if own is not None and version not in (None, _ip_version(own)):
            own = None
        if version is not None:
            return await _dial_ip(host, address.port, version, own)
        stream = await trio.open_tcp_stream(host, address.port, local_address=own)
    except (OSError, ValueError) as error:
        raise UnreachableError(
            f"nobody answers at {address}: {_why(error)}", hint="is the server running, and is the address right?"
        ) from error
    connected = socket.socket(fileno=stream.socket.detach())
    connected.setblocking(False)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


async def _dial_ip(host: str, port: int, version: int, own: str | None) -> socket.socket:
    """Connect to an IP address. Names go through trio's happy eyeballs, which cost more than a TLS handshake's half."""
    connection = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if own is not None:
            connection.bind((own, 0))
        code = connection.connect_ex((host, port))
        if code == errno.EINPROGRESS and (code := connection.connect_ex((host, port))) == errno.EALREADY:
            await trio.lowlevel.wait_writable(connection)
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code not in (
            0,
            errno.EISCONN,
        ):  # the second attempt tells what became of the first: nothing waits on one machine
            raise OSError(code, os.strerror(code))
    except BaseException:
        connection.close()
        raise
    return connection


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


def _look_up(host: str, environ: Mapping[str, str]) -> str:
    """Return the address that the pod's hosts file gives a name, or the name itself."""
    file = environ.get(HOSTS_VARIABLE)
    if not file:
        return host
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return host  # a pod without the file has the system's resolver
    for line in lines:
        fields = line.partition("#")[0].split()
        if host in fields[1:]:
            return fields[0]
    return host


def _ip_version(host: str) -> int | None:
    """Return 4 or 6 for an IP address, None for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return None


def _why(error: BaseException) -> str:
    """Return the system's words for a failed connection; trio wraps several attempts into one error."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(_why(each) for each in cause.exceptions))
    if isinstance(cause, OSError):
        return _why(cause)
    if isinstance(error, socket.gaierror):
        return error.strerror or "the name is unknown"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)


async def listen(
    address: Address, *, unix_mode: int | None = None, environ: Mapping[str, str] = os.environ
) -> list[socket.socket]:
    """Return non-blocking sockets that listen at the address.

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
        return [_listen_tcp(family, place) for family, _, _, _, place in found[:1]]
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


def _listen_tcp(family: int, place: tuple[object, ...]) -> socket.socket:
    listener = socket.create_server((str(place[0]), int(str(place[1]))), family=family, backlog=BACKLOG)
    listener.setblocking(False)
    return listener


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
    host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(place[0], place[0])  # noqa: S104 - a name for it, not a bind
    return str(TcpAddress(host, place[1]))


def peer_address(connection: socket.socket) -> str:
    """Return `ip:port` of the other end, empty for unix sockets. Raises OSError when it is gone already."""
    if connection.family == socket.AF_UNIX:
        return ""
    place = connection.getpeername()
    return str(TcpAddress(str(place[0]).removeprefix("::ffff:"), place[1]))


def peer_uid(connection: socket.socket) -> int | None:
    """Return the user at the other end of a unix socket (SO_PEERCRED); None for other sockets."""
    if connection.family != socket.AF_UNIX:
        return None
    _pid, uid, _gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
