"""One SQLite database with durable, grouped writes: many waiting changes become one transaction and one fsync.

Changes are functions of the connection, run by one writer in a thread, in the order they came; reads run on the trio thread
over a connection of their own and see what is committed. Journal WAL with synchronous=FULL: what was acknowledged survives
`kill -9` and power loss, what was not is there whole or not at all (https://sqlite.org/wal.html). The log is written back
into the database every 1000 pages, at the start and at the end.

Whatever the disk does, the database stays open: damage is found at the start, and then nothing more is written and what can
be read is; a write that the disk refuses fails, is tried again by and by, and until it succeeds `troubles` says so.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import trio

from vanadium_node.errors import StorageError
from vanadium_node.storage.sqlite_files import (
    SQLITE_ERRORS,
    Migration,
    Opened,
    database_error,
    is_about_damage,
    is_about_the_disk,
    open_files,
)

T = TypeVar("T")

MAX_WAITING: Final = 1024
"""Changes that may wait for the writer; whoever brings one more waits to hand it over."""

RETRY_SECONDS: Final = 5.0
"""How often a disk that refused a write is tried again while nobody else writes."""

Change = Callable[[sqlite3.Connection], None]


@dataclass(slots=True, eq=False)
class _Pending:
    change: Change
    done: trio.Event = field(default_factory=trio.Event)
    error: Exception | None = None


class Database:
    """An open database. Use `open_database`."""

    def __init__(self, path: Path, opened: Opened, changes: trio.MemorySendChannel[_Pending]) -> None:
        self._path = path
        self._opened = opened
        self._changes = changes
        self._unwritten: StorageError | None = None
        self._unread: StorageError | None = None

    def troubles(self) -> tuple[StorageError, ...]:
        """Return what is wrong with the database now: damage, or a disk that did not take the last write."""
        found = (self._opened.fault, self._unread, self._unwritten)
        return tuple(trouble for trouble in found if trouble is not None)

    def read(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Return the rows of a query over what is committed.

        Raises:
            StorageError: the database cannot be read.
        """
        return list(self.scan(query, parameters))

    def scan(self, query: str, parameters: Sequence[object] = ()) -> Iterator[tuple[object, ...]]:
        """Yield the rows of a query, which need not fit into memory. Close the iterator when it is not read to its end.

        Raises:
            StorageError: the database cannot be read.
        """
        if self._opened.reader is None:
            raise self._opened.fault or StorageError(f"the database '{self._path}' is not open")
        try:
            yield from self._opened.reader.execute(query, parameters)
        except SQLITE_ERRORS as error:
            failed = database_error("read", self._path, error)
            if is_about_damage(error) or is_about_the_disk(error):
                self._unread = failed
            raise failed from error

    async def write(self, change: Change) -> None:
        """Make a change durable. When this returns, it is; when it is cancelled, the change may still be made.

        Raises:
            StorageError: the change was not made.
        """
        if self._opened.fault is not None:
            raise StorageError(
                f"nothing can be stored now: {self._opened.fault.message}", hint=self._opened.fault.hint
            ) from self._opened.fault
        pending = _Pending(change)
        await self._changes.send(pending)
        await pending.done.wait()
        if pending.error is not None:
            raise database_error("change", self._path, pending.error) from pending.error

    async def write_all(self, connection: sqlite3.Connection, changes: trio.MemoryReceiveChannel[_Pending]) -> None:
        """Run changes until the channel is closed; all that wait at one time share a transaction."""
        async with changes:
            while True:
                with trio.move_on_after(RETRY_SECONDS if self._unwritten else float("inf")) as waited:
                    try:
                        batch = [await changes.receive()]
                    except trio.EndOfChannel:
                        return
                if waited.cancelled_caught:
                    batch = [_Pending(_try_the_disk)]
                while True:
                    try:
                        batch.append(changes.receive_nowait())
                    except (trio.WouldBlock, trio.EndOfChannel):
                        break
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(_commit, connection, batch)
                self._note(batch)
                for pending in batch:
                    pending.done.set()

    def _note(self, batch: Sequence[_Pending]) -> None:
        """Remember whether the disk took the last write; an error of a change itself says nothing about the disk."""
        if any(pending.error is None for pending in batch):
            self._unwritten = None
        for pending in batch:
            if pending.error is not None and (is_about_the_disk(pending.error) or is_about_damage(pending.error)):
                self._unwritten = database_error("write", self._path, pending.error)


@asynccontextmanager
async def open_database(path: Path, migrations: Sequence[Migration]) -> AsyncIterator[Database]:
    """Open the database at `path`, made if need be, check it, and bring its schema up to date.

    `migrations[n]` turns schema version n into n + 1; each is one transaction, the version included. A damaged database is
    opened for reading as far as that goes: `troubles` says so, and writing fails.

    Raises:
        StorageError: the path cannot be used, a migration failed, or a newer version of this program wrote the file.
    """
    opened = await trio.to_thread.run_sync(open_files, path, migrations)
    send, receive = trio.open_memory_channel[_Pending](MAX_WAITING)
    database = Database(path, opened, send)
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            if opened.writer is not None:
                nursery.start_soon(database.write_all, opened.writer, receive)
            async with send:
                try:
                    yield database
                except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the caller's own error
                    failure = error
    finally:
        for connection in (opened.reader, opened.writer):
            if connection is not None:
                connection.close()
    if failure is not None:
        raise failure


def _try_the_disk(connection: sqlite3.Connection) -> None:
    """Write something that changes nothing: the schema's version as it is."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


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
    except SQLITE_ERRORS as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for pending in batch:
            pending.error = error
        return False
    return True
