"""The database: what is acknowledged is durable, what fails fails alone, what is damaged is named."""

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
from disk_faults import file_size_limit

from vanadium_node.errors import InputError, StorageError
from vanadium_node.storage.sqlite import Change, open_database
from vanadium_node.storage.sqlite_files import copy_database


def make_table(connection: sqlite3.Connection) -> None:
    """The first migration of these tests."""
    connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT")


def insert(number: object) -> Change:
    """A change that inserts a number."""

    def change(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (?)", (number,))

    return change


def add_word(connection: sqlite3.Connection) -> None:
    """A later migration."""
    connection.execute("ALTER TABLE numbers ADD COLUMN word TEXT")


async def test_what_is_written_is_there_after_opening_it_again(tmp_path: Path) -> None:
    """A written row is read at once and by the next who opens the file, which only its owner can read."""
    path = tmp_path / "db"
    async with open_database(path, [make_table]) as database:
        await database.write(insert(1))
        assert database.read("SELECT n FROM numbers") == [(1,)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with open_database(path, [make_table]) as database:
        assert database.read("SELECT n FROM numbers WHERE n = ?", (1,)) == [(1,)]


async def test_changes_that_wait_together_share_a_transaction(tmp_path: Path) -> None:
    """A hundred changes at once cost far fewer than a hundred commits."""
    statements: list[str] = []
    async with open_database(tmp_path / "db", [make_table]) as database:
        await database.write(lambda connection: connection.set_trace_callback(statements.append))
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(database.write, insert(number))
        assert database.read("SELECT COUNT(*) FROM numbers") == [(100,)]
    assert 1 <= statements.count("COMMIT") - 1 <= 10


async def test_a_change_that_fails_fails_alone(tmp_path: Path) -> None:
    """Others of the same transaction are made, and whoever brought the failing one is told."""
    failed = []

    async with open_database(tmp_path / "db", [make_table]) as database:

        async def write(number: object) -> None:
            try:
                await database.write(insert(number))
            except StorageError as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            for number in (1, 2, "three", 2, 4):
                nursery.start_soon(write, number)
        assert database.read("SELECT n FROM numbers ORDER BY n") == [(1,), (2,), (4,)]
    assert len(failed) == 2
    assert all("cannot change the database" in str(error) for error in failed)


async def test_an_error_of_the_caller_is_not_wrapped(tmp_path: Path) -> None:
    """Whoever uses the database catches errors as if there were no task behind it."""
    with pytest.raises(InputError):
        async with open_database(tmp_path / "db", [make_table]):
            raise InputError("of the caller")


async def test_reading_cannot_write(tmp_path: Path) -> None:
    """What looks like a read and is none is refused."""
    async with open_database(tmp_path / "db", [make_table]) as database:
        with pytest.raises(StorageError, match="cannot read"):
            database.read("INSERT INTO numbers VALUES (1)")


async def test_migrations_run_once_and_in_order(tmp_path: Path) -> None:
    """Each version's step runs on the first opening after it was added."""
    path, ran = tmp_path / "db", []

    def add_column(connection: sqlite3.Connection) -> None:
        (_, _, file) = connection.execute("PRAGMA database_list").fetchone()
        ran.extend(["column"] if file else [])  # what tables it makes is found out in memory
        connection.execute("ALTER TABLE numbers ADD COLUMN word TEXT")

    async with open_database(path, [make_table]) as database:
        await database.write(insert(7))
    for _ in range(2):
        async with open_database(path, [make_table, add_column]) as database:
            assert database.read("SELECT n, word FROM numbers") == [(7, None)]
    assert ran == ["column"]


async def test_a_migration_that_fails_leaves_what_was(tmp_path: Path) -> None:
    """Half of a migration is none, and the next program to open the file finds the old version."""
    path = tmp_path / "db"

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE numbers ADD COLUMN word TEXT")
        connection.execute("ALTER TABLE nowhere ADD COLUMN word TEXT")

    async with open_database(path, [make_table]) as database:
        await database.write(insert(7))
    with pytest.raises(StorageError, match="cannot bring up to date"):
        async with open_database(path, [make_table, half]):
            pass
    async with open_database(path, [make_table]) as database:
        assert database.read("SELECT * FROM numbers") == [(7,)]


async def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    """An old program does not guess at a schema it does not know."""
    path = tmp_path / "db"
    async with open_database(path, [make_table, add_word]):
        pass
    with pytest.raises(StorageError, match="schema version 2; this program knows up to 1; run a version"):
        async with open_database(path, [make_table]):
            pass


async def test_a_version_that_was_never_written_is_damage(tmp_path: Path) -> None:
    """As one flipped bit makes it."""
    path = tmp_path / "db"
    async with open_database(path, [make_table]):
        pass
    content = path.read_bytes()
    path.write_bytes(
        content[:60] + b"\xff" + content[61:]
    )  # SQLite's file format, §1.3: the user version, its sign first
    async with open_database(path, [make_table]) as database:
        [trouble] = database.troubles()
        assert "is damaged: it says that its schema has version -" in str(trouble)


@pytest.mark.parametrize("content", [b"this is no database at all, is it" * 40, b"SQLite format 3\0" + b"\xff" * 4096])
async def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    """It is opened all the same, so that who uses it can say what is wrong; the file is left as it was."""
    path = tmp_path / "db"
    path.write_bytes(content)
    async with open_database(path, [make_table]) as database:
        [trouble] = database.troubles()
        assert f"the database '{path}'" in str(trouble)
        with pytest.raises(StorageError, match=f"the database '{path}'.*backup"):
            database.read("SELECT n FROM numbers")
        with pytest.raises(StorageError, match=f"nothing can be stored now: .*'{path}'"):
            await database.write(insert(1))
    assert path.read_bytes() == content


async def test_damage_is_found_when_it_is_opened(tmp_path: Path) -> None:
    """A page that was overwritten is found at the start; then nothing is written, and what is sound can be read."""
    path = tmp_path / "db"
    async with open_database(path, [make_table]) as database, trio.open_nursery() as nursery:
        for number in range(2000):
            nursery.start_soon(database.write, insert(number))
    data = bytearray(path.read_bytes())
    data[8192:12288] = b"\xa5" * 4096
    path.write_bytes(data)
    async with open_database(path, [make_table]) as database:
        [trouble] = database.troubles()
        assert re.search(r"is damaged|malformed", str(trouble))
        with pytest.raises(StorageError, match="nothing can be stored now"):
            await database.write(insert(5000))
        assert database.read("SELECT n FROM numbers WHERE n = 1999") == [(1999,)]
        with pytest.raises(StorageError, match=r"cannot read.*malformed.*restore it from a backup"):
            database.read("SELECT COUNT(*), SUM(n) FROM numbers")


async def test_a_full_disk_fails_writes_until_there_is_room(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Reads go on, the trouble is named, and it is over as soon as the disk takes a write: nobody has to bring one."""
    path = tmp_path / "db"
    async with open_database(path, [make_table]) as database:
        await database.write(insert(1))
        with file_size_limit(path.with_name("db-wal").stat().st_size):
            with pytest.raises(StorageError, match=r"cannot change the database .*(full|disk I/O)"):
                await database.write(insert(2))
            assert "check the disk's space" in str(database.troubles()[0])
            assert database.read("SELECT n FROM numbers") == [(1,)]
            await trio.sleep(60)
            assert database.troubles()
        while database.troubles():  # noqa: ASYNC110 - the writer is in a thread, for which the clock does not wait
            await trio.sleep(1)
        await database.write(insert(3))
    async with open_database(path, [make_table]) as database:
        assert database.read("SELECT n FROM numbers ORDER BY n") == [(1,), (3,)]


async def test_a_copy_is_made_while_others_write(tmp_path: Path) -> None:
    """The copy holds what was committed before, is one private file, sound, and a database like the first."""
    path, copy = tmp_path / "db", tmp_path / "copy"
    async with open_database(path, [make_table]) as database, trio.open_nursery() as nursery:
        for number in range(200):
            await database.write(insert(number))
        for number in range(200, 2000):
            nursery.start_soon(database.write, insert(number))
        await trio.to_thread.run_sync(copy_database, path, copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert not [file for file in os.listdir(tmp_path) if file.startswith("copy-")]  # noqa: PTH208
    async with open_database(copy, [make_table]) as database:
        numbers = [n for (n,) in database.read("SELECT n FROM numbers ORDER BY n")]
        assert len(numbers) >= 200
        assert numbers == list(range(len(numbers)))


def test_a_copy_of_nothing_and_of_damage_is_none(tmp_path: Path) -> None:
    """The sentence names the file; no half of a copy stays."""
    (tmp_path / "damaged").write_bytes(b"damage" * 1000)
    for source in (tmp_path / "none", tmp_path / "damaged"):
        with pytest.raises(StorageError, match=str(source)):
            copy_database(source, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
    assert not (tmp_path / "none").exists()


async def test_the_log_of_changes_stays_short(tmp_path: Path) -> None:
    """Thousands of changes leave a log of a few megabytes, and the next start begins with an empty one."""
    path, log = tmp_path / "db", tmp_path / "db-wal"

    def make_wide(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE wide (n INTEGER PRIMARY KEY, content BLOB) STRICT")

    def put(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR REPLACE INTO wide VALUES (abs(random()) % 1000, randomblob(3000))")

    async with open_database(path, [make_wide]) as database:
        for _ in range(30):
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(database.write, put)
        assert log.stat().st_size < 12_000_000, "18 MB were written"
        copied = {name: (tmp_path / name).read_bytes() for name in ("db", "db-wal")}
    (tmp_path / "killed").mkdir()
    for name, data in copied.items():
        (tmp_path / "killed" / name).write_bytes(data)
    async with open_database(tmp_path / "killed" / "db", [make_wide]):
        assert (tmp_path / "killed" / "db-wal").stat().st_size == 0


async def test_paths_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """A missing directory, a directory, and a symbolic link (which could lead anywhere) are refused."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "none" / "db", tmp_path, tmp_path / "link"):
        with pytest.raises(StorageError, match=str(path)):
            async with open_database(path, [make_table]):
                pass
    assert not (tmp_path / "elsewhere").exists()


WRITER = """
import sys, trio
from pathlib import Path
from vanadium_node.storage.sqlite import open_database
async def main():
    make = lambda c: c.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY) STRICT")
    async with open_database(Path(sys.argv[1]), [make]) as database:
        async def write(n):
            await database.write(lambda c: c.execute("INSERT INTO numbers VALUES (?)", (n,)))
            print(n, flush=True)
        async with trio.open_nursery() as nursery:
            for n in range(10_000):
                nursery.start_soon(write, n)
                if n % 16 == 0:
                    await trio.sleep(0)
trio.run(main)
"""


def test_what_is_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """After SIGKILL in the middle of many writes, every acknowledged row is there and the database is sound."""
    path = tmp_path / "db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]

    async def read() -> set[object]:
        async with open_database(path, [make_table]) as database:
            return {n for (n,) in database.read("SELECT n FROM numbers")}

    assert set(acknowledged) <= trio.run(read)
