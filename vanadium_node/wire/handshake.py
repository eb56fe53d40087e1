"""Who may say what until both ends have shown their blessings, and what exactly each of them signs.

The server shows itself first; a client that does not trust it has then shown nothing. What is signed names the signer's
role (no reflection), the channel (no replay), and everything that is shown (no exchange of parts).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Final

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, NotTrustedError, ProtocolError
from vanadium_node.security.blessing import Blessings, ChainCache
from vanadium_node.security.cose import SignatureType, verify_signed
from vanadium_node.security.discharge import Discharge
from vanadium_node.security.keys import PublicKey
from vanadium_node.wire.frames import Auth

VERSIONS: Final = (1,)
"""Versions of the protocol spoken here, best first."""

BINDING_BYTES: Final = 32
"""Length of the channel binding: the TLS exporter `EXPORTER-Channel-Binding` (RFC 9266)."""

_MAX_SIGNED_BYTES: Final = 1024


class Role(StrEnum):
    """Which end of a connection; the value is what is signed."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> Role:
        """The other end's role."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


_SPOKEN: Final = list(VERSIONS)
_VERSIONS: Final = cbor.encode(_SPOKEN)
_DIGEST_HEAD: Final = cbor.bytes_head(hashlib.sha256().digest_size)
_ROLES: Final[Mapping[Role, bytes]] = MappingProxyType({role: cbor.encode(role.value) for role in Role})


class HandshakeState(Enum):
    """How far the two ends know each other."""

    START = auto()
    SHOWN = auto()
    """This end, a server, has shown itself."""
    SEEN = auto()
    """This end, a client, has seen the server, and decides."""
    OPEN = auto()
    """Both are known; calls may be made, and either may show itself again when its blessings are renewed."""


class HandshakeEvent(Enum):
    """A frame in one direction. A goaway is none of them: either end may leave at any time."""

    SENT_AUTH = auto()
    RECEIVED_AUTH = auto()
    SENT_OTHER = auto()
    RECEIVED_OTHER = auto()


_START, _SHOWN, _SEEN, _OPEN = HandshakeState

_TABLE: Final[Mapping[tuple[Role, HandshakeState], tuple[HandshakeState | None, ...]]] = {
    # event:                              SENT_AUTH RECEIVED_AUTH SENT_OTHER RECEIVED_OTHER
    (Role.SERVER, HandshakeState.START): (_SHOWN,  None,         None,      None),
    (Role.SERVER, HandshakeState.SHOWN): (None,    _OPEN,        None,      None),
    (Role.SERVER, HandshakeState.SEEN):  (None,    None,         None,      None),
    (Role.SERVER, HandshakeState.OPEN):  (_OPEN,   _OPEN,        _OPEN,     _OPEN),
    (Role.CLIENT, HandshakeState.START): (None,    _SEEN,        None,      None),
    (Role.CLIENT, HandshakeState.SHOWN): (None,    None,         None,      None),
    (Role.CLIENT, HandshakeState.SEEN):  (_OPEN,   None,         None,      None),
    (Role.CLIENT, HandshakeState.OPEN):  (_OPEN,   _OPEN,        _OPEN,     _OPEN),
}  # fmt: skip

TRANSITIONS: Final[Mapping[tuple[Role, HandshakeState, HandshakeEvent], HandshakeState | None]] = MappingProxyType(
    {
        (role, state, event): to
        for (role, state), row in _TABLE.items()
        for event, to in zip(HandshakeEvent, row, strict=True)
    }
)
"""Where each event leads an end in each state; None: it breaks the protocol, or is our own caller's mistake.

A server does not show renewed blessings to a client that has not shown itself yet (SHOWN, SENT_AUTH): a client that is still
deciding decides about one identity. Servers are never SEEN and clients never SHOWN; those rows allow nothing.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a peer has proved: it has the key, and these blessings are bound to it. Whether they count is another matter."""

    public_key: PublicKey
    blessings: Blessings | None
    discharges: tuple[Discharge, ...]
    version: int


def session_payload(
    role: Role, binding: bytes, public_key: bytes, blessings: bytes | None, discharges: Sequence[bytes]
) -> bytes:
    """Return what the end with that role signs to show itself on the channel with that binding."""
    return _signed_content(role, binding, _VERSIONS, public_key, blessings, discharges)


def _signed_content(
    role: Role, binding: bytes, versions: bytes, public_key: bytes, blessings: bytes | None, discharges: Sequence[bytes]
) -> bytes:
    """Return `[role, binding, SHA-256([versions, key, blessings, discharges])]`, put together from encoded parts."""
    head = cbor.bytes_head
    what = b"\xf6" if blessings is None else head(len(blessings)) + blessings
    more = cbor.encode(list(discharges)) if discharges else b"\x80"
    shown = hashlib.sha256(b"".join((b"\x84", versions, head(len(public_key)), public_key, what, more))).digest()
    return b"".join((b"\x83", _ROLES[role], head(len(binding)), binding, _DIGEST_HEAD, shown))


def auth_frame(public_key: PublicKey, blessings: Blessings | None, discharges: Sequence[bytes], signed: bytes) -> Auth:
    """Return the frame that shows this end, with the COSE_Sign1 over its `session_payload`."""
    encoded = None if blessings is None else blessings.encoded
    return Auth(0, list(VERSIONS), public_key.der, encoded, list(discharges), signed)


def _key(auth: Auth, cache: ChainCache | None) -> PublicKey:
    """Return the key that the peer says is its own; one that has been read before, with the blessings it shows, if it can be."""
    known = None if cache is None or auth.blessings is None else cache.find(auth.blessings)
    if known is not None and known.public_key.der == auth.public_key:
        return known.public_key
    return PublicKey.decode(auth.public_key)


def verify_auth(auth: Auth, role: Role, binding: bytes, cache: ChainCache | None = None) -> Credentials:
    """Return what the peer with that role has proved by its `auth` frame on the channel with that binding.

    The cheap checks come first, and the chains, which cost most, last.

    Raises:
        ProtocolError: the frame is malformed, or no version is common.
        NotTrustedError: the signature is not over this role, channel and content, or blessings are of another key.
    """
    version = next((v for v in VERSIONS if v in auth.versions), None)
    if version is None:
        raise ProtocolError(
            f"the peer speaks versions {auth.versions[:8]} of the protocol, and this end {list(VERSIONS)}"
        )
    try:
        key = _key(auth, cache)
        signed = verify_signed(SignatureType.SESSION, auth.signature, key, max_bytes=_MAX_SIGNED_BYTES)
        versions = _VERSIONS if auth.versions == _SPOKEN else cbor.encode(auth.versions)
        if signed != _signed_content(role, binding, versions, key.der, auth.blessings, auth.discharges):
            raise NotTrustedError("the peer's signature is of another connection, role or content")
        blessings = None if auth.blessings is None else Blessings.decode(auth.blessings, cache)
        discharges = tuple(Discharge.decode(each) for each in auth.discharges)
    except DecodeError as error:
        raise ProtocolError(f"the peer's credentials cannot be read: {error.message}") from error
    if blessings is not None and blessings.public_key != key:
        raise NotTrustedError(f"the peer showed blessings of another key, {blessings.public_key}, than its own, {key}")
    return Credentials(public_key=key, blessings=blessings, discharges=discharges, version=version)
