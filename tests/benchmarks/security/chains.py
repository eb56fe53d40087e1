"""What signatures, chains and encodings cost: `python tests/benchmarks/security/chains.py`.

Every row is the best of short interleaved rounds, the one that other programs disturbed least; trust the ratios. Two are promised: a
cold chain of 4 against its raw signature checks (at most 1.25), and a warm one against a cold one (under 1/20); the exit status is 1
when one is missed. A raw check is what any verification must do: load the public key, and verify one signature over bytes that
are there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import trio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from vanadium_node.security.blessing import Blessings, Chain, ChainCache
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.certificate import chain_digest
from vanadium_node.security.cose import LocalSigner, SignatureType, prepare
from vanadium_node.security.keys import KeyType, PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.validation import CallContext, validate

MAX_COLD_OVER_RAW = 1.25
MAX_WARM_OVER_COLD = 1 / 20
LENGTH = 4
ROUNDS = 60
SECONDS_PER_ROUND = 0.004
NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured."""

    name: str
    microseconds: float

    def __str__(self) -> str:
        return f"{self.name:44} {self.microseconds:9.1f} µs"


async def chain_of(length: int) -> Blessings:
    """Return blessings of one chain, each certificate with an expiry, as they occur."""
    holder = Principal(LocalSigner(PrivateKey.generate()))
    blessings = await holder.bless_self("root")
    for number in range(1, length):
        key = PrivateKey.generate()
        caveat = Caveat.expiry(datetime(2030, 1, 1, tzinfo=UTC))
        blessings = await holder.bless(key.public_key, blessings, f"extension-{number}", [caveat])
        holder = Principal(LocalSigner(key))
    return blessings


def raw_checks(chain: Chain) -> Callable[[], None]:
    """Return a function that does the chain's signature checks with nothing around them."""
    checks: list[tuple[bytes, bytes, bytes]] = []
    signer, digest = chain.root_key, b""
    for certificate in chain.certificates:
        signed = certificate.signed
        message = prepare(SignatureType.BLESSING, signer.key_type, signed.payload, digest)
        r, s = (int.from_bytes(half, "big") for half in (signed.signature[:32], signed.signature[32:]))
        checks.append((signer.der, encode_dss_signature(r, s), message))
        signer, digest = certificate.public_key, chain_digest(digest, certificate.encoded)
    algorithm = ec.ECDSA(SHA256())

    def check() -> None:
        for der, signature, message in checks:
            key = load_der_public_key(der)
            assert isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(signature, message, algorithm)

    return check


def measure(functions: dict[str, Callable[[], object]]) -> dict[str, Row]:
    """Run the functions in turn, round after round, and return the best of each."""
    counts = {}
    for name, function in functions.items():
        begin = time.perf_counter()
        function()
        counts[name] = max(1, int(SECONDS_PER_ROUND / (time.perf_counter() - begin)))
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            begin = time.perf_counter()
            for _ in range(counts[name]):
                function()
            taken[name].append((time.perf_counter() - begin) / counts[name] * 1e6)
    return {name: Row(name, min(times)) for name, times in taken.items()}


def benchmark() -> dict[str, Row]:
    """Measure everything."""
    blessings = trio.run(chain_of, LENGTH)
    (chain,) = blessings.chains
    encoded = tuple(certificate.encoded for certificate in chain.certificates)
    cache = ChainCache()
    cache.verify(encoded)
    ecdsa, eddsa = PrivateKey.generate(), PrivateKey.generate(KeyType.ED25519)
    message = b"m" * 200
    by_ecdsa, by_eddsa = ecdsa.sign(message), eddsa.sign(message)
    roots = BlessingRoots().with_roots_of(blessings)
    context = CallContext(now=NOW, method="Get")
    return measure(
        {
            "sign, P-256": lambda: ecdsa.sign(message),
            "verify, P-256": lambda: ecdsa.public_key.verify(by_ecdsa, message),
            "sign, Ed25519": lambda: eddsa.sign(message),
            "verify, Ed25519": lambda: eddsa.public_key.verify(by_eddsa, message),
            "raw signature checks of a chain of 4": raw_checks(chain),
            "verify a chain of 4, cold": lambda: Chain.verify(encoded),
            "verify a chain of 4, warm": lambda: cache.verify(encoded),
            "decode blessings of it, cold": lambda: Blessings.decode(blessings.encoded),
            "decode blessings of it, warm": lambda: Blessings.decode(blessings.encoded, cache),
            "encode blessings of it": lambda: Blessings.from_chains([chain]),
            "validate its caveats and root": lambda: validate(blessings, roots, context),
        }
    )


def ratios(rows: dict[str, Row]) -> tuple[float, float]:
    """Return cold over raw, and warm over cold."""
    cold = rows["verify a chain of 4, cold"].microseconds
    return (
        cold / rows["raw signature checks of a chain of 4"].microseconds,
        rows["verify a chain of 4, warm"].microseconds / cold,
    )


if __name__ == "__main__":
    measured = benchmark()
    print("\n".join(map(str, measured.values())))
    cold_over_raw, warm_over_cold = ratios(measured)
    print(f"cold over raw: {cold_over_raw:.2f} (at most {MAX_COLD_OVER_RAW})")
    print(f"warm over cold: 1/{1 / warm_over_cold:.0f} (under 1/20)")
    sys.exit(cold_over_raw > MAX_COLD_OVER_RAW or warm_over_cold >= MAX_WARM_OVER_COLD)
