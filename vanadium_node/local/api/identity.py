"""What the API proves itself with, and what its clients prove themselves with: a CA, a server key, a token, a kubeconfig.

All of it is made for one embedded cluster, in its directory, readable by its owner only. The CA's key signs the server's
certificate and is then forgotten: nothing else can ever be signed with it.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vanadium_node.storage.files import write_private

LIFETIME: Final = timedelta(days=3650)
"""How long the certificates are valid: longer than any embedded cluster lives."""

CONTEXT: Final = "vanadium-local"
"""The name of cluster, user and context in the kubeconfig."""

HOST: Final = "127.0.0.1"
_NAMES: Final = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """The files and the token of one API server."""

    ca_pem: bytes
    certificate_file: Path
    key_file: Path
    token: str

    @classmethod
    def create(cls, directory: Path, now: datetime, addresses: tuple[str, ...] = (HOST,)) -> ServerIdentity:
        """Make everything anew, in `directory`, for a server on these addresses.

        Raises:
            StorageError: the files cannot be written.
        """
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vanadium-node embedded cluster")])
        ca = _builder(ca_name, ca_name, ca_key.public_key(), now).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        ca_certificate = ca.add_extension(usage, critical=True).sign(ca_key, hashes.SHA256())
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
        alternatives = [x509.DNSName(n) for n in _NAMES] + [x509.IPAddress(ipaddress.ip_address(a)) for a in addresses]
        certificate = (
            _builder(name, ca_name, key.public_key(), now)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        identity = cls(
            ca_pem=ca_certificate.public_bytes(serialization.Encoding.PEM),
            certificate_file=directory / "tls.crt",
            key_file=directory / "tls.key",
            token=secrets.token_urlsafe(32),
        )
        write_private(identity.certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
        write_private(identity.key_file, _pem(key))
        return identity

    def kubeconfig(self, port: int) -> bytes:
        """Return the kubeconfig of a server that listens on `port`."""
        cluster = {
            "server": f"https://{HOST}:{port}",
            "certificate-authority-data": base64.b64encode(self.ca_pem).decode(),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": CONTEXT, "cluster": cluster}],
            "users": [{"name": CONTEXT, "user": {"token": self.token}}],
            "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": "default"}}],
            "current-context": CONTEXT,
        }
        return yaml.safe_dump(config, sort_keys=False).encode()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
