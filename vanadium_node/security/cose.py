"""Signed things: COSE_Sign1 (RFC 9052 §4.2) with a type in the protected header, so that no signature passes for another.

Signing is prepare → signature → attach, because the key may live in another process.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, NotTrustedError
from vanadium_node.security.keys import KeyType, PrivateKey, PublicKey

SIGN1_TAG: Final = b"\xd2"
"""CBOR tag 18, COSE_Sign1: the one byte before the array."""

_ALGORITHM: Final = 1
_TYPE: Final = 16
"""Header `typ` (RFC 9596)."""


class SignatureType(StrEnum):
    """What a signature is for."""

    BLESSING = "vanadium-blessing"
    DISCHARGE = "vanadium-discharge"
    MESSAGE = "vanadium-message"
    SESSION = "vanadium-session"
    STORE = "vanadium-store"


_PROTECTED: Final[dict[tuple[SignatureType, KeyType], bytes]] = {
    (kind, key_type): cbor.encode({_ALGORITHM: key_type.algorithm, _TYPE: str(kind)})
    for kind in SignatureType
    for key_type in KeyType
}
"""Every protected header that can occur, encoded: a header is right or it is refused, so it is never parsed."""


class Signer(Protocol):
    """Whoever can sign with a key: this process or a pod agent."""

    @property
    def public_key(self) -> PublicKey:
        """The public half of the key that signs."""

    async def sign(self, kind: SignatureType, payload: bytes, external_aad: bytes = b"") -> bytes:
        """Return the encoded COSE_Sign1 over the payload."""


@dataclass(frozen=True, slots=True)
class LocalSigner:
    """Signs with a private key of this process; never suspends."""

    private_key: PrivateKey

    @property
    def public_key(self) -> PublicKey:
        """The public half of the key."""
        return self.private_key.public_key

    async def sign(self, kind: SignatureType, payload: bytes, external_aad: bytes = b"") -> bytes:
        """Return the encoded COSE_Sign1 over the payload."""
        key_type = self.public_key.key_type
        signature = self.private_key.sign(prepare(kind, key_type, payload, external_aad))
        return attach(kind, key_type, payload, signature)


def prepare(kind: SignatureType, key_type: KeyType, payload: bytes, external_aad: bytes = b"") -> bytes:
    """Return the bytes to sign: the Sig_structure of RFC 9052 §4.4."""
    return cbor.encode(["Signature1", _PROTECTED[kind, key_type], external_aad, payload])


def attach(kind: SignatureType, key_type: KeyType, payload: bytes, signature: bytes) -> bytes:
    """Return the encoded COSE_Sign1 with its signature."""
    return SIGN1_TAG + cbor.encode([_PROTECTED[kind, key_type], {}, payload, signature])


@dataclass(frozen=True, slots=True)
class Sign1:
    """A COSE_Sign1 whose signature is not checked yet."""

    kind: SignatureType
    key_type: KeyType
    payload: bytes
    signature: bytes
    encoded: bytes

    @classmethod
    def decode(cls, kind: SignatureType, encoded: bytes, *, max_bytes: int) -> "Sign1":
        """Take a COSE_Sign1 of type `kind` apart.

        Raises:
            DecodeError: it is none, of another type, or not encoded canonically.
        """
        if encoded[:1] != SIGN1_TAG:
            raise DecodeError("a signed value does not begin as a COSE_Sign1")
        parts = cbor.decode(encoded[1:], max_bytes=max_bytes)
        match parts:
            case [bytes(protected), {**unprotected}, bytes(payload), bytes(signature)] if not unprotected:
                pass
            case _:
                raise DecodeError("a signed value is not the array of a COSE_Sign1")
        for key_type in KeyType:
            if protected == _PROTECTED[kind, key_type]:
                return cls(kind, key_type, payload, signature, encoded)
        raise DecodeError(f"a signed value is not of the type '{kind}' with an algorithm accepted here")

    def is_signed_by(self, key: PublicKey, external_aad: bytes = b"") -> bool:
        """Tell whether the signature is that key's over this payload and the given context."""
        if key.key_type is not self.key_type:
            return False
        return key.verify(self.signature, prepare(self.kind, self.key_type, self.payload, external_aad))


def verify_signed(
    kind: SignatureType, encoded: bytes, key: PublicKey, external_aad: bytes = b"", *, max_bytes: int
) -> bytes:
    """Return the payload of a COSE_Sign1 that `key` signed.

    Raises:
        DecodeError: it is none of that type.
        NotTrustedError: the signature is not that key's.
    """
    signed = Sign1.decode(kind, encoded, max_bytes=max_bytes)
    if not signed.is_signed_by(key, external_aad):
        raise NotTrustedError(f"a signature of type '{kind}' is not by the key {key.fingerprint}, or not over this")
    return signed.payload
