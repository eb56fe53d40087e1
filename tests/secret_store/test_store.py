"""The secret store: what a secret stands for, that only its hash is kept, and what happens to damage."""

import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from agent_parties import START, default_of, new_root

from vanadium_node import cbor
from vanadium_node.errors import StorageError
from vanadium_node.secret_store import SecretStore, open_secret_store
from vanadium_node.secret_store.store import MAX_SECRET_CHARACTERS, SECRET_BYTES
from vanadium_node.security.blessing import Blessings


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
    secret = await store.new(blessings, created_by="root:alice", now=START)
    other = await store.new(blessings, created_by="root:bob", now=START)
    found = store.find(secret)
    assert found is not None
    assert (found.blessings, found.created_by, found.created) == (blessings, "root:alice", START)
    assert (found.uses, found.last_used) == (0, None)
    assert secret != other
    assert len(cbor.from_text(secret, max_bytes=SECRET_BYTES)) == SECRET_BYTES
    assert store.count() == 2


async def test_uses_are_counted(store: SecretStore, blessings: Blessings) -> None:
    """How often and when a secret was used last can be told."""
    secret = await store.new(blessings, created_by="", now=START)
    for hours in (1, 2):
        await store.record_use(secret, now=START + timedelta(hours=hours))
    found = store.find(secret)
    assert found is not None
    assert (found.uses, found.last_used) == (2, START + timedelta(hours=2))


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


@pytest.mark.parametrize("change", ["blessings = x'00'", "created = -9223372036854775807"])
async def test_a_damaged_record_is_an_error_and_others_are_served(
    tmp_path: Path, blessings: Blessings, change: str
) -> None:
    """One record that cannot be read does not take the others with it."""
    path = tmp_path / "secrets.db"
    async with open_secret_store(path) as store:
        damaged = await store.new(blessings, created_by="damaged", now=START)
        sound = await store.new(blessings, created_by="sound", now=START)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE secrets SET {change} WHERE created_by = 'damaged'")  # noqa: S608 - our own text
    connection.close()
    async with open_secret_store(path) as store:
        with pytest.raises(StorageError, match=r"the record of a secret is damaged.*forget the secret"):
            store.find(damaged)
        assert store.find(sound) is not None
