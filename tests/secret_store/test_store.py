"""The secret store: what a secret stands for, that only its hash is kept, and what happens to damage."""

import json
import shutil
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from agent_parties import START, bless, default_of, new_root

from vanadium_node import cbor
from vanadium_node.errors import StorageError
from vanadium_node.secret_store import Criteria, Record, SecretStore, key_of_secret, open_secret_store, secret_id
from vanadium_node.secret_store.store import MAX_SECRET_CHARACTERS, PAGE_ROWS, SECRET_BYTES
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat


@pytest.fixture
async def blessings() -> Blessings:
    """Some blessings to store."""
    return default_of(await new_root())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SecretStore]:
    """An open store."""
    async with open_secret_store(tmp_path / "secrets.db") as opened:
        yield opened


async def test_a_secret_stands_for_blessings(store: SecretStore, blessings: Blessings) -> None:
    """What was stored is found, with who stored it and when; each secret is 256 bytes of its own."""
    secret = await store.new(blessings, created_by="root:alice", now=START, ttl=timedelta(minutes=5))
    other = await store.new(blessings, created_by="root:bob", now=START)
    found = store.find(secret)
    assert found is not None
    assert found.blessings == blessings
    record = found.record
    assert (record.name, record.created_by, record.created) == ("root", "root:alice", START)
    assert (record.ttl, record.expires) == (timedelta(minutes=5), None)
    assert (record.uses, record.last_used, record.is_damaged) == (0, None, False)
    assert secret != other
    assert secret_id(secret) == record.id != secret_id(other)
    assert len(cbor.from_text(secret, max_bytes=SECRET_BYTES)) == SECRET_BYTES
    assert store.count() == 2
    assert store.troubles() == ()


async def test_uses_are_counted(store: SecretStore, blessings: Blessings) -> None:
    """How often and when a secret was used last can be told."""
    secret = await store.new(blessings, created_by="", now=START)
    for hours in (1, 2):
        await store.record_use(secret, now=START + timedelta(hours=hours))
    found = store.find(secret)
    assert found is not None
    assert (found.record.uses, found.record.last_used) == (2, START + timedelta(hours=2))


async def test_secrets_are_listed_by_what_they_are(store: SecretStore) -> None:
    """By a name of theirs, or by how long nobody has used them; hundreds come page by page, each once."""
    root = await new_root()
    end = START + timedelta(days=90)
    for day in range(PAGE_ROWS + 20):
        granted = await bless(root, root, "shop" if day % 2 else "cart", Caveat.expiry(end))
        secret = await store.new(granted, created_by="root", now=START + timedelta(days=day))
        if day == 3:
            await store.record_use(secret, now=START + timedelta(days=day, hours=1))

    def found(criteria: Criteria) -> list[Record]:
        return [record for page in store.pages(criteria) for record in page]

    everything = found(Criteria())
    assert len({record.id for record in everything}) == len(everything) == PAGE_ROWS + 20
    assert {record.expires for record in everything} == {end}
    assert {record.name for record in found(Criteria(name="root:shop"))} == {"root:shop"}
    assert found(Criteria(name="root")) == [], "a name is meant exactly"
    assert found(Criteria(is_damaged=True)) == []
    old = found(Criteria(idle_since=START + timedelta(days=3, minutes=1)))
    assert sorted(record.created for record in old) == [START + timedelta(days=day) for day in range(3)]


async def test_many_are_forgotten_together_but_for_those_used_meanwhile(
    store: SecretStore, blessings: Blessings
) -> None:
    """Between the list and the end a replica may come: what was idle then and is no more stays."""
    idle, used = [await store.new(blessings, created_by="", now=START) for _ in range(2)]
    limit = START + timedelta(days=30)
    [listed] = list(store.pages(Criteria(idle_since=limit)))
    await store.record_use(used, now=limit + timedelta(days=1))
    gone = await store.forget_all(listed, idle_since=limit)
    assert [record.id for record in gone] == [secret_id(idle)], "nobody is told that it was forgotten where it was not"
    assert store.find(idle) is None
    assert store.find(used) is not None
    assert len(await store.forget_all(listed)) == 1
    assert store.count() == 0


async def test_a_forgotten_secret_is_worthless(store: SecretStore, blessings: Blessings) -> None:
    """Forgetting touches no other secret, and may be repeated."""
    secret, other = [await store.new(blessings, created_by="", now=START) for _ in range(2)]
    for _ in range(2):
        await store.forget(secret)
    assert store.find(secret) is None
    assert store.find(other) is not None


@pytest.mark.parametrize("unknown", ["", "x", "\ud800", "A" * (MAX_SECRET_CHARACTERS + 1)])
async def test_unknown_secrets(store: SecretStore, unknown: str) -> None:
    """Whatever a stranger sends is simply unknown."""
    assert store.find(unknown) is None
    await store.forget(unknown)


async def test_secrets_survive_and_are_in_no_file(tmp_path: Path, blessings: Blessings) -> None:
    """The next to open the store finds the secret, which no byte of the files gives away."""
    directory = tmp_path / "store"
    directory.mkdir()
    async with open_secret_store(directory / "secrets.db") as store:
        secret = await store.new(blessings, created_by="", now=START)
        files = [path.read_bytes() for path in directory.iterdir()]
    files += [path.read_bytes() for path in directory.iterdir()]
    raw = cbor.from_text(secret, max_bytes=SECRET_BYTES)
    assert any(b"root" in data for data in files)
    assert not any(secret.encode() in data or raw in data for data in files)
    async with open_secret_store(directory / "secrets.db") as store:
        assert store.find(secret) is not None


@pytest.mark.parametrize(
    "change",
    [
        "blessings = x'00'",
        "created = -9223372036854775807",
        "ttl = 3600",
        "expires = NULL",
        "name = 'root:other'",
        "name = CAST(x'ff' AS TEXT)",
        "created_by = 'mallory'",
        "digest = NULL",
    ],
)
async def test_a_damaged_record_is_an_error_and_others_are_served(tmp_path: Path, change: str) -> None:
    """One record that was changed by something else than the agent gives nothing, is named, and can be forgotten."""
    path, root = tmp_path / "secrets.db", await new_root()
    granted = await bless(root, root, "shop", Caveat.expiry(START + timedelta(days=1)))
    async with open_secret_store(path) as store:
        damaged, sound = [await store.new(granted, created_by="root", now=START) for _ in range(2)]
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE secrets SET {change} WHERE key = ?", (key_of_secret(damaged),))  # noqa: S608 - our own text
    connection.close()
    async with open_secret_store(path) as store:
        [trouble] = store.troubles()
        assert f"1 secrets are damaged ({secret_id(damaged)})" in trouble
        with pytest.raises(StorageError, match=f"the record {secret_id(damaged)} of a secret is damaged.*--damaged"):
            store.find(damaged)
        assert store.find(sound) is not None
        [records] = store.pages(Criteria(is_damaged=True))
        assert [record.id for record in records] == [secret_id(damaged)]
        await store.forget_all(records)
        assert store.troubles() == ()
        assert store.count() == 1


async def test_a_database_of_version_1_is_brought_up_to_date(tmp_path: Path) -> None:
    """A file written by the first version is read, its secrets are good, and ends that were not stored are found."""
    fixtures = Path(__file__).parent / "fixtures"
    path = tmp_path / "secrets.db"
    shutil.copyfile(fixtures / "version-1.db", path)
    secrets = json.loads((fixtures / "version-1.secrets.json").read_text())
    for _ in range(2):
        async with open_secret_store(path) as store:
            assert store.troubles() == ()
            shop, cart = store.find(secrets["shop"]), store.find(secrets["cart"])
            assert shop is not None
            assert cart is not None
            assert shop.blessings.names == ("root:alice:shop",)
            assert (shop.record.uses, shop.record.last_used) == (1, START + timedelta(hours=5))
            assert (shop.record.expires, cart.record.expires) == (None, START + timedelta(days=90))
            assert (shop.record.ttl, shop.record.created, shop.record.created_by) == (None, START, "root:alice")
