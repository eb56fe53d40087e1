"""Secrets and the blessings behind them. Only a hash of a secret is stored, so the database gives nothing away."""

import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import trio

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError, StorageError
from vanadium_node.secret_store.known import id_of, key_of_secret
from vanadium_node.secret_store.records import (
    MIGRATIONS,
    SELECT,
    Record,
    blessings_of,
    digest_of,
    seconds,
)
from vanadium_node.security.blessing import Blessings
from vanadium_node.storage.sqlite import Database, open_database

SECRET_BYTES: Final = 256
MAX_SECRET_CHARACTERS: Final = 1024
"""A secret that is longer is none of ours; it is not even hashed."""

_RESTORE: Final = "restore its database from a backup, or start or update the application again"

PAGE_ROWS: Final = 256
"""Records read at a time: a list of many neither fills the memory nor keeps others waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """What is kept for a secret: the blessings it stands for, who stored them, and how it was used."""

    blessings: Blessings
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Which secrets are meant: all that is given must hold. `idle_since`: neither used nor made at or after that time."""

    name: str | None = None
    idle_since: datetime | None = None
    is_damaged: bool | None = None

    def match(self, record: Record) -> bool:
        """Tell whether a record is one of those. Of a damaged one, neither name nor times can be believed."""
        if self.is_damaged is not None and record.is_damaged != self.is_damaged:
            return False
        if record.is_damaged:
            return self.name is None and self.idle_since is None
        if self.name is not None and self.name not in record.names:
            return False
        return self.idle_since is None or record.idle_since < self.idle_since


class SecretStore:
    """The secrets of one cluster agent."""

    def __init__(self, database: Database, damaged: set[bytes]) -> None:
        self._database = database
        self._damaged = damaged

    def troubles(self) -> tuple[str, ...]:
        """Return what is wrong with the store now, a sentence each; empty while all is well."""
        found = [str(trouble) for trouble in self._database.troubles()]
        if self._damaged:
            some = ", ".join(sorted(map(id_of, self._damaged))[:8])
            found.append(
                f"the records of {len(self._damaged)} secrets are damaged ({some}); find them with 'secret list', forget them "
                "with 'secret forget --damaged', and update their applications"
            )
        return tuple(found)

    async def new(
        self,
        blessings: Blessings,
        *,
        created_by: str,
        now: datetime,
        ttl: timedelta | None = None,
        secret: str | None = None,
    ) -> str:
        """Make a secret that stands for the blessings and return its text form; it is durable when this returns.

        `ttl`: how long what replicas get of them lives, to the second; None: as long as the agent lets it. `secret` is one
        that `fresh_secret` gave, for those who want to know its id before it is good.

        Raises:
            InputError: something stands behind the secret given already.
            StorageError: it could not be stored.
        """
        secret = secret or fresh_secret()
        expires = blessings.expiry
        row = (
            key_of_secret(secret),
            blessings.encode(),
            str(blessings),
            created_by,
            seconds(now),
            None if ttl is None else int(ttl.total_seconds()),
            None if expires is None else seconds(expires),
        )
        statement = (
            "INSERT INTO secrets (key, blessings, name, created_by, created, ttl, expires, digest)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        try:
            await self._database.write(lambda db: _execute(db, statement, (*row, digest_of(*row))))
        except StorageError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise InputError("the secret given is in use", hint="make another one") from error
            raise
        return secret

    async def forget(self, secret: str) -> None:
        """Make a secret worthless, durably; one that is unknown already is.

        Raises:
            StorageError: it could not be forgotten.
        """
        key = key_of_secret(secret)
        await self._database.write(lambda db: _execute(db, "DELETE FROM secrets WHERE key = ?", (key,)))
        self._damaged.discard(key)

    async def forget_all(self, records: Sequence[Record], *, idle_since: datetime | None = None) -> list[Record]:
        """Make the secrets of some records worthless, durably and together; those used since `idle_since` are kept.

        Return those that were forgotten.

        Raises:
            StorageError: they could not be forgotten.
        """
        limit = None if idle_since is None else seconds(idle_since)
        statement = "DELETE FROM secrets WHERE key = ? AND (? IS NULL OR coalesce(last_used, created) < ?)"
        gone: list[Record] = []

        def change(db: sqlite3.Connection) -> None:
            gone[:] = [each for each in records if db.execute(statement, (each.key, limit, limit)).rowcount]

        await self._database.write(change)
        self._damaged.difference_update(record.key for record in gone)
        return gone

    def find(self, secret: str) -> StoredSecret | None:
        """Return what is kept for a secret, None if it is unknown.

        Raises:
            StorageError: the database cannot be read, this record is damaged, or it may be: then nobody can tell that there is none.
        """
        if len(secret) > MAX_SECRET_CHARACTERS:
            return None
        key = key_of_secret(secret)
        rows = self._database.read(SELECT + " WHERE key = ?", (key,))
        is_near_damage = not rows and self._is_near_damage(key)
        if is_near_damage:  # which may have misled the search
            rows = self._database.read(SELECT + " WHERE +key = ?", (key,))
        if not rows:
            if is_near_damage or self._database.damage is not None:
                raise StorageError(
                    "whether the secret is known cannot be told: secrets here are damaged", hint=_RESTORE
                )
            return None
        record = Record.from_row(rows[0])
        try:
            return StoredSecret(blessings=blessings_of(rows[0], record), record=record)
        except StorageError:
            self._damaged.add(key)
            raise

    async def search(self, secret: str) -> StoredSecret | None:
        """Return what `find` does, but believe that a secret is unknown only of a database that was checked lately.

        Raises:
            StorageError: as for `find`.
        """
        found = self.find(secret)
        if found is None and is_secret(secret):
            await self.check()
            found = self.find(secret)
        return found

    async def check(self) -> None:
        """Look whether the database is sound, unless that was done lately: before a list that should leave nothing out unsaid."""
        await self._database.check()

    def _is_near_damage(self, key: bytes) -> bool:
        """Tell whether one of the records between which a key would be is damaged. A damaged key stays where it was: a search
        that it misled ends beside it.
        """
        before = self._database.read(SELECT + " WHERE key < ? ORDER BY key DESC LIMIT 1", (key,))
        after = self._database.read(SELECT + " WHERE key > ? ORDER BY key LIMIT 1", (key,))
        damaged = {record.key for record in map(Record.from_row, before + after) if record.is_damaged}
        self._damaged |= damaged
        return bool(damaged)

    def pages(self, criteria: Criteria = Criteria()) -> Iterator[list[Record]]:
        """Yield the records that meet the criteria, some at a time; changes may be made between two pages.

        Raises:
            StorageError: the database cannot be read.
        """
        after = b""
        while True:
            rows = self._database.read(SELECT + " WHERE key > ? ORDER BY key LIMIT ?", (after, PAGE_ROWS))
            records = list(map(Record.from_row, rows))
            self._damaged |= {record.key for record in records if record.is_damaged}
            yield [record for record in records if criteria.match(record)]
            if len(rows) < PAGE_ROWS:
                break
            last = max(record.key for record in records)
            if last <= after:
                raise StorageError("the secrets after these cannot be listed: keys here are damaged", hint=_RESTORE)
            after = last
        if self._database.damage is not None:
            raise StorageError("there may be more secrets than these: their database is damaged", hint=_RESTORE)

    async def record_use(self, secret: str, *, now: datetime) -> None:
        """Count one use of a secret.

        Raises:
            StorageError: it could not be stored.
        """
        row = (seconds(now), key_of_secret(secret))
        await self._database.write(
            lambda db: _execute(db, "UPDATE secrets SET uses = uses + 1, last_used = ? WHERE key = ?", row)
        )

    def count(self) -> int:
        """Return how many secrets there are.

        Raises:
            StorageError: the database cannot be read.
        """
        ((number,),) = self._database.read("SELECT COUNT(*) FROM secrets")
        return int(str(number))


@asynccontextmanager
async def open_secret_store(path: Path) -> AsyncIterator[SecretStore]:
    """Open the secrets kept in the database at `path`, and look at each record: 4 s for a million.

    Damage ends nothing: what can be read is served, and `troubles` says what is wrong.

    Raises:
        StorageError: the path cannot be used, or a newer version of this program wrote the file.
    """
    async with open_database(path, MIGRATIONS) as database:
        yield SecretStore(database, await trio.to_thread.run_sync(_damaged_of, database))


def fresh_secret() -> str:
    """Return the text form of a secret that stands for nothing yet."""
    return cbor.text(secrets.token_bytes(SECRET_BYTES))


def is_secret(text: str) -> bool:
    """Tell whether a text has the form of a secret."""
    try:
        return len(cbor.from_text(text, max_bytes=SECRET_BYTES)) == SECRET_BYTES
    except DecodeError:
        return False


def secret_id(secret: str) -> str:
    """Return what a secret is called in lists and logs."""
    return id_of(key_of_secret(secret))


def _damaged_of(database: Database) -> set[bytes]:
    """Return the keys of the damaged records, as far as those can be read."""
    damaged: set[bytes] = set()
    with suppress(StorageError):  # the database's troubles tell
        damaged.update(record.key for record in map(Record.from_row, database.scan(SELECT)) if record.is_damaged)
    return damaged


def _execute(db: sqlite3.Connection, statement: str, row: tuple[object, ...]) -> None:
    db.execute(statement, row)
