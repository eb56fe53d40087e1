"""Signed things: COSE_Sign1 (RFC 9052 §4.2) with a type in the protected header, so that no signature passes for another.

Signing is prepare → signature → attach, because the key may live in another process.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, Self

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, NotTrustedError
from vanadium_node.security.keys import SIGNATURE_BYTES, KeyType, PrivateKey, PublicKey

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


@dataclass(frozen=True, slots=True)
class _Form:
    """What is the same in everything signed for one purpose by one kind of key, encoded.

    `head` is how a COSE_Sign1 begins, up to its payload: tag 18, an array of four, the protected header, an empty map.
    `to_sign` is how its Sig_structure begins, up to the external data: an array of four, the context, the protected header.
    """

    key_type: KeyType
    head: bytes
    to_sign: bytes

    @classmethod
    def of(cls, kind: SignatureType, key_type: KeyType) -> Self:
        protected = cbor.encode({_ALGORITHM: key_type.algorithm, _TYPE: str(kind)})
        field = cbor.bytes_head(len(protected)) + protected
        return cls(key_type, b"\xd2\x84" + field + b"\xa0", b"\x84" + cbor.encode("Signature1") + field)


_FORMS: Final = {kind: tuple(_Form.of(kind, key_type) for key_type in KeyType) for kind in SignatureType}
"""Every form that can occur: a header is right or it is refused, so it is never parsed."""

_SIGNATURE_HEAD: Final = cbor.bytes_head(SIGNATURE_BYTES)


def _form(kind: SignatureType, key_type: KeyType) -> _Form:
    first, second = _FORMS[kind]
    return first if first.key_type is key_type else second


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
    return _to_sign(_form(kind, key_type), payload, external_aad)


def attach(kind: SignatureType, key_type: KeyType, payload: bytes, signature: bytes) -> bytes:
    """Return the encoded COSE_Sign1 with its signature."""
    head = _form(kind, key_type).head
    return b"".join((head, cbor.bytes_head(len(payload)), payload, _SIGNATURE_HEAD, signature))


_NO_CONTEXT: Final = cbor.bytes_head(0)


def _to_sign(form: _Form, payload: bytes, aad: bytes) -> bytes:
    context = cbor.bytes_head(len(aad)) + aad if aad else _NO_CONTEXT
    return b"".join((form.to_sign, context, cbor.bytes_head(len(payload)), payload))


@dataclass(frozen=True, slots=True)
class Sign1:
    """A COSE_Sign1 whose signature is not checked yet."""

    form: _Form
    payload: bytes
    signature: bytes
    encoded: bytes

    @classmethod
    def decode(cls, kind: SignatureType, encoded: bytes, *, max_bytes: int) -> Self:
        """Take a COSE_Sign1 of type `kind` apart.

        Raises:
            DecodeError: it is none, of another type, longer than `max_bytes`, or not encoded canonically.
        """
        if len(encoded) > max_bytes:
            raise DecodeError(f"a signed value is {len(encoded)} bytes long; at most {max_bytes} are accepted")
        for form in _FORMS[kind]:
            if encoded.startswith(form.head):
                payload, end = cbor.bytes_at(encoded, len(form.head))
                begin = end + len(_SIGNATURE_HEAD)
                if encoded[end:begin] != _SIGNATURE_HEAD or len(encoded) != begin + SIGNATURE_BYTES:
                    raise DecodeError("a signed value does not end with a signature")
                return cls(form, payload, encoded[begin:], encoded)
        raise DecodeError(f"a signed value is no COSE_Sign1 of the type '{kind}' with an algorithm accepted here")

    def is_signed_by(self, key: PublicKey, external_aad: bytes = b"") -> bool:
        """Tell whether the signature is that key's over this payload and the given context."""
        if key.key_type is not self.form.key_type:
            return False
        return key.verify(self.signature, _to_sign(self.form, self.payload, external_aad))


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
