"""Credentials directories: private, whole or absent, changed by one writer at a time."""

import os
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from vanadium_node.errors import InputError, StorageError
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.storage.credentials import CredentialsDirectory
from vanadium_node.storage.files import locked, read_limited, write_private

ROOTS_WRITER = Path(__file__).parents[1] / "support" / "roots_writer.py"
WRITERS, CHANGES_EACH = 3, 8
KILLS = 6
KILLED_AFTER_SECONDS = 0.05


@pytest.fixture
def directory(tmp_path: Path) -> CredentialsDirectory:
    """A directory that is not there yet."""
    return CredentialsDirectory(tmp_path / "alice")


async def test_a_principal_comes_back(directory: CredentialsDirectory) -> None:
    """Key, store and roots are kept, and changes of them too."""
    made = await directory.create(PrivateKey.generate(), "alice")
    opened = directory.open()
    assert opened.public_key == made.public_key
    assert opened.store == made.store
    assert opened.roots == made.roots
    own = await opened.bless_self("other")
    await opened.set_for_peer(own, Pattern.parse("root:server"))
    again = directory.open()
    assert again.store == opened.store
    assert again.blessings_for_peer(["root:server"]) is not None


async def test_everything_is_private(directory: CredentialsDirectory) -> None:
    """Nobody but the owner can read anything."""
    await directory.create(PrivateKey.generate(), "alice")
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    files = list(directory.path.iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


async def test_a_principal_is_not_overwritten_by_accident(directory: CredentialsDirectory) -> None:
    """Only when asked for, and then the old one is gone."""
    first = await directory.create(PrivateKey.generate(), "alice")
    with pytest.raises(StorageError, match=r"holds a principal already; .*--overwrite"):
        await directory.create(PrivateKey.generate(), "alice")
    assert directory.open().public_key == first.public_key
    await directory.create(PrivateKey.generate(), "new", overwrite=True)
    assert directory.open().public_key != first.public_key
    assert len(list(directory.path.iterdir())) == 3


async def test_nothing_is_left_when_the_name_is_bad(directory: CredentialsDirectory) -> None:
    """A refused name leaves no directory behind."""
    with pytest.raises(InputError):
        await directory.create(PrivateKey.generate(), "a::b")
    assert not directory.path.exists()


async def test_nothing_is_left_when_writing_fails(
    directory: CredentialsDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the key cannot be written, the state that was is removed, and the directory too."""
    import vanadium_node.storage.credentials as module

    def failing(path: Path, data: bytes) -> None:
        if path.suffix == ".pem":
            raise StorageError("cannot write", hint="make room")
        write_private(path, data)

    monkeypatch.setattr(module, "write_private", failing)
    with pytest.raises(StorageError):
        await directory.create(PrivateKey.generate(), "alice")
    assert not directory.path.exists()


async def test_each_damaged_byte_is_noticed(directory: CredentialsDirectory) -> None:
    """A state that was changed by anybody but the principal is refused with the file's name and the next step."""
    await directory.create(PrivateKey.generate(), "alice")
    (state,) = directory.path.glob("state-*")
    good = state.read_bytes()
    for at in range(len(good)):
        state.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(StorageError, match=r"is damaged: .*backup"):
            directory.open()
    state.unlink()
    with pytest.raises(StorageError, match="no such file"):
        directory.open()


@pytest.mark.parametrize("content", [b"", b"noise", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
async def test_a_damaged_key_is_named(directory: CredentialsDirectory, content: bytes) -> None:
    """A key file that is none is named."""
    await directory.create(PrivateKey.generate(), "alice")
    (directory.path / "private-key.pem").write_bytes(content)
    with pytest.raises(StorageError, match=r"private-key\.pem' is damaged"):
        directory.open()


async def test_passphrases(directory: CredentialsDirectory) -> None:
    """An encrypted key asks for its passphrase; a wrong or missing one is told."""
    await directory.create(PrivateKey.generate(), "alice", passphrase=b"secret")
    assert directory.open(lambda: b"secret").store.default is not None
    with pytest.raises(InputError, match="passphrase"):
        directory.open(lambda: b"wrong")
    with pytest.raises(InputError, match="passphrase"):
        directory.open()


def test_a_missing_principal_says_how_to_make_one(directory: CredentialsDirectory) -> None:
    """The next step is in the sentence."""
    with pytest.raises(StorageError, match="principal create"):
        directory.open()


async def test_writers_wait_and_see_each_others_changes(directory: CredentialsDirectory) -> None:
    """Two principals opened before either changed anything: no change is lost."""
    await directory.create(PrivateKey.generate(), "alice")
    one, two = directory.open(), directory.open()
    key = PrivateKey.generate().public_key
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.add_root, key, Pattern.parse("one"))
        nursery.start_soon(two.add_root, key, Pattern.parse("two"))
    assert set(directory.open().roots.entries[key]) == {Pattern.parse("one"), Pattern.parse("two")}


async def test_a_second_process_waits_for_the_lock(tmp_path: Path) -> None:
    """While one process holds the lock, another one's change waits; then it goes on."""
    lock = tmp_path / "lock"
    code = (
        "import os, sys, trio, pathlib\n"
        "from vanadium_node.storage.files import locked\n"
        "async def main():\n"
        "    os.write(1, b'trying')\n"
        "    async with locked(pathlib.Path(sys.argv[1])): os.write(1, b'held')\n"
        "trio.run(main)\n"
    )
    async with locked(lock):
        process = await trio.lowlevel.open_process([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.receive_some() == b"trying"
        with trio.move_on_after(0.3) as waited:
            await process.stdout.receive_some()
        assert waited.cancelled_caught
    assert await process.stdout.receive_some() == b"held"
    await process.wait()
    await process.stdout.aclose()


async def test_no_change_is_lost_between_processes(directory: CredentialsDirectory) -> None:
    """Several processes opened the directory before any of them changed it; each one's changes are there at the end."""
    await directory.create(PrivateKey.generate(), "alice")
    before = len(directory.open().roots.entries)
    async with trio.open_nursery() as nursery:
        for number in range(WRITERS):
            arguments = [sys.executable, str(ROOTS_WRITER), str(directory.path), str(number), str(CHANGES_EACH)]
            nursery.start_soon(partial(trio.run_process, arguments))
    entries = directory.open().roots.entries
    assert len(entries) == before + WRITERS * CHANGES_EACH
    patterns = {pattern.text for patterns in entries.values() for pattern in patterns} - {"alice"}
    assert patterns == {f"w{writer}-{n}" for writer in range(WRITERS) for n in range(CHANGES_EACH)}


async def test_a_writer_is_killed(directory: CredentialsDirectory) -> None:
    """At any moment: each change that it said was made is there, the state is whole, and the next writer is not kept waiting."""
    await directory.create(PrivateKey.generate(), "alice")
    said = 0
    for number in range(KILLS):
        arguments = [sys.executable, str(ROOTS_WRITER), str(directory.path), str(number), "1000000"]
        process = await trio.lowlevel.open_process(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.receive_some()
        await trio.sleep(KILLED_AFTER_SECONDS * number / KILLS)  # a real process takes real time
        process.kill()
        await process.wait()
        lines = b"".join([b"0\n", *[chunk async for chunk in process.stdout]]).decode().splitlines()
        said = max(int(line) for line in lines if line)
        patterns = {p.text for found in directory.open().roots.entries.values() for p in found}
        assert {f"w{number}-{n}" for n in range(said + 1)} <= patterns
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in directory.path.iterdir()), "leftovers too"
    with trio.fail_after(30):
        await directory.open().add_root(PrivateKey.generate().public_key, Pattern.parse("after"))


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old content, and no temporary file."""
    import os

    file = tmp_path / "file"
    write_private(file, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left on device; make room"):
        write_private(file, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_bytes() == b"old"


def test_reading_is_limited(tmp_path: Path) -> None:
    """A file that is longer than it should be is not read into memory."""
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(StorageError, match="longer than the 10 bytes"):
        read_limited(tmp_path / "long", max_bytes=10)


async def test_of_two_that_create_at_once_one_is_told(tmp_path: Path) -> None:
    """Both find no principal; the one that comes second to the lock finds the first one's."""
    directory = CredentialsDirectory(tmp_path / "one")
    told: list[str] = []

    async def create(name: str) -> None:
        try:
            await directory.create(PrivateKey.generate(), name)
        except StorageError as error:
            told.append(error.message)

    async with trio.open_nursery() as nursery:
        for name in ("first", "second"):
            nursery.start_soon(create, name)
    assert len(told) == 1
    assert "holds a principal already" in told[0]
    assert directory.open().store.default is not None


async def test_a_refused_creation_leaves_the_empty_directory_empty(tmp_path: Path) -> None:
    """A directory that was there before stays, with nothing in it."""
    with pytest.raises(InputError):
        await CredentialsDirectory(tmp_path).create(PrivateKey.generate(), "a//b")
    assert not await trio.to_thread.run_sync(os.listdir, tmp_path)
