"""Writes the golden vectors: `python make_vectors.py DIRECTORY`. Keys are constants, signatures deterministic; see README.md."""

import hashlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cbor2
import trio
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vanadium_node import cbor
from vanadium_node.security.blessing import Blessings, Chain
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.certificate import Certificate, chain_digest
from vanadium_node.security.cose import SignatureType, attach, prepare
from vanadium_node.security.discharge import Discharge, Requirements, ThirdParty
from vanadium_node.security.keys import KeyType, PublicKey

Entry = dict[str, object]
TIME = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class VectorSigner:
    """Signs as a `LocalSigner` does, with a key that is a number, and the same signature each time."""

    def __init__(self, number: int, key_type: KeyType = KeyType.ECDSA_P256) -> None:
        self._ecdsa = ec.derive_private_key(number, ec.SECP256R1())
        self._eddsa = ed25519.Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
        is_ecdsa = key_type is KeyType.ECDSA_P256
        self.public_key = PublicKey.from_key((self._ecdsa if is_ecdsa else self._eddsa).public_key())

    def raw(self, message: bytes, *, high: bool = False) -> bytes:
        """Return the signature of COSE; `high`: the other one of ECDSA's two."""
        if self.public_key.key_type is KeyType.ED25519:
            return self._eddsa.sign(message)
        r, s = decode_dss_signature(self._ecdsa.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
        s = max(s, ORDER - s) if high else min(s, ORDER - s)
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    async def sign(self, kind: SignatureType, payload: bytes, external_aad: bytes = b"") -> bytes:
        """Return the encoded COSE_Sign1."""
        key_type = self.public_key.key_type
        return attach(kind, key_type, payload, self.raw(prepare(kind, key_type, payload, external_aad)))


ROOT, SHOP, CART, OTHER = VectorSigner(1001), VectorSigner(1002), VectorSigner(1003), VectorSigner(1004)
EDWARD = VectorSigner(1005, KeyType.ED25519)
FREE = Caveat.unconstrained()


async def chain_of(*links: tuple[VectorSigner, str, tuple[Caveat, ...]]) -> Chain:
    """Return the chain of these holders, each blessed by the one before."""
    certificates: list[Certificate] = []
    signer, digest = links[0][0], b""
    for holder, extension, caveats in links:
        certificates.append(await Certificate.sign(signer, extension, holder.public_key, caveats, digest))
        signer, digest = holder, chain_digest(digest, certificates[-1].encoded)
    return Chain(tuple(certificates), digest)


def keys() -> dict[str, list[Entry]]:
    """Return the vectors of public keys."""
    good = [(name, holder.public_key) for name, holder in (("P-256", ROOT), ("Ed25519", EDWARD))]
    p256 = ROOT.public_key.der
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256[26:])
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    p384 = ec.derive_private_key(7, ec.SECP384R1()).public_key().public_bytes(*spki)
    weak = rsa.RSAPublicNumbers(65537, (1 << 2047) + 981).public_key().public_bytes(*spki)
    compressed = point.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    bad = {
        "empty": b"",
        "cut off": p256[:-1],
        "a byte too many": p256 + b"\0",
        "a point that is not on the curve": p256[:-1] + bytes([p256[-1] ^ 1]),
        "a compressed point": bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + compressed,
        "P-384": p384,
        "RSA": weak,
    }
    return {
        "good": [{"name": n, "der": k.der.hex(), "fingerprint": str(k), "text": k.text} for n, k in good],
        "bad": [{"why": why, "der": der.hex()} for why, der in bad.items()],
    }


def caveats() -> dict[str, list[Entry]]:
    """Return the vectors of caveats."""
    good = [
        FREE,
        Caveat.const(False),
        Caveat.expiry(TIME),
        Caveat.not_before(TIME),
        Caveat.method("Get", "Add"),
        Caveat.method(),
        Caveat.peer_blessings("root:shop", "root:admin:$", "..."),
        Caveat.access_tag("Read", "Write"),
        Caveat.peer_address("10.0.0.0/8", "fd00::/8"),
        third_party().to_caveat(),
        Caveat.of(999, "of the future"),
        Caveat.of(1024, {"limit": 5}),
    ]
    bad: dict[str, object] = {
        "no array": 1,
        "one element": [0],
        "an id that is text": ["0", True],
        "an id that is a boolean": [True, True],
        "a negative id": [-1, True],
        "an id that is too large": [1 << 32, True],
        "const with an integer": [0, 1],
        "expiry with text": [1, "now"],
        "expiry before 1970": [1, -1],
        "expiry after the year 9998": [1, 1 << 60],
        "method with text": [2, "Get"],
        "method with integers": [2, [1]],
        "peer blessings with something that is no pattern": [3, ["a::b"]],
        "access tag with null": [4, None],
        "third party with a short nonce": [5, [b"short", ROOT.public_key.der, "/x:1", [], [False] * 3]],
        "third party with a caveat that is none": [5, [b"n" * 16, ROOT.public_key.der, "/x:1", [1], [False] * 3]],
        "peer address with a host bit set": [7, ["10.0.0.1/8"]],
    }
    return {
        "good": [{"cbor": cbor.encode(c.to_value()).hex(), "id": int(c.id), "text": str(c)} for c in good],
        "bad": [{"why": why, "cbor": cbor.encode(value).hex()} for why, value in bad.items()],
    }


async def blessings() -> dict[str, list[Entry]]:
    """Return the vectors of blessings."""
    root = (ROOT, "root", ())
    shop = (SHOP, "shop", (Caveat.expiry(TIME), Caveat.method("Get")))
    chain = await chain_of(root, shop, (EDWARD, "müller", (FREE,)), (CART, "cart:10.64.0.4:54945", (FREE,)))
    own = await chain_of((CART, "cart", ()))
    good = {
        "a root": Blessings.from_chains([await chain_of(root)]),
        "a root of Ed25519": Blessings.from_chains([await chain_of((EDWARD, "edward", ()))]),
        "two certificates": Blessings.from_chains([await chain_of(root, shop)]),
        "four certificates, both kinds of keys": Blessings.from_chains([chain]),
        "two chains": Blessings.from_chains([own, chain]),
    }
    return {
        "good": [describe(name, each) for name, each in good.items()],
        "bad": [{"why": why, "cbor": data.hex()} for why, data in (await bad_blessings(chain, own)).items()],
    }


def describe(name: str, blessings: Blessings) -> Entry:
    """Return the facts about good blessings."""
    chains = []
    for chain in blessings.chains:
        rows, signer, digest = [], chain.root_key, b""
        for certificate in chain.certificates:
            rows.append(
                {
                    "cose": certificate.encoded.hex(),
                    "signer": signer.der.hex(),
                    "external_aad": digest.hex(),
                    "payload": certificate.signed.payload.hex(),
                    "extension": certificate.extension,
                    "public_key": certificate.public_key.der.hex(),
                    "caveats": [str(caveat) for caveat in certificate.caveats],
                }
            )
            signer, digest = certificate.public_key, chain_digest(digest, certificate.encoded)
        chains.append({"name": chain.name, "digest": chain.digest.hex(), "certificates": rows})
    facts = {"public_key": blessings.public_key.der.hex(), "digest": blessings.digest.hex()}
    return {"name": name, "cbor": blessings.encoded.hex(), **facts, "chains": chains}


async def bad_blessings(chain: Chain, own: Chain) -> dict[str, bytes]:
    """Return blessings that must be refused, by what is wrong with them."""
    encoded = [c.encoded for c in chain.certificates]
    payload = cbor.encode(["root", ROOT.public_key.der, []])
    other_root = (await chain_of((OTHER, "root", ()))).certificates[0].encoded

    def one(cose: bytes) -> bytes:
        return cbor.encode([[cose]])

    def signed(value: object, *, high: bool = False, aad: bytes = b"", raw: bytes | None = None) -> bytes:
        data = cbor.encode(value) if raw is None else raw
        message = prepare(SignatureType.BLESSING, KeyType.ECDSA_P256, data, aad)
        return one(attach(SignatureType.BLESSING, KeyType.ECDSA_P256, data, ROOT.raw(message, high=high)))

    def changed(change: Callable[[list[object]], None]) -> bytes:
        parts = list(cbor2.loads((encoded[0])[1:]))
        change(parts)
        return one(b"\xd2" + cbor2.dumps(parts))

    def put(at: int, value: object) -> Callable[[list[object]], None]:
        return lambda parts: parts.__setitem__(at, value)

    der = ROOT.public_key.der
    header = {1: -7, 16: "vanadium-blessing"}
    long_chain = [own.certificates[0].encoded] * 33
    return {
        "nothing": b"",
        "no chain": cbor.encode([]),
        "an empty chain": cbor.encode([[]]),
        "a chain that is no array": cbor.encode([b""]),
        "a certificate that is no byte string": cbor.encode([["root"]]),
        "17 chains": cbor.encode([encoded[:1]] * 17),
        "33 certificates": cbor.encode([long_chain]),
        "an indefinite array": b"\x9f" + cbor.encode(encoded) + b"\xff",
        "trailing bytes": cbor.encode([encoded]) + b"\0",
        "the same chain twice": cbor.encode([encoded, encoded]),
        "chains of different keys": cbor.encode([encoded[:1], [own.certificates[0].encoded]]),
        "certificates in another order": cbor.encode([[encoded[0], encoded[2], encoded[1], encoded[3]]]),
        "a certificate left out": cbor.encode([[encoded[0], *encoded[2:]]]),
        "a certificate repeated": cbor.encode([[*encoded, encoded[3]]]),
        "somebody else's root": cbor.encode([[other_root, *encoded[1:]]]),
        "a chain without its root": cbor.encode([encoded[1:]]),
        "no COSE tag": one(encoded[0][1:]),
        "another COSE tag": one(b"\xd1" + encoded[0][1:]),
        "an unprotected header": changed(put(1, {4: b"key"})),
        "another algorithm": changed(put(0, cbor.encode({**header, 1: -8}))),
        "no type": changed(put(0, cbor.encode({1: -7}))),
        "another type": one(await ROOT.sign(SignatureType.MESSAGE, payload)),
        "one header more": changed(put(0, cbor.encode({1: -7, 4: b"key", 16: header[16]}))),
        "no payload": changed(put(2, None)),
        "a signature of 63 bytes": changed(put(3, b"\0" * 63)),
        "a signature of zeros": changed(put(3, b"\0" * 64)),
        "a signature with the larger s": signed(["root", der, []], high=True),
        "a signature over other external data": signed(["root", der, []], aad=b"\0"),
        "a payload that is no array": signed(1),
        "a payload with a part too many": signed(["root", der, [], 1]),
        "a payload that is not canonical": signed(None, raw=b"\x98\x03" + payload[1:]),
        "an empty extension": signed(["", der, []]),
        "the extension $": signed(["$", der, []]),
        "an extension with a newline": signed(["ro\not", der, []]),
        "an extension with a NUL": signed(["ro\0ot", der, []]),
        "an extension with a slash": signed(["ro/ot", der, []]),
        "an extension that ends with a colon": signed(["root:", der, []]),
        "an extension of 4097 bytes": signed(["r" * 4097, der, []]),
        "an extension that is bytes": signed([b"root", der, []]),
        "a key that is none": signed(["root", b"key", []]),
        "65 caveats": signed(["root", der, [[0, True]] * 65]),
        "a caveat that is none": signed(["root", der, [[0, 1]]]),
    }


def third_party() -> ThirdParty:
    """Return what a third-party caveat says."""
    return ThirdParty(
        nonce=bytes(range(16)),
        discharger_key=OTHER.public_key,
        location="/(root:discharger)@discharger:8198",
        caveats=(Caveat.method("Get"),),
        requirements=Requirements(server=True),
    )


async def discharges() -> dict[str, list[Entry]]:
    """Return the vectors of discharges."""
    caveat = third_party().to_caveat()
    word = await Discharge.mint(OTHER, caveat, (Caveat.expiry(TIME),))
    good: Entry = {
        "name": "a discharge",
        "caveat": cbor.encode(caveat.to_value()).hex(),
        "caveat_id": third_party().id.hex(),
        "cose": word.encoded.hex(),
        "signer": OTHER.public_key.der.hex(),
        "payload": word.signed.payload.hex(),
        "caveats": [str(c) for c in word.caveats],
    }
    payload = word.signed.payload
    bad = {
        "signed by somebody else": await ROOT.sign(SignatureType.DISCHARGE, payload),
        "of another caveat": await OTHER.sign(SignatureType.DISCHARGE, cbor.encode([hashlib.sha256().digest(), []])),
        "of another type": await OTHER.sign(SignatureType.BLESSING, payload),
        "with external data": await OTHER.sign(SignatureType.DISCHARGE, payload, b"x"),
        "not an array": await OTHER.sign(SignatureType.DISCHARGE, cbor.encode(third_party().id)),
        "65 caveats": await OTHER.sign(SignatureType.DISCHARGE, cbor.encode([third_party().id, [[0, True]] * 65])),
    }
    return {"good": [good], "bad": [{"why": why, "cose": cose.hex()} for why, cose in bad.items()]}


async def all_vectors() -> dict[str, dict[str, list[Entry]]]:
    """Return the content of every file, by name."""
    return {
        "keys.json": keys(),
        "caveats.json": caveats(),
        "blessings.json": await blessings(),
        "discharges.json": await discharges(),
    }


def write(directory: Path) -> None:
    """Write every file."""
    for name, vectors in trio.run(all_vectors).items():
        text = json.dumps({"version": 1, **vectors}, indent=1, ensure_ascii=True)
        (directory / name).write_text(text + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
