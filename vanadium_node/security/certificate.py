"""A certificate binds one more extension of a name to a public key, under caveats, on top of the chain before it."""

import hashlib
from dataclasses import dataclass
from typing import Final, Self

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import Sign1, SignatureType, Signer
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import check_extension

MAX_CERTIFICATE_BYTES: Final = 64 * 1024
MAX_CAVEATS: Final = 64


@dataclass(frozen=True, slots=True)
class Certificate:
    """One link of a chain. It is well-formed; that its signature is good is known of the chain that holds it."""

    extension: str
    public_key: PublicKey
    caveats: tuple[Caveat, ...]
    signed: Sign1

    @property
    def encoded(self) -> bytes:
        """The certificate as signed: a COSE_Sign1."""
        return self.signed.encoded

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read a certificate.

        Raises:
            DecodeError: it is none.
        """
        signed = Sign1.decode(SignatureType.BLESSING, encoded, max_bytes=MAX_CERTIFICATE_BYTES)
        value = cbor.decode(signed.payload, max_bytes=MAX_CERTIFICATE_BYTES)
        if type(value) is not list or [type(part) for part in value] != [str, bytes, list]:
            raise DecodeError("a certificate is not [extension, public key, caveats]")
        extension, der, caveats = value
        if len(caveats) > MAX_CAVEATS:
            raise DecodeError(f"a certificate has {len(caveats)} caveats; at most {MAX_CAVEATS} are accepted")
        try:
            check_extension(extension)
        except InputError as error:
            raise DecodeError(f"a certificate has no good name: {error}") from error
        return cls(extension, PublicKey.decode(der), tuple(map(Caveat.decode, caveats)), signed)

    @classmethod
    async def sign(
        cls, signer: Signer, extension: str, public_key: PublicKey, caveats: tuple[Caveat, ...], chain_digest: bytes
    ) -> Self:
        """Make a certificate on top of the chain with that digest (empty: the root of a new one).

        Raises:
            InputError: the extension or the number of caveats is not allowed.
        """
        check_extension(extension)
        if len(caveats) > MAX_CAVEATS:
            raise InputError(f"a certificate takes at most {MAX_CAVEATS} caveats, not {len(caveats)}")
        payload = cbor.encode([extension, public_key.der, [c.to_value() for c in caveats]])
        encoded = await signer.sign(SignatureType.BLESSING, payload, chain_digest)
        return cls.decode(encoded)


def chain_digest(before: bytes, encoded: bytes) -> bytes:
    """Return the digest of a chain with one more certificate; `before` is that of the chain without it, or empty.

    d0 = SHA-256(c0), di = SHA-256(d(i-1) || SHA-256(ci)).
    """
    own = hashlib.sha256(encoded).digest()
    return hashlib.sha256(before + own).digest() if before else own
