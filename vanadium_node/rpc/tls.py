"""TLS 1.3 over memory buffers, and its stand-in for unix sockets.

TLS gives privacy and a channel to bind to; who the peer is, the blessings say. So certificates here are made at start,
live in memory, and are not looked at. pyOpenSSL and not the standard library, because only it has the exporter (RFC 9266).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from vanadium_node.errors import ProtocolError
from vanadium_node.rpc import early_data
from vanadium_node.rpc.openssl import choose_groups, has_more
from vanadium_node.wire.handshake import BINDING_BYTES

ALPN: Final = b"vanadium/1"
EXPORTER_LABEL: Final = b"EXPORTER-Channel-Binding"
_RECORD_BYTES: Final = 1 << 14
"""What one record holds (RFC 8446 §5.1), and what one `send` of pyOpenSSL takes."""
_FLIGHT_BYTES: Final = 1 << 14
"""More than any flight of a handshake with a certificate like ours."""
_CIPHER_SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""In the order of browsers and gRPC: OpenSSL's own begins with AES-256, which costs more for every byte and handshake."""
_GROUPS: Final = b"X25519MLKEM768:X25519:P-256"
"""What a client offers. The first is OpenSSL's first too: what is recorded today shall not be read by tomorrow's quantum computers.
OpenSSL's own list has it send a share of X25519 as well, for servers without the first, which no server of this kind is; another
asks for the share that it wants."""


class Channel(Protocol):
    """Turns the bytes of frames into those of the socket, and back."""

    def encrypt(self, data: bytes) -> bytes:
        """Return what to send so that the peer reads `data`. Raises ProtocolError."""

    def decrypt(self, data: bytes) -> bytes | None:
        """Return what the peer sent, empty when a record is incomplete; None when it closed. Raises ProtocolError."""

    def close(self) -> bytes:
        """Return the bytes that say goodbye."""


class PlainChannel:
    """The channel of a unix socket: what is sent is what is read."""

    def encrypt(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    def decrypt(self, data: bytes) -> bytes | None:
        """Return `data`."""
        return data

    def close(self) -> bytes:
        """Return nothing: closing the socket says it."""
        return b""


class TlsChannel:
    """One TLS connection without a socket."""

    __slots__ = ("_held", "_is_early", "_tls", "is_done", "is_server", "may_speak")

    def __init__(self, tls: SSL.Connection, *, is_server: bool) -> None:
        self._tls = tls
        self._held = b""
        """What the peer sent with the end of its handshake, decrypted."""
        self._is_early = False
        """What is encrypted goes before the end of the handshake."""
        self.is_server = is_server
        """The peer speaks first."""
        self.is_done: bool = False
        """The handshake is over."""
        self.may_speak = False
        """Something can be encrypted: at a server, as soon as it has read the client's hello (`early_data`)."""

    @classmethod
    def accept(cls, context: SSL.Context) -> TlsChannel:
        """Start as a server."""
        tls = SSL.Connection(context, None)
        tls.set_accept_state()
        return cls(tls, is_server=True)

    @classmethod
    def connect(cls, context: SSL.Context) -> TlsChannel:
        """Start as a client."""
        tls = SSL.Connection(context, None)
        tls.set_connect_state()
        return cls(tls, is_server=False)

    def shake_hands(self, data: bytes) -> bool:
        """Go on with the handshake with what the peer sent, as far as `may_speak`, and then to its end; tell whether it is done.

        Raises:
            ProtocolError: it failed; an alert that tells the peer may wait in `take_pending`.
        """
        if data:
            self._tls.bio_write(data)
        try:
            if self.is_server and not self.may_speak and early_data.IS_AVAILABLE:
                self._is_early = early_data.hear_hello(self._tls)
            else:
                self._tls.do_handshake()
                self.is_done, self._is_early = True, False
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise ProtocolError(f"the TLS handshake failed: {_reason(error)}") from error
        if not self.may_speak and (self.is_done or self._is_early):
            if self._tls.get_alpn_proto_negotiated() != ALPN:
                raise ProtocolError(f"the peer does not speak {ALPN.decode()} (ALPN)")
            self.may_speak = True
        if self.is_done and has_more(self._tls):
            self._held = self.decrypt(b"") or b""
        return self.is_done

    @property
    def has_heard(self) -> bool:
        """Whether the peer has said something already, with the end of its handshake."""
        return bool(self._held)

    def take_pending(self) -> bytes:
        """Return the bytes that the handshake wants to send."""
        try:
            return self._tls.bio_read(_FLIGHT_BYTES)
        except SSL.WantReadError:
            return b""

    @property
    def binding(self) -> bytes:
        """What both ends of this channel have in common, and no other channel has."""
        return self._tls.export_keying_material(EXPORTER_LABEL, BINDING_BYTES, b"")

    def encrypt(self, data: bytes) -> bytes:
        """Return the records for `data`. Raises ProtocolError when the peer has broken the channel."""
        tls, size = self._tls, len(data)
        try:
            if self._is_early:
                early_data.write(tls, data)
            elif size <= _RECORD_BYTES:
                tls.send(data)
            else:
                view = memoryview(data)
                for start in range(0, size, _RECORD_BYTES):
                    tls.send(view[start : start + _RECORD_BYTES])
            return tls.bio_read(size + (size >> 6) + 4096)  # with room for what the handshake left
        except SSL.Error as error:
            raise ProtocolError(f"nothing can be sent any more: {_reason(error)}") from error

    def decrypt(self, data: bytes) -> bytes | None:
        """Return what is in the records; empty: none is complete; None: the peer closed. Raises ProtocolError."""
        tls = self._tls
        if data:
            tls.bio_write(data)
        parts: list[bytes] = []
        if self._held:
            parts.append(self._held)
            self._held = b""
            if not data:
                return parts[0]
        try:
            while True:
                parts.append(tls.recv(_RECORD_BYTES))
                if not has_more(tls):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
        except SSL.WantReadError:
            return b"".join(parts)
        except SSL.ZeroReturnError:
            return b"".join(parts) or None
        except SSL.Error as error:
            raise ProtocolError(f"what the peer sent is not TLS: {_reason(error)}") from error

    def close(self) -> bytes:
        """Return the bytes that say goodbye."""
        try:
            self._tls.shutdown()
        except SSL.Error:
            return b""  # the channel never was up, or is broken: there is nobody to say goodbye to
        return self.take_pending()


def server_context(now: datetime) -> SSL.Context:
    """Return a context with a fresh key and certificate, for one server."""
    context = _context(SSL.TLS_SERVER_METHOD)
    key = ec.generate_private_key(ec.SECP256R1())
    context.use_certificate(_certificate(key, now))
    context.use_privatekey(key)
    context.set_alpn_select_callback(_select_protocol)
    return context


@cache
def client_context() -> SSL.Context:
    """Return the context of all clients: it holds no key and no session, and making it costs half a TLS handshake."""
    context = _context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([ALPN])
    choose_groups(context, _GROUPS)
    # The certificate proves nothing; the blessings, bound to the channel, do.
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    # Resumption would save little next to the blessing handshake, and tickets outlive the keys they should protect.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_tls13_ciphersuites(_CIPHER_SUITES)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    return context


def _select_protocol(_connection: SSL.Connection, offered: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
    return ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _certificate(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vanadium")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )


def _reason(error: SSL.Error) -> str:
    """Return OpenSSL's own words about a failure: the last reason of the queue, which is about this connection."""
    if error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][-1][-1])
    return type(error).__name__ if not error.args else str(error.args[-1])
