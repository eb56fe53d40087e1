"""The search for secrets finds each form in which one may be written down, wherever it stands, and nothing else."""

import base64
import json
import os
import random
import subprocess
import textwrap
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from taint_forms import Taint, TaintSearch
from taint_hooks import scalar

from vanadium_node import cbor

Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PLACES = [b"", b"x", b"key: '", b'{"a": "', b"12345", b"2026-01-01T00:00:00Z INFO "]
"""What stands before it; the lengths differ by more than the search's steps."""


def der(key: Private, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """Return the key in one of the forms of files."""
    return key.private_bytes(Encoding.DER, form, NoEncryption())


def pem(key: Private) -> bytes:
    """Return the key as its file holds it, in lines."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def openssl_text(key: Private) -> bytes:
    """Return the key as `openssl pkey -text` shows it."""
    done = subprocess.run(["openssl", "pkey", "-text"], input=pem(key), capture_output=True, check=True)
    return done.stdout.partition(b"-----END")[2]


FORMS: dict[str, Callable[[Private], bytes]] = {
    "bytes": scalar,
    "PKCS#8 DER": der,
    "SEC 1 DER": lambda key: scalar(key) if isinstance(key, ed25519.Ed25519PrivateKey) else der(key, PrivateFormat.TraditionalOpenSSL),
    "PEM": pem,
    "PEM in one line": lambda key: pem(key).replace(b"\n", b""),
    "PEM in JSON": lambda key: json.dumps(pem(key).decode()).encode(),
    "PEM in YAML": lambda key: textwrap.indent(pem(key).decode(), "    ").encode(),
    "PEM with Windows' lines": lambda key: pem(key).replace(b"\n", b"\r\n"),
    "PEM in a repr": lambda key: repr([pem(key)]).encode(),
    "base64 of the PEM": lambda key: base64.b64encode(pem(key)),
    "hex": lambda key: scalar(key).hex().encode(),
    "upper hex": lambda key: scalar(key).hex().upper().encode(),
    "hex in groups": lambda key: scalar(key).hex(":").encode(),
    "hex in words": lambda key: scalar(key).hex(" ", 4).encode(),
    "hex of the DER": lambda key: der(key).hex().encode(),
    "base64": lambda key: base64.b64encode(scalar(key)),
    "base64 after 1 byte": lambda key: base64.b64encode(b"\x00" + scalar(key)),
    "base64 after 2 bytes": lambda key: base64.b64encode(b"\x00\x01" + scalar(key) + b"more"),
    "base64url": lambda key: base64.urlsafe_b64encode(scalar(key)),
    "base64url without padding": lambda key: cbor.text(scalar(key)).encode(),
    "base64url of the DER": lambda key: cbor.text(der(key)).encode(),
    "MIME": lambda key: base64.encodebytes(b"some bytes before it" + scalar(key)),
    "decimal": lambda key: str(int.from_bytes(scalar(key), "big")).encode(),
    "repr of bytes": lambda key: repr(scalar(key)).encode(),
    "repr of a repr": lambda key: repr(b"it's " + scalar(key)).encode(),
    "list of numbers": lambda key: str(list(scalar(key))).encode(),
    "JSON list of numbers": lambda key: json.dumps(list(scalar(key)), indent=2).encode(),
    "CBOR": lambda key: cbor.encode(["a", scalar(key)]),
    "openssl's text": openssl_text,
}  # fmt: skip


def make_p256() -> Private:
    """Return a key that is no secret to the watch of this session: the tests here show it."""
    return ec.derive_private_key(int.from_bytes(os.urandom(32)) % 2**255 + 1, ec.SECP256R1())


@pytest.mark.parametrize("make", [make_p256, ed25519.Ed25519PrivateKey.generate], ids=["P-256", "Ed25519"])
@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_found(make: Callable[[], Private], form: str) -> None:
    """Among others, in each form, at each place in a text."""
    keys = [make() for _ in range(20)]
    search = TaintSearch()
    for key in keys:
        search.add(Taint.of("private key", scalar(key)))
    for key, before in zip(keys, PLACES * 4, strict=False):
        text = before + FORMS[form](key) + b"' and more\n"
        assert {found.kind for found in search.find(text)} == {"private key"}, form


@pytest.mark.parametrize("before", range(9))
def test_a_part_of_a_secret_is_found(before: int) -> None:
    """As text, cut off, as its bytes, and as the data of a Kubernetes Secret, which encodes the text once more."""
    value = os.urandom(256)
    text = cbor.text(value).encode()
    search = TaintSearch()
    search.add(Taint.of("secret", text.decode()))
    forms = [text, text[:100], text[-150:], value, value[64:128], value.hex().encode(), base64.b64encode(text)]
    forms += [json.dumps({"data": {"secret": base64.b64encode(text).decode()}}).encode(), repr(value).encode()]
    for form in forms:
        assert {found.kind for found in search.find(b"x" * before + form + b" etc")} == {"secret"}, form[:10]


def test_nothing_else_is_found() -> None:
    """Not in what is public or random, nor in what begins like a secret and goes on otherwise."""
    chance = random.Random(1)
    search = TaintSearch()
    keys = [chance.randbytes(32) for _ in range(500)]
    for key in keys:
        search.add(Taint.of("private key", key))
    public = [
        chance.randbytes(40_000),
        chance.randbytes(40_000).hex().encode(),
        base64.b64encode(chance.randbytes(40_000)),
    ]
    public += [key[:31] + bytes([key[31] ^ 1]) + b"tail" for key in keys]
    public += [(key[:30] + b"--").hex().encode() for key in keys] + [
        b"",
        b"short",
        b"".join(str(chance.getrandbits(9_000)).encode() for _ in range(9)),
    ]
    assert len(search) == 500
    assert not set().union(*map(search.find, public))


def test_what_is_found_does_not_show_it() -> None:
    """A taint and what was found are named without their values."""
    value = os.urandom(32)
    search = TaintSearch()
    search.add(Taint.of("private key", value))
    shown = repr(Taint.of("private key", value)) + repr(search.find(b"a" + value))
    assert "private key" in shown
    assert not search.find(shown.encode())
