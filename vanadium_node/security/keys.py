"""Keys and signatures: ECDSA on P-256 (ES256) and Ed25519 (EdDSA), in the forms of COSE (RFC 9053 §2).

A public key is a value. A private key shows nothing of itself: no content in its repr, no equality, no pickling.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NoReturn, Self, assert_never, cast

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError

MAX_KEY_BYTES: Final = 1024
"""More than any public key accepted here needs; what is longer is refused before it is parsed."""


class _Es256(ec.ECDSA):
    """ECDSA with SHA-256 (RFC 9053 §2.1). The base asks all of OpenSSL's ciphers whether signatures can be deterministic, when it
    is made, and that nobody wants: a third of a megabyte in each pod.
    """

    def __init__(self) -> None:
        pass

    @property
    def algorithm(self) -> SHA256:
        return _SHA256

    @property
    def deterministic_signing(self) -> bool:
        return False


_SHA256: Final = SHA256()
_ES256: Final = _Es256()
_COORDINATE_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
"""Of both kinds of keys: r and s, or R and S."""

_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of P-256. With (r, s) also (r, order - s) is a signature; only the one with the smaller s is made and accepted here,
so that nobody but the key's holder can make a second encoding of what it signed."""


class KeyType(Enum):
    """Kinds of keys. The value is the name on the command line."""

    ECDSA_P256 = "ecdsa256"
    ED25519 = "ed25519"

    @property
    def algorithm(self) -> int:
        """The COSE algorithm that its signatures use (RFC 9053 §2.1 ES256, §2.2 EdDSA)."""
        return -7 if self is KeyType.ECDSA_P256 else -8


_P256: Final = ec.SECP256R1()
_P256_HEAD: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_P256_BYTES: Final = 91
_ED25519_HEAD: Final = bytes.fromhex("302a300506032b6570032100")
_ED25519_BYTES: Final = 44
"""How a DER SubjectPublicKeyInfo begins, up to the key's own bytes (on P-256 the last of them, 04, belongs to the point), and its
length: the only forms (RFC 5480, RFC 8410)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key. `der` is its DER SubjectPublicKeyInfo in the one accepted form; equal keys have equal bytes."""

    der: bytes
    key_type: KeyType = field(compare=False)
    _key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey = field(compare=False, repr=False)

    @classmethod
    def decode(cls, der: bytes) -> Self:
        """Read a DER SubjectPublicKeyInfo.

        Raises:
            DecodeError: it is none, of another kind of key, or not in the form that this project writes.
        """
        try:
            if len(der) == _P256_BYTES and der.startswith(_P256_HEAD):
                point = der[len(_P256_HEAD) - 1 :]
                return cls(der, KeyType.ECDSA_P256, ec.EllipticCurvePublicKey.from_encoded_point(_P256, point))
            if len(der) == _ED25519_BYTES and der.startswith(_ED25519_HEAD):
                point = der[len(_ED25519_HEAD) :]
                return cls(der, KeyType.ED25519, ed25519.Ed25519PublicKey.from_public_bytes(point))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise DecodeError("the bytes are not a public key: its point is not on the curve") from error
        raise DecodeError("the bytes are not a public key on P-256 or Ed25519 (DER SubjectPublicKeyInfo, uncompressed)")

    @classmethod
    def from_key(cls, key: object) -> Self:
        """Wrap a public key of the cryptography library.

        Raises:
            DecodeError: it is neither on P-256 nor Ed25519.
        """
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            numbers = key.public_numbers()
            point = numbers.x.to_bytes(_COORDINATE_BYTES, "big") + numbers.y.to_bytes(_COORDINATE_BYTES, "big")
            return cls(_P256_HEAD + point, KeyType.ECDSA_P256, key)
        if isinstance(key, ed25519.Ed25519PublicKey):
            return cls(_ED25519_HEAD + key.public_bytes_raw(), KeyType.ED25519, key)
        raise DecodeError("the public key is neither on P-256 nor Ed25519, the kinds accepted here")

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read the text form.

        Raises:
            DecodeError: it is none.
        """
        return cls.decode(cbor.from_text(line, max_bytes=MAX_KEY_BYTES))

    @property
    def text(self) -> str:
        """The text form: base64url of the encoding, without padding."""
        return cbor.text(self.der)

    @property
    def fingerprint(self) -> str:
        """The first 16 bytes of the encoding's SHA-256, as `aa:bb:…`."""
        return hashlib.sha256(self.der).digest()[:16].hex(":")

    def __str__(self) -> str:
        return self.fingerprint

    def __hash__(self) -> int:
        return hash(self.der)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Tell whether `signature` (64 bytes, as in COSE) is this key's over `message`."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            if self.key_type is KeyType.ED25519:  # quicker to ask than the abstract class of a key
                cast("ed25519.Ed25519PublicKey", self._key).verify(signature, message)
            else:
                r = int.from_bytes(signature[:_COORDINATE_BYTES], "big")
                s = int.from_bytes(signature[_COORDINATE_BYTES:], "big")
                if s > _ORDER // 2:
                    return False
                key = cast("ec.EllipticCurvePublicKey", self._key)
                key.verify(encode_dss_signature(r, s), message, _ES256)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A private key, in this process's memory."""

    __slots__ = ("_key", "public_key")

    public_key: PublicKey

    def __init__(self, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = PublicKey.from_key(key.public_key())

    @classmethod
    def generate(cls, key_type: KeyType = KeyType.ECDSA_P256) -> Self:
        """Make a new key."""
        match key_type:
            case KeyType.ECDSA_P256:
                return cls(ec.generate_private_key(ec.SECP256R1()))
            case KeyType.ED25519:
                return cls(ed25519.Ed25519PrivateKey.generate())
            case _:
                assert_never(key_type)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> Self:
        """Read a PKCS#8 PEM.

        Raises:
            DecodeError: it is none, or of another kind of key.
            InputError: the passphrase is missing or wrong.
        """
        # Imported where they are used: programs without files of keys save the memory.
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(pem, passphrase)
        except TypeError as error:
            if passphrase is None:
                raise InputError("the private key is encrypted", hint="give its passphrase") from error
            raise InputError("the private key is not encrypted, but a passphrase was given") from error
        except (ValueError, UnsupportedAlgorithm, InternalError) as error:  # the last one of OpenSSL, over some damage
            if passphrase is not None:
                hint = "is the passphrase right? If it is, the key is damaged: restore it from a backup"
                raise InputError("the private key cannot be read", hint=hint) from error
            raise DecodeError("the bytes are not a private key (PKCS#8 PEM)") from error
        if isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
            return cls(key)
        raise DecodeError("the private key is neither on P-256 nor Ed25519, the kinds accepted here")

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """Return the key as PKCS#8 PEM, encrypted if there is a passphrase."""
        from cryptography.hazmat.primitives.serialization import (  # memory that only files of keys need
            BestAvailableEncryption,
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def sign(self, message: bytes) -> bytes:
        """Return the signature over `message`, 64 bytes as in COSE (ECDSA: r and s, RFC 9053 §2.1)."""
        if self.public_key.key_type is KeyType.ED25519:
            return cast("ed25519.Ed25519PrivateKey", self._key).sign(message)
        r, s = decode_dss_signature(cast("ec.EllipticCurvePrivateKey", self._key).sign(message, _ES256))
        s = min(s, _ORDER - s)
        return r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")

    def __repr__(self) -> str:
        return f"<PrivateKey of {self.public_key.fingerprint}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key does not leave its process")

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("private keys are not compared; compare their public keys")
