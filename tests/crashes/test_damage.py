"""A bit of the cluster agent's database that changes: right answers or a typed error, never another answer, and no end.

The plain run changes a bit of each byte that holds something, and of some of the others; VANADIUM_TEST_EVERY_BYTE=1 of all.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio
from agent_parties import START, bless, new_root, short_directory
from crashing_agent import CrashingAgent
from disk_faults import flipped, flips
from http_get import get
from until import until

from vanadium_node.errors import CallError, ErrorCode, StorageError
from vanadium_node.secret_store import Record, SecretStore, fresh_secret, key_of_secret, open_secret_store, secret_id
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


def lists_right(store: SecretStore, kept: Kept, at: int) -> None:
    """List all: what is not marked as damaged is as it was but for its use, which gives no rights; nothing is left out unsaid."""
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


async def test_at_the_start(kept: Kept) -> None:
    """It is always opened. A record whose own bytes changed costs no other one; a strange secret stays unknown, or cannot be told."""
    others = 0
    for at, bit in flips(kept.data):
        kept.damage(flipped(kept.data, at, bit))
        with trio.fail_after(60):
            async with open_secret_store(kept.path) as store:
                others += await served(store, kept, at) == len(kept.secrets) - 1
                lists_right(store, kept, at)
                try:
                    assert await store.search(fresh_secret()) is None
                except StorageError as error:
                    refused(error, at)
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
    for at, bit in list(flips(kept.data, rest=20))[::2]:
        kept.damage(kept.data)
        async with open_secret_store(kept.path) as store:
            with kept.path.open("r+b", buffering=0) as file:
                file.seek(at)
                file.write(flipped(kept.data, at, bit)[at : at + 1])
            reader = store._database._opened.reader
            assert reader is not None
            reader.execute("PRAGMA shrink_memory")  # what a large store does not remember, a small one does
            others += await served(store, kept, at) == len(kept.secrets) - 1
            lists_right(store, kept, at)
    assert others > 300


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


@pytest.fixture
async def agent() -> AsyncIterator[CrashingAgent]:
    """A claimed agent with three secrets, as a process that was ended well."""
    with short_directory() as folder:
        agent = await CrashingAgent.at(folder / "agent")
        try:
            assert agent.start()
            assert await agent.claim(await agent.grant())
            for _ in range(3):
                assert await agent.new_secret()
            await agent.becomes_ready()
            yield agent
        finally:
            agent.end()


def place_of(agent: CrashingAgent, secret: str) -> int:
    """Return where a record begins in the file, with its key."""
    key = bytes.fromhex(secret_id(secret))
    return (agent.folder / "data" / "secrets.db").read_bytes().index(key)


def change(agent: CrashingAgent, at: int, count: int = 1) -> None:
    """Change bytes of the database in place."""
    with (agent.folder / "data" / "secrets.db").open("r+b", buffering=0) as file:
        file.seek(at)
        data = file.read(count)
        file.seek(at)
        file.write(bytes(byte ^ 0xA5 for byte in data))


async def refusal(agent: CrashingAgent, secret: str) -> str:
    """Return with which words a replica is refused."""
    with pytest.raises(CallError) as refused:
        await agent.is_known(secret)
    assert refused.value.code is ErrorCode.INTERNAL
    assert "log says why" not in str(refused.value), "a bug of ours has no other words"
    return str(refused.value)


async def test_a_damaged_record_and_the_process(agent: CrashingAgent) -> None:
    """It starts, is alive and not ready, serves the others, and is ready again as soon as the damaged one is forgotten."""
    agent.stop()
    change(agent, place_of(agent, agent.secrets[0]) + 100)
    assert agent.start()
    assert "records of 1 secrets are damaged" in await agent.unready()
    assert "forget it" in await refusal(agent, agent.secrets[0])
    assert await agent.is_known(agent.secrets[1])
    assert await agent.is_known(agent.secrets[2])
    assert [one.is_damaged for one in await agent.known()].count(True) == 1
    assert await agent.new_secret(), "one record says nothing about the rest"
    agent.secrets.append(agent.secrets.pop(0))
    assert (await agent.forget_secret())[1]
    await agent.becomes_ready()
    assert all([await agent.is_known(secret) for secret in agent.secrets])


async def test_a_damaged_page_and_the_process(agent: CrashingAgent) -> None:
    """It starts once, stays, and says in log, readiness and each answer what to restore; it makes no new secret."""
    agent.stop()
    change(agent, 4096, 8)
    assert agent.start()
    reason = await agent.unready()
    assert "secrets.db" in reason
    assert "restore it from a backup" in reason
    for secret in agent.secrets:
        assert "restore" in await refusal(agent, secret)
    with pytest.raises(CallError, match=r"nothing can be stored now.*restore it from a backup"):
        await agent.new_secret()
    assert agent.daemon is not None
    assert agent.daemon.log.read_text().count("not ready") == 1
    assert "Traceback" not in agent.daemon.log.read_text()
    assert agent.stop() == 0


async def crowd(agent: CrashingAgent) -> list[str]:
    """Put more secrets into the store of an agent that was ended than it remembers pages of; return them as it orders them."""
    granted, secrets = await agent.grant(), [fresh_secret() for _ in range(4000)]
    agent.stop()
    async with open_secret_store(agent.folder / "data" / "secrets.db") as store, trio.open_nursery() as nursery:
        for secret in secrets:
            nursery.start_soon(partial(store.new, granted, created_by="root", now=START, secret=secret))
    return sorted(secrets, key=key_of_secret)


async def test_damage_under_the_process(agent: CrashingAgent) -> None:
    """It is noticed by the next who asks, and is the reason why the agent is not ready; it neither ends nor starts again."""
    secrets = await crowd(agent)
    assert agent.start()
    assert not await agent.unready()
    page = place_of(agent, secrets[0]) // 4096
    change(agent, page * 4096, 8)
    words = await refusal(agent, secrets[0])
    assert "secrets.db" in words
    assert "restore it from a backup" in await agent.unready()
    assert all([await agent.is_known(secret, "agent") for secret in secrets[-1:1000:-500]])
    assert "vanadium_ready 0.0" in (await get(agent.health, "/metrics"))[1]
    assert agent.daemon is not None

    async def is_logged() -> bool:
        assert agent.daemon is not None
        return "not ready" in agent.daemon.log.read_text()

    await until(is_logged)
    assert '"outcome":"failed"' in (agent.folder / "data" / "audit.jsonl").read_text()
    assert not await agent.is_gone()
