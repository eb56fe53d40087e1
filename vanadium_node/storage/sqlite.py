"""One SQLite database with durable, grouped writes: many waiting changes become one transaction and one fsync.

Changes are functions of the connection, run by one writer in a thread, in the order they came; reads run on the trio thread
over a connection of their own and see what is committed. Journal WAL with synchronous=FULL: what was acknowledged survives
`kill -9` and power loss, what was not is there whole or not at all (https://sqlite.org/wal.html). The log is written back
into the database every 1000 pages, at the start and at the end.

Whatever the disk does, the database stays open. Once damage is found, at the start or later, nothing more is written and what
can be read is. A write that the disk refuses fails, is tried again by and by, and until it succeeds `troubles` says so; a disk
that does not even let the database be opened as usual is tried again too.

After a flush that failed, the system may forget what it was to flush, and the next flush may succeed all the same. So nothing
is built upon such a write: SQLite writes the whole transaction again, at the same place of the log, before it flushes again,
and a write back into the database, of which one page was not flushed, is begun anew.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import trio

from vanadium_node.errors import StorageError
from vanadium_node.storage.files import make_sure_of_room
from vanadium_node.storage.sqlite_files import (
    Failures,
    Migration,
    Opened,
    check_database,
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

ROOM_BYTES: Final = 64 * 1024
"""What must fit beside a database before it is opened again: its log, and the index of that."""

CHECK_SECONDS: Final = 60.0
"""How often at most all of a database is checked because somebody has a doubt."""

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
        self._damage: StorageError | None = None
        self._unwritten: StorageError | None = None
        self._unread: StorageError | None = None
        self._checked = float("-inf")
        self._checking = trio.Lock()

    def close(self) -> None:
        """Close the connections; nothing can be asked then."""
        self._opened.close()

    @property
    def fault(self) -> StorageError | None:
        """Why nothing can be written before that has changed; None while all is well."""
        return self._opened.fault or self._damage

    @property
    def damage(self) -> StorageError | None:
        """What shows that the file does not hold all that it should; None: nothing does."""
        return self._damage if self._opened.may_pass else self.fault

    def troubles(self) -> tuple[StorageError, ...]:
        """Return what is wrong with the database now: damage, or a disk that did not take the last write."""
        found = (self.fault, self._unread, self._unwritten)
        return tuple(trouble for trouble in found if trouble is not None)

    async def check(self) -> None:
        """Look at all of the database, unless that was done within the last minute; what is wrong is in `troubles` then."""
        async with self._checking:  # who comes while it is checked waits for what is found
            if self._opened.writer is None or trio.current_time() - self._checked < CHECK_SECONDS:
                return
            try:
                await trio.to_thread.run_sync(check_database, self._path)
            except StorageError as error:
                self._note_failure(error, error.__cause__)
            self._checked = trio.current_time()

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
        except Failures as error:
            failed = database_error("read", self._path, error)
            self._note_failure(failed, error)
            raise failed from error
        self._unread = None

    async def write(self, change: Change) -> None:
        """Make a change durable. When this returns, it is; when it is cancelled, the change may still be made.

        Raises:
            StorageError: the change was not made.
        """
        if self.fault is not None:
            raise StorageError(f"nothing can be stored now: {self.fault.message}", hint=self.fault.hint) from self.fault
        pending = _Pending(change)
        await self._changes.send(pending)
        await pending.done.wait()
        if pending.error is not None:
            raise database_error("change", self._path, pending.error) from pending.error

    async def keep(self, migrations: Sequence[Migration], changes: trio.MemoryReceiveChannel[_Pending]) -> None:
        """Run changes until the channel is closed; before, open the database again where only the disk kept it from that."""
        async with changes:
            while self._opened.writer is None:
                with trio.move_on_after(RETRY_SECONDS if self._opened.may_pass else float("inf")):
                    with suppress(trio.EndOfChannel):
                        await changes.receive()  # nobody brings one while there is a fault
                    return
                with trio.CancelScope(shield=True):
                    await self._open_again(migrations)
            await self._write_all(self._opened.writer, changes)

    async def _open_again(self, migrations: Sequence[Migration]) -> None:
        """Open the database as usual, if there is room now. It cannot be read meanwhile: who reads without writing locks it."""
        try:
            await trio.to_thread.run_sync(make_sure_of_room, self._path, ROOM_BYTES)
        except StorageError:
            return
        self._opened.close()
        self._opened = Opened(None, None, self._opened.fault, may_pass=True)
        try:
            self._opened = await trio.to_thread.run_sync(open_files, self._path, migrations)
        except StorageError as error:
            self._opened = Opened(None, None, error, may_pass=True)

    async def _write_all(self, connection: sqlite3.Connection, changes: trio.MemoryReceiveChannel[_Pending]) -> None:
        """Run changes until the channel is closed; all that wait at one time share a transaction."""
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
            if pending.error is None:
                continue
            if is_about_damage(pending.error):
                self._damage = database_error("write", self._path, pending.error)
            elif is_about_the_disk(pending.error):
                self._unwritten = database_error("write", self._path, pending.error)

    def _note_failure(self, failed: StorageError, cause: BaseException | None) -> None:
        """Remember what kept somebody from reading."""
        if cause is None or is_about_damage(cause):
            self._damage = failed
        elif is_about_the_disk(cause):
            self._unread = failed


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
            nursery.start_soon(database.keep, migrations, receive)
            async with send:
                try:
                    yield database
                except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the caller's own error
                    failure = error
    finally:
        database.close()
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
    except Failures as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        for pending in batch:
            pending.error = error
        return False
    return True
