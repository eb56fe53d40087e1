"""Keys and names for both sides, made afresh in one folder: credentials directories for this project, X.509 for grpcio."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.storage.credentials import CredentialsDirectory

SERVER, CLIENT = "server", "client"


async def make_identities(folder: Path) -> None:
    """Make all of them: both ends of either system have a key of their own, vouched for by a root."""
    await _make_principals(folder)
    _make_certificates(folder)


def own_principal(folder: Path, who: str) -> Principal:
    """Return this project's identity for one end."""
    return CredentialsDirectory(folder / who).open()


def certificate_files(folder: Path, who: str) -> tuple[bytes, bytes, bytes]:
    """Return grpcio's identity for one end: the root's certificate, the key, the certificate, all as PEM."""
    read = (folder / "ca.crt", folder / f"{who}.key", folder / f"{who}.crt")
    return read[0].read_bytes(), read[1].read_bytes(), read[2].read_bytes()


async def _make_principals(folder: Path) -> None:
    root = await Principal.create(PrivateKey.generate(), "root")
    own = root.store.default
    if own is None:
        raise RuntimeError("a principal that blessed itself has no blessings")
    for who, extension in ((SERVER, "server"), (CLIENT, "server:client")):
        principal = await CredentialsDirectory(folder / who).create(PrivateKey.generate(), who)
        blessings = await root.bless(principal.public_key, own, extension, [Caveat.unconstrained()])
        await principal.set_default(blessings)
        await principal.set_for_peer(blessings, Pattern.parse("..."))
        await principal.add_roots_of(blessings)


def _make_certificates(folder: Path) -> None:
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("benchmark root", ca_key, "benchmark root", ca_key)
    (folder / "ca.crt").write_bytes(ca.public_bytes(Encoding.PEM))
    for who in (SERVER, CLIENT):
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{who}.key").write_bytes(pem)
        (folder / f"{who}.crt").write_bytes(_certificate(who, key, "benchmark root", ca_key).public_bytes(Encoding.PEM))


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=key is issuer_key, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .sign(issuer_key, hashes.SHA256())
    )
