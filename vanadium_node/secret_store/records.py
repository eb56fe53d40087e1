"""The table of secrets: its schema and its versions, and a record as a value. A record carries a digest over all that
gives rights, so that a byte that flipped on the disk is found instead of believed.

    version 1    key, blessings, name, who made it and when, uses and the last one
    version 2    the lifetime of what replicas get, the end of what was granted, the digest
"""

import hashlib
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from vanadium_node.errors import DecodeError, StorageError, clip
from vanadium_node.secret_store.known import id_of
from vanadium_node.security.blessing import Blessings

SELECT: Final = "SELECT key, blessings, name, created_by, created, ttl, expires, digest, uses, last_used FROM secrets"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""No time of a record is later, so that a lifetime can be added to each."""
_DAMAGED_HINT: Final = "forget it ('secret forget --damaged'), and start or update the application again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept for a secret, but for the blessings themselves: for whom, since when, how it was used.

    `id` tells secrets apart and finds none. `ttl`: how long a replica's blessings live, None: as long as the agent lets
    them. `expires`: when what was granted ends, None: never. Of a damaged record nothing else is told but the name it has now.
    """

    key: bytes
    name: str
    created: datetime
    created_by: str
    ttl: timedelta | None
    expires: datetime | None
    uses: int
    last_used: datetime | None
    is_damaged: bool = False

    @property
    def id(self) -> str:
        """What to call it, in lists and logs."""
        return id_of(self.key)

    @property
    def names(self) -> tuple[str, ...]:
        """The names behind it: those of which replicas get extensions."""
        return tuple(self.name.split(","))

    @property
    def idle_since(self) -> datetime:
        """When it was used last, or made."""
        return self.last_used or self.created

    @classmethod
    def from_row(cls, row: tuple[object, ...]) -> Self:
        """Read a row of `SELECT`; what makes no sense gives a damaged record."""
        match row:
            case (
                bytes(key), bytes(), str(name), str(created_by), int(created), (int() | None) as ttl,
                (int() | None) as expires, bytes(digest), int(uses), (int() | None) as last_used,
            ):  # fmt: skip
                pass
            case _:
                return cls._damaged(row)
        if digest != digest_of(*row[:7]):
            return cls._damaged(row)
        try:
            return cls(
                key=key,
                name=name,
                created=_time(created),
                created_by=created_by,
                ttl=None if ttl is None else timedelta(seconds=ttl),
                expires=None if expires is None else _time(expires),
                uses=uses,
                last_used=None if last_used is None else _time(last_used),
            )
        except OverflowError:
            return cls._damaged(row)

    @classmethod
    def _damaged(cls, row: tuple[object, ...]) -> Self:
        key = row[0] if isinstance(row[0], bytes) else b""
        name = clip(row[2]) if isinstance(row[2], str) else "?"
        return cls(
            key=key,
            name=name,
            created=_EPOCH,
            created_by="?",
            ttl=None,
            expires=None,
            uses=0,
            last_used=None,
            is_damaged=True,
        )


def blessings_of(row: tuple[object, ...], record: Record) -> Blessings:
    """Return the blessings of a row.

    Raises:
        StorageError: the record is damaged.
    """
    if record.is_damaged or not isinstance(row[1], bytes):
        raise StorageError(f"the record {record.id} of a secret is damaged", hint=_DAMAGED_HINT)
    try:
        return Blessings.decode(row[1])
    except DecodeError as error:
        raise StorageError(f"the record {record.id} of a secret is damaged: {error}", hint=_DAMAGED_HINT) from error


def digest_of(*values: object) -> bytes:
    """Return the digest over a record's key, blessings, name, maker, creation, lifetime and end.

    Each value is text or bytes, `None` where there is none, after its length and a colon.
    """
    digest = hashlib.sha256()
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.digest()


def seconds(time: datetime) -> int:
    """Return a time as it is stored."""
    return int(time.timestamp())


def _time(value: int) -> datetime:
    """Return a stored time. Raises OverflowError where it makes no sense."""
    time = _EPOCH + timedelta(seconds=value)
    if time > _LAST:
        raise OverflowError
    return time


def _first_schema(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE secrets (key BLOB PRIMARY KEY, blessings BLOB NOT NULL, name TEXT NOT NULL, created_by TEXT NOT NULL,"
        " created INTEGER NOT NULL, uses INTEGER NOT NULL DEFAULT 0, last_used INTEGER) WITHOUT ROWID, STRICT"
    )


def _add_lifetimes_and_digests(db: sqlite3.Connection) -> None:
    for column in ("ttl INTEGER", "expires INTEGER", "digest BLOB"):
        db.execute(f"ALTER TABLE secrets ADD COLUMN {column}")
    db.create_function("expiry_of", 1, _expiry_of, deterministic=True)
    db.create_function("digest_of", 7, digest_of, deterministic=True)
    db.execute("UPDATE secrets SET expires = expiry_of(blessings)")
    db.execute(
        "UPDATE secrets SET digest = digest_of(key, blessings, CAST(name AS BLOB), CAST(created_by AS BLOB), created, ttl, expires)"
    )


def _expiry_of(blessings: bytes) -> int | None:
    """Return when blessings end; of damaged ones this is not known, and nobody gets extensions of them."""
    try:
        expiry = Blessings.decode(blessings).expiry
    except DecodeError:
        return None
    return None if expiry is None else seconds(expiry)


MIGRATIONS: Final = (_first_schema, _add_lifetimes_and_digests)
