"""What an administrator may know about a secret that is kept: everything but the secret itself."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

ID_BYTES: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSecret:
    """One secret. `key` is its hash, by which whoever has the secret finds it here.

    `names`: those of the blessings it stands for; `expires`: when these end; `replicas_until`: when the blessings last given for
    it end, None where none were given or they do not end; `ttl_seconds`: how long what a replica gets is valid, None as long
    as the agent lets it; of a damaged record only the key is sure.
    """

    key: bytes
    names: tuple[str, ...]
    created: datetime
    created_by: str
    expires: datetime | None
    uses: int
    last_used: datetime | None
    replicas_until: datetime | None
    ttl_seconds: int | None = None
    is_damaged: bool = False

    @property
    def id(self) -> str:
        """What to call it."""
        return id_of(self.key)


def id_of(key: bytes) -> str:
    """Return what a secret is called in lists and logs: a few digits of the hash that it is found by."""
    return key[:ID_BYTES].hex()


def key_of_secret(secret: str) -> bytes:
    """Return what a secret is found by; looking a hash up shows nothing about how near a guess was."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()
