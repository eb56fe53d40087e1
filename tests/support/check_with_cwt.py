"""Checks the signatures of the golden vectors with `cwt`, an independent COSE library: `python check_with_cwt.py DIRECTORY`.

It runs in an environment of its own (cwt wants another cbor2 than this project) and imports nothing of this project. It prints
how many signatures it found good.
"""

import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cwt import COSE, COSEKey  # type: ignore[import-not-found, unused-ignore]
from cwt.exceptions import VerifyError  # type: ignore[import-not-found, unused-ignore]


def is_good(entry: dict[str, str]) -> bool:
    """Tell whether the signature is the signer's; the payload must be what the vector says."""
    key = load_der_public_key(bytes.fromhex(entry["signer"]))
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    aad = bytes.fromhex(entry.get("external_aad", ""))
    try:
        payload = COSE.new().decode(bytes.fromhex(entry["cose"]), COSEKey.from_pem(pem), external_aad=aad)
    except VerifyError:
        return False
    return bool(payload == bytes.fromhex(entry["payload"]))


def main(directory: Path) -> None:
    """Check every good certificate and discharge, and that a signature is not good in another place."""
    blessings = json.loads((directory / "blessings.json").read_text())["good"]
    entries = [e for b in blessings for chain in b["chains"] for e in chain["certificates"]]
    entries += json.loads((directory / "discharges.json").read_text())["good"]
    for entry in entries:
        if not is_good(entry):
            raise SystemExit(f"not good: {entry}")
        if is_good({**entry, "external_aad": entry.get("external_aad", "") + "00"}):
            raise SystemExit(f"good with other external data: {entry}")
    print(len(entries))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
