"""What an administrator may know about a secret that is kept: everything but the secret itself."""

import hashlib
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSecret:
    """One secret. `key` is its hash, by which whoever has the secret finds it here.

    `names`: those of the blessings it stands for; `expires`: when these end; `replicas_until`: when the blessings last given for
    it end, None where none were given or they do not end.
    """

    key: bytes
    names: tuple[str, ...]
    created: datetime
    created_by: str
    expires: datetime | None
    uses: int
    last_used: datetime | None
    replicas_until: datetime | None


def key_of_secret(secret: str) -> bytes:
    """Return what a secret is found by; looking a hash up shows nothing about how near a guess was."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()
