"""A bit of the cluster agent's database that changes: right answers or a typed error, never another answer, and no end.

The plain run changes a bit of each byte that holds something, and of some of the others; VANADIUM_TEST_EVERY_BYTE=1 of all.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from agent_parties import START, bless, new_root
from disk_faults import EVERY_BYTE, flipped, flips

from vanadium_node.errors import StorageError
from vanadium_node.secret_store import Record, SecretStore, fresh_secret, open_secret_store
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat

APPLICATIONS = ("shop", "cart", "bank")
NAMED = "(?s)database '.*secrets.db'|record .* of a secret|secrets here are damaged|more secrets than these"
NEXT_STEP = "backup|forget it"


@dataclass(frozen=True)
class Kept:
    """A small store: its file, the blessings behind each secret, and what a list shows."""

    path: Path
    data: bytes
    secrets: dict[str, Blessings]
    records: list[Record]

    def damage(self, data: bytes) -> None:
        """Put other bytes in place of the database, and nothing beside them."""
        for path in self.path.parent.iterdir():
            path.unlink()
        self.path.write_bytes(data)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, where there is one: thousands of databases are opened, and no disk has to be waited for."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="va-") as name:
        yield Path(name)


@pytest.fixture
async def kept(memory: Path) -> Kept:
    """A store with a few secrets."""
    root, secrets = await new_root(), {}
    path = memory / "secrets.db"
    async with open_secret_store(path) as store:
        for application in APPLICATIONS:
            granted = await bless(root, root, application, Caveat.unconstrained())
            secrets[await store.new(granted, created_by="root:alice", now=START)] = granted
        records = listed(store)
    return Kept(path, path.read_bytes(), secrets, records)


def listed(store: SecretStore) -> list[Record]:
    """Return all records."""
    return [record for page in store.pages() for record in page]


def refused(error: StorageError, at: int) -> None:
    """Make sure that an error names what is damaged and the next step."""
    with pytest.raises(StorageError, match=NAMED):
        raise error
    with pytest.raises(StorageError, match=NEXT_STEP):
        raise error
    assert str(error).isprintable(), at


async def served(store: SecretStore, kept: Kept, at: int) -> int:
    """Ask for each secret; return how many were right. The others were refused, and the store says that something is wrong."""
    right = 0
    for secret, blessings in kept.secrets.items():
        try:
            found = await store.search(secret)
        except StorageError as error:
            refused(error, at)
        else:
            assert found is not None, f"byte {at}: a secret that is kept is called unknown"
            assert found.blessings == blessings, f"byte {at}"
            right += 1
    assert right == len(kept.secrets) or store.troubles(), f"byte {at}: it says that all is well"
    return right


async def lists_right(store: SecretStore, kept: Kept, at: int) -> None:
    """List all: what is not marked as damaged is as it was but for its use, which gives no rights; nothing is left out unsaid."""
    await store.check()
    try:
        found = listed(store)
    except StorageError as error:
        refused(error, at)
        return
    assert len(found) == len(kept.records), f"byte {at}"
    before = {record.key: record for record in kept.records}
    for record in found:
        if not record.is_damaged:
            was = before[record.key]
            assert (record.name, record.created, record.expires, record.ttl) == (
                was.name,
                was.created,
                was.expires,
                was.ttl,
            )


async def calls_strange(store: SecretStore, at: int) -> None:
    """Ask for a secret that was never made."""
    try:
        assert await store.search(fresh_secret()) is None
    except StorageError as error:
        refused(error, at)


async def test_at_the_start(kept: Kept) -> None:
    """It is always opened. A record whose own bytes changed costs no other one; a strange secret stays unknown, or cannot be told."""
    others = 0
    for at, bit in flips(kept.data):
        kept.damage(flipped(kept.data, at, bit))
        with trio.fail_after(60):
            async with open_secret_store(kept.path) as store:
                others += await served(store, kept, at) == len(kept.secrets) - 1
                await lists_right(store, kept, at)
                await calls_strange(store, at)
                if store.troubles():
                    assert all(text.isprintable() for text in store.troubles())
    assert others > 1000, "most bytes are one record's"


async def test_a_damaged_store_is_not_written(kept: Kept) -> None:
    """What is wrong with the structure is left as it is, for whoever can save more; a wrong record can be forgotten."""
    for at, bit in list(flips(kept.data))[::20]:
        data = flipped(kept.data, at, bit)
        kept.damage(data)
        async with open_secret_store(kept.path) as store:
            if not any("cannot" in trouble or "is damaged" in trouble for trouble in store.troubles()):
                continue  # one record
            with pytest.raises(StorageError, match="nothing can be stored now"):
                await store.forget(fresh_secret())
            assert kept.path.read_bytes() == data, f"byte {at}"


async def test_under_a_store_in_use(kept: Kept) -> None:
    """Bits change in the file while it is open: each answer is right or refused, and refused is only what is damaged."""
    others = 0
    for at, bit in list(flips(kept.data, rest=20))[:: 1 if EVERY_BYTE else 4]:
        kept.damage(kept.data)
        async with open_secret_store(kept.path) as store:
            with kept.path.open("r+b", buffering=0) as file:
                file.seek(at)
                file.write(flipped(kept.data, at, bit)[at : at + 1])
            reader = store._database._opened.reader
            assert reader is not None
            reader.execute("PRAGMA shrink_memory")  # what a large store does not remember, a small one does
            others += await served(store, kept, at) == len(kept.secrets) - 1
            await lists_right(store, kept, at)
    assert others > 150


async def test_in_the_log_of_a_killed_agent(kept: Kept, memory: Path) -> None:
    """A transaction whose bytes in the log changed is none, nor is any after it, as if the agent had died before: what is there
    is right. SQLite cannot tell this damage from a write that the end of the machine cut short.
    """
    root = await new_root()
    granted = await bless(root, root, "late", Caveat.unconstrained())
    kept.damage(kept.data)
    wal = memory / "secrets.db-wal"
    async with open_secret_store(kept.path) as store:
        late = [await store.new(granted, created_by="root", now=START) for _ in range(3)]
        log = wal.read_bytes()
    assert len(log) > 3 * 4096
    for at in range(0, len(log), 97):
        kept.damage(kept.data)
        wal.write_bytes(flipped(log, at, at % 8))
        async with open_secret_store(kept.path) as store:
            assert await served(store, kept, at) == len(kept.secrets)
            found = [await store.search(secret) for secret in late]
            known = [one for one in found if one is not None]
            assert found[: len(known)] == known, "one that came later is there without one before"
            assert all(one.blessings == granted for one in known)


@pytest.mark.parametrize("version", [0, 1, 3, -1, -(2**31), 2**31 - 1])
async def test_a_wrong_schema_version(kept: Kept, version: int) -> None:
    """It is a number among thousands of bytes: what the tables show is believed instead, and served; nothing is brought up to date."""
    data = kept.data[:60] + version.to_bytes(4, "big", signed=True) + kept.data[64:]
    kept.damage(data)
    async with open_secret_store(kept.path) as store:
        assert await served(store, kept, 60) == len(kept.secrets)
        [trouble] = store.troubles()
        assert "schema" in trouble
        assert "restore it from a backup" in trouble
    assert kept.path.read_bytes() == data
