"""Keys and signatures."""

import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from vanadium_node.errors import DecodeError, InputError
from vanadium_node.security.cose import LocalSigner, Sign1, SignatureType, verify_signed
from vanadium_node.security.keys import KeyType, PrivateKey, PublicKey

LIMIT = 1 << 16
both = pytest.mark.parametrize("key_type", list(KeyType))


@both
def test_a_signature_is_good_for_its_key_and_message_only(key_type: KeyType) -> None:
    """Another message, another key, another length: no signature."""
    key, other = PrivateKey.generate(key_type), PrivateKey.generate(key_type)
    signature = key.sign(b"message")
    assert len(signature) == 64
    assert key.public_key.verify(signature, b"message")
    assert not key.public_key.verify(signature, b"messagf")
    assert not other.public_key.verify(signature, b"message")
    assert not key.public_key.verify(signature + b"\0", b"message")
    assert not key.public_key.verify(b"\0" * 64, b"message")


@both
def test_public_keys_are_values(key_type: KeyType) -> None:
    """Equal keys are equal, hash alike, and come back from both encodings."""
    key = PrivateKey.generate(key_type).public_key
    assert PublicKey.decode(key.der) == key == PublicKey.parse(key.text)
    assert hash(PublicKey.decode(key.der)) == hash(key)
    assert len(key.fingerprint) == 47
    assert str(key) == key.fingerprint


def test_keys_of_other_kinds_are_refused() -> None:
    """RSA, another curve, noise and oversize are no keys here."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    strange: list[rsa.RSAPublicKey | ec.EllipticCurvePublicKey] = [
        rsa.generate_private_key(65537, 2048).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
    ]
    encodings = [k.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for k in strange]
    for data in (*encodings, b"", b"noise", b"\x30" * 5000):
        with pytest.raises(DecodeError):
            PublicKey.decode(data)


def test_a_compressed_point_is_another_encoding_and_refused() -> None:
    """A key has one accepted encoding, so that equal keys have equal bytes."""
    key = PrivateKey.generate().public_key
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key.der[-65:])
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    compressed = point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    header = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    with pytest.raises(DecodeError):
        PublicKey.decode(header + compressed)


@both
def test_private_keys_are_kept_as_pem(key_type: KeyType) -> None:
    """A key comes back from its PEM, encrypted or not; a missing or wrong passphrase is told, without the key."""
    key = PrivateKey.generate(key_type)
    assert PrivateKey.from_pem(key.to_pem()).public_key == key.public_key
    locked = key.to_pem(b"secret")
    assert b"ENCRYPTED" in locked
    assert PrivateKey.from_pem(locked, b"secret").public_key == key.public_key
    with pytest.raises(InputError, match="encrypted; give its passphrase"):
        PrivateKey.from_pem(locked)
    with pytest.raises(InputError, match="is the passphrase right"):
        PrivateKey.from_pem(locked, b"wrong")
    with pytest.raises(DecodeError):
        PrivateKey.from_pem(b"noise")


def test_a_private_key_shows_nothing_of_itself() -> None:
    """It has no content in its repr, cannot be pickled, and is not compared."""
    key = PrivateKey.generate()
    assert repr(key) == f"<PrivateKey of {key.public_key.fingerprint}>"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        key == key  # noqa: B015, PLR0124


@both
async def test_no_signature_passes_for_another_kind(key_type: KeyType) -> None:
    """The type in the protected header, the payload and the context are all signed."""
    key = PrivateKey.generate(key_type)
    signed = await LocalSigner(key).sign(SignatureType.SESSION, b"payload", b"context")
    args = (SignatureType.SESSION, signed, key.public_key)
    assert verify_signed(*args, b"context", max_bytes=LIMIT) == b"payload"
    with pytest.raises(InputError):
        verify_signed(SignatureType.MESSAGE, signed, key.public_key, b"context", max_bytes=LIMIT)
    from vanadium_node.errors import NotTrustedError

    with pytest.raises(NotTrustedError):
        verify_signed(*args, b"other", max_bytes=LIMIT)
    with pytest.raises(NotTrustedError):
        verify_signed(
            SignatureType.SESSION, signed, PrivateKey.generate(key_type).public_key, b"context", max_bytes=LIMIT
        )


async def test_every_changed_byte_is_noticed() -> None:
    """No byte of a signed value can be changed: it is malformed, or the signature is not good."""
    key = PrivateKey.generate()
    signed = await LocalSigner(key).sign(SignatureType.MESSAGE, b"payload")
    for at in range(len(signed)):
        changed = signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :]
        try:
            read = Sign1.decode(SignatureType.MESSAGE, changed, max_bytes=LIMIT)
        except DecodeError:
            continue
        assert not read.is_signed_by(key.public_key)


def test_there_is_one_signature_not_two() -> None:
    """Of the two signatures that ECDSA has for each, (r, s) and (r, order - s), only the smaller counts and is made."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    key = PrivateKey.generate()
    for number in range(8):
        message = bytes([number])
        signature = key.sign(message)
        s = int.from_bytes(signature[32:], "big")
        assert s <= order // 2
        assert key.public_key.verify(signature, message)
        assert not key.public_key.verify(signature[:32] + (order - s).to_bytes(32, "big"), message)
