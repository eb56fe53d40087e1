"""An audit log for many tasks: what waits at one time is written together, with one flush, by one writer in a thread."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import trio

from vanadium_node.errors import StorageError
from vanadium_node.storage.audit_file import AuditFile
from vanadium_node.storage.chain import Link

MAX_WAITING: Final = 4096
"""Entries that may wait for the writer; beyond them an entry fails."""

RETRY_SECONDS: Final = 5.0
"""How often a log that could not be written is tried again while nobody else writes."""


@dataclass(slots=True, eq=False)
class Entry:
    """An entry on its way into the log."""

    content: Mapping[str, object]
    _done: trio.Event = field(default_factory=trio.Event)
    _error: StorageError | None = None

    async def written(self) -> None:
        """Wait until it is durable.

        Raises:
            StorageError: it could not be written.
        """
        await self._done.wait()
        if self._error is not None:
            raise self._error

    def finish(self, error: StorageError | None) -> None:
        """Say how it ended."""
        self._error = error
        self._done.set()


class AuditLog:
    """An open audit log. Use `open_audit_log`."""

    def __init__(self, file: AuditFile, entries: trio.MemorySendChannel[Entry], now: Callable[[], datetime]) -> None:
        self._file = file
        self._now = now
        self._entries = entries
        self._trouble: StorageError | None = None
        self._lost = 0

    @property
    def last(self) -> Link:
        """The last line written."""
        return self._file.last

    @property
    def trouble(self) -> StorageError | None:
        """Why the last entry could not be written; None while all is well."""
        return self._trouble

    def put(self, **content: object) -> Entry:
        """Hand an entry over to the writer; `written` waits for it. Those that fail are counted in the next that does not."""
        entry = Entry({"time": self._time(), **content})
        try:
            self._entries.send_nowait(entry)
        except trio.WouldBlock:
            self._lost += 1
            entry.finish(StorageError("the audit log is too slow: too many entries wait for it", hint="try again"))
        return entry

    async def write_all(self, entries: trio.MemoryReceiveChannel[Entry]) -> None:
        """Write entries until the channel is closed."""
        async with entries:
            while True:
                batch: list[Entry] = []
                with trio.move_on_after(RETRY_SECONDS if self._trouble else float("inf")):
                    try:
                        batch.append(await entries.receive())
                    except trio.EndOfChannel:
                        break
                while True:
                    try:
                        batch.append(entries.receive_nowait())
                    except (trio.WouldBlock, trio.EndOfChannel):
                        break
                with trio.CancelScope(shield=True):
                    error = await trio.to_thread.run_sync(self._write, batch)
                for entry in batch:
                    entry.finish(error)

    def _write(self, batch: Sequence[Entry]) -> StorageError | None:
        content = [entry.content for entry in batch]
        if self._lost or not content:
            content.insert(0, {"time": self._time(), "event": "resumed", "lost": self._lost})
        try:
            self._file.append(content)
        except StorageError as error:
            self._lost += len(batch)
            self._trouble = error
            return error
        self._lost, self._trouble = 0, None
        return None

    def _time(self) -> str:
        return self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")


@asynccontextmanager
async def open_audit_log(
    path: Path, *, max_bytes: int, keep: int, now: Callable[[], datetime]
) -> AsyncIterator[AuditLog]:
    """Open the audit log at `path`, made if need be; a file that grew to `max_bytes` is put aside, and `keep` of those are kept.

    A log that cannot be written, or is damaged, is no error here: `trouble` and the entries say so.
    """
    file = AuditFile(path, max_bytes=max_bytes, keep=keep)
    send, receive = trio.open_memory_channel[Entry](MAX_WAITING)
    log = AuditLog(file, send, now)
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.write_all, receive)
            async with send:
                try:
                    yield log
                except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the caller's own error
                    failure = error
    finally:
        file.close()
    if failure is not None:
        raise failure
