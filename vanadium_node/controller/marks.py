"""What commands write on objects to know their own work again: after a lost answer, and after they were killed."""

import hashlib
import json
from typing import Final

from vanadium_node.kube.resources import Manifest

OPERATION: Final = "vanadium.v.io/operation"
"""On an object: a nonce of the command that wrote it last, so that a command recognizes its own work after a lost answer."""

STARTING: Final = "vanadium.v.io/starting"
"""On a workload while it is started: a digest of what was asked for. The same command finishes what one before it began."""

WITHOUT_STARTING: Final = {"metadata": {"annotations": {STARTING: None}}}
"""The merge patch (RFC 7396) that ends a start."""


def marked(manifest: Manifest, operation: str, *, starting: str | None = None) -> Manifest:
    """Return the manifest with the nonce of the command that writes it, and with what it starts, if it does."""
    metadata = manifest["metadata"]
    marks = {OPERATION: operation} if starting is None else {OPERATION: operation, STARTING: starting}
    annotations = {**(metadata.get("annotations") or {}), **marks}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def is_marked(stored: Manifest, operation: str) -> bool:
    """Tell whether the command with that nonce wrote the object."""
    return operation_of(stored) == operation


def operation_of(stored: Manifest) -> str:
    """Return the nonce of the command that wrote the object last, `""` where none of ours did."""
    return str((stored["metadata"].get("annotations") or {}).get(OPERATION, ""))


def starting_of(stored: Manifest) -> str | None:
    """Return the digest of the start that has not come to its end, None where none is under way."""
    found = (stored["metadata"].get("annotations") or {}).get(STARTING)
    return None if found is None else str(found)


def digest_of_start(manifest: Manifest, extension: str | None) -> str:
    """Return 128 bits of the SHA-256 of what a start was asked for."""
    asked = json.dumps([manifest, extension], sort_keys=True, default=str)
    return hashlib.sha256(asked.encode()).hexdigest()[:32]
