"""One SQLite database with durable, grouped writes: many waiting changes become one transaction and one fsync.

Changes are functions of the connection, run by one writer in a thread, in the order they came; reads run on the trio thread
over a connection of their own and see what is committed. Journal WAL with synchronous=FULL: what was acknowledged survives
`kill -9` and power loss, what was not is there whole or not at all (https://sqlite.org/wal.html).
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import trio

from vanadium_node.errors import StorageError
from vanadium_node.storage.files import PRIVATE_FILE, explained

T = TypeVar("T")

MAX_WAITING: Final = 1024
"""Changes that may wait for the writer; whoever brings one more waits to hand it over."""

Change = Callable[[sqlite3.Connection], None]
Migration = Callable[[sqlite3.Connection], None]


@dataclass(slots=True, eq=False)
class _Pending:
    change: Change
    done: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None


class Database:
    """An open database. Use `open_database`."""

    def __init__(self, path: Path, reader: sqlite3.Connection, changes: trio.MemorySendChannel[_Pending]) -> None:
        self._path = path
        self._reader = reader
        self._changes = changes

    def read(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Return the rows of a query over what is committed.

        Raises:
            StorageError: the database cannot be read.
        """
        try:
            return self._reader.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise _failed("read", self._path, error) from error

    async def write(self, change: Change) -> None:
        """Make a change durable. When this returns, it is; when it is cancelled, the change may still be made.

        Raises:
            StorageError: the change was not made.
        """
        pending = _Pending(change)
        await self._changes.send(pending)
        await pending.done.wait()
        if pending.error is not None:
            raise _failed("change", self._path, pending.error) from pending.error


@asynccontextmanager
async def open_database(path: Path, migrations: Sequence[Migration]) -> AsyncIterator[Database]:
    """Open the database at `path`, made if need be, check it, and bring its schema up to date.

    `migrations[n]` turns schema version n into n + 1; each is one transaction, the version included.

    Raises:
        StorageError: it cannot be opened, is damaged, or was written by a newer version of this program.
    """
    writer = await trio.to_thread.run_sync(_prepare, path, migrations)
    try:
        reader = _connect(path)
        reader.execute("PRAGMA query_only = ON")
    except BaseException:
        writer.close()
        raise
    send, receive = trio.open_memory_channel[_Pending](MAX_WAITING)
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write_all, writer, receive)
            async with send:
                try:
                    yield Database(path, reader, send)
                except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the caller's own error
                    failure = error
    finally:
        reader.close()
        writer.close()
    if failure is not None:
        raise failure


async def _write_all(connection: sqlite3.Connection, changes: trio.MemoryReceiveChannel[_Pending]) -> None:
    """Run changes until the channel is closed; all that wait at one time share a transaction."""
    async with changes:
        async for first in changes:
            batch = [first]
            while True:
                try:
                    batch.append(changes.receive_nowait())
                except (trio.WouldBlock, trio.EndOfChannel):
                    break
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_commit, connection, batch)
            for pending in batch:
                pending.done.set()


def _commit(connection: sqlite3.Connection, batch: Sequence[_Pending]) -> None:
    """Commit a batch; where one change fails, each is tried in a transaction of its own, so that only that one does."""
    if not _try(connection, batch) and len(batch) > 1:
        for pending in batch:
            pending.error = None
            _try(connection, [pending])


def _try(connection: sqlite3.Connection, batch: Sequence[_Pending]) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
        for pending in batch:
            pending.change(connection)
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for pending in batch:
            pending.error = error
        return False
    return True


def _prepare(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    with explained("open the database", path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE))
    connection = _connect(path)
    try:
        _check(connection, path)
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error as error:
        raise _failed("open", path, error) from error
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    try:
        (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        raise _failed("check", path, error) from error
    if verdict != "ok":
        raise StorageError(f"the database '{path}' is damaged: {verdict}", hint="restore it from a backup")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise StorageError(
                f"the database '{path}' has schema version {version}; this program knows up to {len(migrations)}",
                hint="run a version of the program at least as new as the one that wrote it",
            )
        for number in range(version, len(migrations)):
            connection.execute("BEGIN IMMEDIATE")
            migrations[number](connection)
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise _failed("bring up to date", path, error) from error


def _failed(attempt: str, path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"cannot {attempt} the database '{path}': {error}",
        hint="check the disk's space and health, and who owns the file",
    )
