"""Bringing a connection up: the TLS handshake over a socket, and showing oneself on the channel it made."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from operator import attrgetter

import trio

from vanadium_node.errors import ProtocolError, UnreachableError
from vanadium_node.rpc.tls import TlsChannel
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.cose import SignatureType
from vanadium_node.security.principal import Principal
from vanadium_node.wire.frames import Auth
from vanadium_node.wire.handshake import Role, auth_frame, session_payload

_RECEIVE_BYTES = 1 << 14
MAX_HANDSHAKE_BYTES = 1 << 16
"""What a peer may send before the TLS handshake is done; an honest one needs 2 KiB."""


async def shake_hands(sock: socket.socket, channel: TlsChannel, is_heard: Callable[[], None] = lambda: None) -> None:
    """Do the TLS handshake, or what is left of it, on a non-blocking socket; `is_heard` is called when the peer has said something.

    What an end says last waits in the channel for what it encrypts next: at a server (RFC 8446 §4.6.1: tickets, which nobody
    uses), and at a client that has the server's first words already.

    Raises:
        ProtocolError: it failed; an alert has been sent where there is one to send.
        UnreachableError: the peer left, as a proxy does that has nobody behind it.
        OSError: the connection broke.
    """
    if not channel.is_server:
        channel.shake_hands(b"")
        await _send(sock, channel.take_pending())
    await _go_on(sock, channel, attrgetter("is_done"), is_heard)
    if not (channel.is_server or channel.has_heard):
        await _send(sock, channel.take_pending())


async def hear_hello(sock: socket.socket, channel: TlsChannel, is_heard: Callable[[], None]) -> None:
    """Do a server's part of the TLS handshake until it may speak; its answer to the hello waits in the channel for what it says.

    Raises as `shake_hands` does, which does the rest.
    """
    await _go_on(sock, channel, attrgetter("may_speak"), is_heard, is_likely_here=True)


async def _go_on(
    sock: socket.socket,
    channel: TlsChannel,
    is_far_enough: Callable[[TlsChannel], bool],
    is_heard: Callable[[], None],
    *,
    is_likely_here: bool = False,
) -> None:
    """Go on with the handshake with what the peer sends, until it has come as far as it should; the last answer is not sent yet.

    What `is_likely_here` already, because the peer was accepted after others, is not waited for: that costs more than looking.
    """
    received = 0
    while not is_far_enough(channel):
        data = _look(sock) if is_likely_here else None
        if data is None:
            data = await _receive(sock)
        is_likely_here = False
        is_heard()
        received += len(data)
        if not data:
            raise UnreachableError("the peer closed the connection during the TLS handshake")
        if received > MAX_HANDSHAKE_BYTES:
            raise ProtocolError(f"the peer sent more than {MAX_HANDSHAKE_BYTES} bytes for a TLS handshake")
        try:
            channel.shake_hands(data)
        except ProtocolError:
            await _send(sock, channel.take_pending())
            raise
        if not is_far_enough(channel):
            await _send(sock, channel.take_pending())


def _look(sock: socket.socket) -> bytes | None:
    try:
        return sock.recv(_RECEIVE_BYTES)
    except BlockingIOError:
        return None


async def _receive(sock: socket.socket) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(sock)
        data = _look(sock)
        if data is not None:
            return data


async def _send(sock: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def sign_auth(
    principal: Principal,
    role: Role,
    binding: bytes,
    blessings: Blessings | None,
    discharges: Sequence[bytes] = (),
) -> Auth:
    """Return the frame that shows `blessings` as this end's, with their encoded discharges, bound to the channel.

    Blessings of another key than the principal's are not shown: a principal behind an agent gets a new key when the agent is
    restarted, and blessings chosen just before would only be refused.
    """
    key = principal.public_key
    shown = blessings if blessings is not None and blessings.public_key == key else None
    payload = session_payload(role, binding, key.der, None if shown is None else shown.encoded, discharges)
    signed = await principal.sign(SignatureType.SESSION, payload)
    return auth_frame(key, shown, discharges, signed)
