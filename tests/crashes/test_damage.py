"""Each byte on the disk may be another one than was written: what gives rights is right, or refused by name; others are served.

The plain run flips the bytes that hold something and a sample of the empty ones; VANADIUM_TEST_EVERY_BYTE=1 flips all.
"""

import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from agent_parties import START, bless, clean_environment, new_root, run_module, short_directory
from crashing_agent import CrashingAgent
from flipping import flipped, flips, places
from http_get import get

from vanadium_node.errors import CallError, InputError, StorageError
from vanadium_node.secret_store import SecretStore, open_secret_store
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PrivateKey
from vanadium_node.storage.credentials import CredentialsDirectory

PAGE = 4096
"""Bytes of the database before the table of secrets."""
PASSPHRASE = b"correct horse"


@dataclass(frozen=True, slots=True)
class Kept:
    """A database with two secrets, and what they stand for."""

    path: Path
    secrets: tuple[str, str]
    blessings: Blessings


@pytest.fixture
async def kept(tmp_path: Path) -> Kept:
    """A small database that nobody uses."""
    root, path = await new_root(), tmp_path / "secrets.db"
    granted = await bless(root, root, "shop", Caveat.expiry(START + timedelta(days=1)))
    async with open_secret_store(path) as store:
        secrets = [await store.new(granted, created_by="root", now=START, ttl=timedelta(hours=1)) for _ in range(2)]
    return Kept(path, (secrets[0], secrets[1]), granted)


def answers(store: SecretStore, kept: Kept) -> list[str]:
    """Ask for both secrets; return for each whether it was found as it was, refused or unknown. A wrong answer fails."""
    found = []
    for secret in kept.secrets:
        try:
            answer = store.find(secret)
        except StorageError as error:
            found.append("refused" if error.hint else "refused without a next step")
            continue
        if answer is not None:
            assert answer.blessings == kept.blessings
            assert answer.record.ttl == timedelta(hours=1)
        found.append("unknown" if answer is None else "right")
    return found


async def test_a_database_with_a_flipped_byte_is_opened(kept: Kept) -> None:
    """It answers right, or says what is wrong, by the file's name; a secret is never lost in silence."""
    content = kept.path.read_bytes()
    outcomes = Counter[str]()
    for at in places(content):
        for leftover in kept.path.parent.glob("secrets.db-*"):
            leftover.unlink()
        kept.path.write_bytes(flipped(content, at))
        try:
            async with open_secret_store(kept.path) as store:
                given = answers(store, kept)
                if given != ["right", "right"]:
                    assert store.troubles(), f"byte {at}: {given}, and all seems well"
        except StorageError as error:
            given = ["refused" if str(kept.path) in str(error) else "refused without the file's name"] * 2
        outcomes.update(given)
    assert set(outcomes) - {"unknown"} == {"right", "refused"}, outcomes


async def test_bytes_are_flipped_while_it_is_open(kept: Kept) -> None:
    """Each record gives the right answer, or a refusal; when the byte is as it was, all is well again."""
    async with open_secret_store(kept.path) as store:
        for at in flips(kept.path):
            assert set(answers(store, kept)) <= {"right", "refused"}, at
        assert answers(store, kept) == ["right", "right"]


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE], ids=["plain", "encrypted"])
async def test_credentials_with_a_flipped_byte(tmp_path: Path, passphrase: bytes | None) -> None:
    """A principal is loaded as it was kept, or refused with the file's name: never with another key, blessings or roots."""
    path = tmp_path / "alice"
    directory = CredentialsDirectory(path)
    principal = await directory.create(PrivateKey.generate(), "alice", passphrase=passphrase)
    expected = (principal.public_key, principal.store.encode(), principal.roots.encode())
    refusals = Counter[bool]()
    for file in sorted(path.iterdir()):
        for at in flips(file, every=16 if passphrase and file == directory.key_file else 1):  # the KDF takes its time
            try:
                loaded = directory.open(None if passphrase is None else lambda: PASSPHRASE)
                signed = await loaded.bless_self("x")
            except (StorageError, InputError) as error:
                refusals[str(path) in str(error)] += 1
                continue
            assert (loaded.public_key, loaded.store.encode(), loaded.roots.encode()) == expected, (file.name, at)
            assert Blessings.decode(signed.encoded).public_key == expected[0], f"byte {at}: it signs with another key"
    assert refusals[True] > 20
    assert not refusals[False], "some do not name the file"


@pytest.mark.parametrize("which", ["private-key.pem", "state-*"])
async def test_programs_say_that_credentials_are_damaged(tmp_path: Path, which: str) -> None:
    """In one sentence, with the file's name; nothing is changed."""
    path = tmp_path / "alice"
    await CredentialsDirectory(path).create(PrivateKey.generate(), "alice")
    [file] = path.glob(which)
    content = file.read_bytes()
    damaged = flipped(content, len(content) // 2)
    file.write_bytes(damaged)
    for arguments in (["principal", "dump"], ["rpc", "identify", "/127.0.0.1:1"]):
        done = run_module(tmp_path, arguments, clean_environment(V23_CREDENTIALS=str(path)))
        assert done.returncode != 0
        assert str(file) in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert file.read_bytes() == damaged


@pytest.fixture
async def agent() -> AsyncIterator[CrashingAgent]:
    """An agent that is claimed and has two secrets, and does not run any more."""
    with short_directory() as folder:
        agent = await CrashingAgent.at(folder / "agent")
        try:
            assert agent.start()
            assert await agent.claim(await agent.grant())
            assert await agent.new_secret()
            assert await agent.new_secret()
            assert agent.daemon is not None
            assert agent.daemon.end() == 0
            yield agent
        finally:
            agent.end()


async def test_an_agent_with_a_damaged_database_stays(agent: CrashingAgent) -> None:
    """It lives, is not ready and says why; it makes no secrets and does not end; with the file as it was, all is well."""
    database = agent.data / "secrets.db"
    content = database.read_bytes()
    shutil.copyfile(database, agent.folder / "sound")
    second = content[PAGE : PAGE + 64]
    database.write_bytes(content[:PAGE] + bytes(byte ^ 0xFF for byte in second) + content[PAGE + 64 :])
    assert agent.start()
    assert (await get(agent.health, "/livez"))[0] == 200
    status, reasons = await get(agent.health, "/readyz")
    assert status == 503
    assert "secrets.db' is damaged" in reasons or "malformed" in reasons
    assert "restore it from a backup" in reasons
    with pytest.raises(CallError, match="restore it from a backup"):
        await agent.new_secret()
    for secret in agent.secrets:
        with suppress(CallError):  # what is not lost is given
            await agent.is_known(secret)
    assert agent.daemon is not None
    assert agent.daemon.process.poll() is None
    assert agent.daemon.end() == 0
    shutil.copyfile(agent.folder / "sound", database)
    assert agent.start()
    await agent.check()


async def test_an_agent_whose_key_is_damaged_does_not_start(agent: CrashingAgent) -> None:
    """It is told in a sentence that names the file, and nothing is overwritten."""
    [key] = list((agent.data).rglob("private-key.pem"))
    damaged = flipped(key.read_bytes(), 100)
    key.write_bytes(damaged)
    with pytest.raises(AssertionError, match=r"(?s)it ended: .*private-key\.pem' is damaged: .*restore the directory"):
        agent.start()
    assert agent.daemon is not None
    assert "Traceback" not in agent.daemon.log.read_text()
    assert key.read_bytes() == damaged
