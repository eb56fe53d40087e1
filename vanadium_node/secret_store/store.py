"""Secrets and the blessings behind them. Only a hash of a secret is stored, so the database gives nothing away."""

import secrets
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, StorageError
from vanadium_node.secret_store.known import key_of_secret
from vanadium_node.security.blessing import Blessings
from vanadium_node.storage.sqlite import Database, open_database

SECRET_BYTES: Final = 256
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_SECRET_CHARACTERS: Final = 1024
"""A secret that is longer is none of ours; it is not even hashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """What is kept for a secret: the blessings it stands for, who stored them, and how it was used."""

    blessings: Blessings
    created: datetime
    created_by: str
    uses: int
    last_used: datetime | None


class SecretStore:
    """The secrets of one cluster agent."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def new(self, blessings: Blessings, *, created_by: str, now: datetime) -> str:
        """Make a secret that stands for the blessings and return its text form; it is durable when this returns.

        Raises:
            StorageError: it could not be stored.
        """
        secret = cbor.text(secrets.token_bytes(SECRET_BYTES))
        row = (key_of_secret(secret), blessings.encode(), str(blessings), created_by, _seconds(now))
        await self._database.write(
            lambda db: _execute(
                db, "INSERT INTO secrets (key, blessings, name, created_by, created) VALUES (?, ?, ?, ?, ?)", row
            )
        )
        return secret

    async def forget(self, secret: str) -> None:
        """Make a secret worthless, durably; one that is unknown already is.

        Raises:
            StorageError: it could not be forgotten.
        """
        key = key_of_secret(secret)
        await self._database.write(lambda db: _execute(db, "DELETE FROM secrets WHERE key = ?", (key,)))

    def find(self, secret: str) -> StoredSecret | None:
        """Return what is kept for a secret, None if it is unknown.

        Raises:
            StorageError: the database cannot be read, or this record is damaged.
        """
        if len(secret) > MAX_SECRET_CHARACTERS:
            return None
        rows = self._database.read(f"SELECT {_COLUMNS} FROM secrets WHERE key = ?", (key_of_secret(secret),))  # noqa: S608
        return _stored(rows[0]) if rows else None

    def page(self, after: bytes, size: int) -> list[tuple[bytes, StoredSecret]]:
        """Return up to `size` secrets, by their hashes, that come after the one given (`b""`: the first).

        Raises:
            StorageError: the database cannot be read, or a record is damaged.
        """
        query = f"SELECT key, {_COLUMNS} FROM secrets WHERE key > ? ORDER BY key LIMIT ?"  # noqa: S608
        rows = self._database.read(query, (after, size))
        return [(key, _stored(row)) for key, *row in rows if isinstance(key, bytes)]

    async def record_use(self, secret: str, *, now: datetime) -> None:
        """Count one use of a secret.

        Raises:
            StorageError: it could not be stored.
        """
        row = (_seconds(now), key_of_secret(secret))
        await self._database.write(
            lambda db: _execute(db, "UPDATE secrets SET uses = uses + 1, last_used = ? WHERE key = ?", row)
        )

    def count(self) -> int:
        """Return how many secrets there are."""
        ((number,),) = self._database.read("SELECT COUNT(*) FROM secrets")
        return int(str(number))


@asynccontextmanager
async def open_secret_store(path: Path) -> AsyncIterator[SecretStore]:
    """Open the secrets kept in the database at `path`.

    Raises:
        StorageError: it cannot be opened, or is damaged.
    """
    async with open_database(path, _MIGRATIONS) as database:
        yield SecretStore(database)


def _first_schema(db: sqlite3.Connection) -> None:
    db.execute(
        "CREATE TABLE secrets (key BLOB PRIMARY KEY, blessings BLOB NOT NULL, name TEXT NOT NULL, created_by TEXT NOT NULL,"
        " created INTEGER NOT NULL, uses INTEGER NOT NULL DEFAULT 0, last_used INTEGER) WITHOUT ROWID, STRICT"
    )


_COLUMNS: Final = "blessings, created, created_by, uses, last_used"
_MIGRATIONS: Final = (_first_schema,)


def _execute(db: sqlite3.Connection, statement: str, row: tuple[object, ...]) -> None:
    db.execute(statement, row)


def _stored(row: Sequence[object]) -> StoredSecret:
    """Read a row of `_COLUMNS`."""
    match row:
        case (bytes(blessings), int(created), str(created_by), int(uses), (int() | None) as last_used):
            pass
        case _:
            raise StorageError("the record of a secret is damaged", hint="forget the secret, and make a new one")
    try:
        return StoredSecret(
            blessings=Blessings.decode(blessings),
            created=_time(created),
            created_by=created_by,
            uses=uses,
            last_used=None if last_used is None else _time(last_used),
        )
    except (DecodeError, OverflowError) as error:
        raise StorageError(
            f"the record of a secret is damaged: {error}", hint="forget the secret, and make a new one"
        ) from error


def _seconds(time: datetime) -> int:
    return int(time.timestamp())


def _time(seconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)
