"""Backups: made while the agent works, private, whole or not at all; put back, they are the same agent."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from agent_parties import default_of, new_root
from disk_faults import file_size_limit

from vanadium_node.claim import open_ownership
from vanadium_node.cli.cluster_agent import command
from vanadium_node.cli.output import Interrupted
from vanadium_node.cluster_agent import Serving, run
from vanadium_node.cluster_agent.backup import back_up, back_up_to, restore
from vanadium_node.cluster_agent.server import DATABASE, RESTORING
from vanadium_node.config import ClusterAgentSettings
from vanadium_node.errors import StorageError
from vanadium_node.rpc import connect
from vanadium_node.secret_store import open_secret_store
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal


def names_in(folder: Path) -> set[str]:
    """Return the names of a folder's files."""
    return set(os.listdir(folder))  # noqa: PTH208


async def test_a_restored_agent_is_the_same(tmp_path: Path) -> None:
    """Made of a running, claimed agent: after its disk is gone, another one has its key, its owner and its secrets."""
    root, backup = await new_root(), tmp_path / "backup.tar"
    settings = ClusterAgentSettings(
        root_dir=tmp_path / "data",
        listen="127.0.0.1:0",
        root_blessings=(default_of(root),),
        claimer=(Pattern.parse("root:$"),),
        admin=(Pattern.parse("root"),),
    )
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        first: Serving = await nursery.start(lambda task_status: run(settings, stop=stop, task_status=task_status))
        async with connect(first.name, root, insecure=True) as client:
            key = client.server.public_key
            assert key is not None
            own = default_of(root)
            agent = await root.bless(key, own, "agent", [Caveat.unconstrained()])
            await client.call("Claim", "", returns=type(None), granted=agent)
            granted = await root.bless(key, own, "foo", [Caveat.unconstrained()])
            secret = await client.call("NewSecret", returns=str, granted=granted)
            size = await trio.to_thread.run_sync(back_up, settings.root_dir, backup)
            later = await client.call("NewSecret", returns=str, granted=granted)
        stop.set()
    assert size == backup.stat().st_size
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert names_in(tmp_path) == {"data", "backup.tar"}
    assert not [name for name in names_in(settings.root_dir) if name.startswith(".")]
    elsewhere = replace(settings, root_dir=tmp_path / "elsewhere")
    with backup.open("rb") as source:
        restore(source, elsewhere.root_dir)
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        again: Serving = await nursery.start(lambda task_status: run(elsewhere, stop=stop, task_status=task_status))
        assert again.names == ("root:agent",)
        replica = Principal((await new_root()).signer, roots=root.roots)
        async with connect(again.name, replica) as client:
            assert client.server.public_key == key
            blessings = await client.call("SeekBlessings", secret, returns=Blessings)
            assert blessings.names[0].startswith("root:foo:")
            with pytest.raises(Exception, match="unknown here"):
                await client.call("SeekBlessings", later)
        stop.set()


async def test_a_backup_is_put_into_an_empty_place_only(cluster: Any) -> None:
    """Neither under a running agent, nor over what was there; nothing is left of the attempt."""
    stream = io.BytesIO()
    async with cluster.running():
        await cluster.new_secret()
        back_up_to(cluster.folder / "data", stream)
        with pytest.raises(StorageError, match="another process uses"):
            restore(io.BytesIO(stream.getvalue()), cluster.folder / "data")
    before = names_in(cluster.folder / "data")
    with pytest.raises(StorageError, match=r"holds 'secrets\.db' already; move"):
        restore(io.BytesIO(stream.getvalue()), cluster.folder / "data")
    assert names_in(cluster.folder / "data") == before
    other = cluster.folder / "other"
    other.mkdir()
    (other / "secrets.db-wal").touch()
    with pytest.raises(StorageError, match=r"holds 'secrets\.db-wal' already; move"):
        restore(io.BytesIO(stream.getvalue()), other)


async def test_what_is_no_backup_is_refused(cluster: Any) -> None:
    """Cut short at any place, another archive, names that lead elsewhere, a damaged database: nothing is left."""
    stream = io.BytesIO()
    async with cluster.running():
        await cluster.new_secret()
        back_up_to(cluster.folder / "data", stream)
    whole = stream.getvalue()
    damaged = bytearray(whole)
    damaged[1536 + 4096 : 1536 + 4096 + 200] = b"\xa5" * 200
    wrong = [whole[:cut] for cut in (0, 100, 512, 600, 1024, 4096, 9000)] + [b"no archive" * 1000, bytes(damaged)]
    for name in ("../evil", "/evil", "principal/../../evil", "principal/evil", "audit.jsonl"):
        other = io.BytesIO()
        with tarfile.open(fileobj=other, mode="w") as archive:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            archive.addfile(entry, io.BytesIO(b"abc"))
        wrong.append(other.getvalue())
    folder = cluster.folder / "elsewhere"
    for data in wrong:
        with pytest.raises(StorageError, match=r"backup|damaged"):
            restore(io.BytesIO(data), folder)
        assert names_in(folder) == {"lock"}


def test_a_restore_is_whole_or_not_made_at_whatever_change_it_dies(tmp_path: Path) -> None:
    """What is half there is never served, and the same command makes it whole."""
    data, backup = tmp_path / "data", tmp_path / "backup.tar"
    trio.run(open_and_close, data)
    back_up(data, backup)
    script = Path(__file__).parents[1] / "support" / "restore_crash.py"
    asked = [sys.executable, str(script), str(backup), str(tmp_path)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    states = [json.loads(line) for line in done.stdout.splitlines()]
    parts = {"principal", "secrets.db"}
    half = 0
    for state in states:
        found, is_begun = parts & set(state["found"]), RESTORING in state["found"]
        assert is_begun or found in (set(), parts)
        half += is_begun and found != parts
        if is_begun:
            assert "was cut short; restore into it again ('cluster-agent restore')" in state["refusal"]
        assert bool(state["again"]) == (found == parts and not is_begun)
        assert state["left"] == ["lock", *sorted(parts)], "nothing is left of the attempts"
    assert half > 0
    assert "holds 'secrets.db' already" in states[-1]["again"]


async def open_and_close(folder: Path) -> None:
    """Make what an unclaimed agent keeps."""
    await open_ownership(folder, [])
    async with open_secret_store(folder / DATABASE):
        pass


@pytest.mark.parametrize("kind", ["directory", "link", "pipe", "."])
def test_a_backup_replaces_nothing_but_files(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody with privileges would lose a device, such as /dev/null."""
    trio.run(open_and_close, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    target = Path("." if kind == "." else "target")
    if kind == "directory":
        target.mkdir()
    elif kind == "link":
        target.symlink_to("elsewhere")
    elif kind == "pipe":
        os.mkfifo(target)
    before = names_in(tmp_path), target.lstat()
    with pytest.raises(StorageError, match=r"is no file; name one, or '-' for standard output"):
        back_up(tmp_path / "data", target)
    assert names_in(tmp_path) == before[0]
    assert os.path.samestat(target.lstat(), before[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to_do", ["backup", "restore"])
def test_nothing_is_left_of_what_was_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, to_do: str
) -> None:
    """By Ctrl-C or a SIGTERM in the middle: no copy of the key or of the database, and the old backup is there."""
    data, file, elsewhere = tmp_path / "data", tmp_path / "backup.tar", tmp_path / "elsewhere"
    trio.run(open_and_close, data)
    back_up(data, file)
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    before = file.read_bytes(), names_in(tmp_path), names_in(elsewhere)

    def fsync(_descriptor: int) -> None:
        os.kill(os.getpid(), number)

    folder = data if to_do == "backup" else elsewhere
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        command.main([to_do, str(file), "--root-dir", str(folder)], standalone_mode=False)
    assert (file.read_bytes(), names_in(tmp_path), names_in(elsewhere)) == before


async def test_a_backup_that_fails_leaves_the_old_one(cluster: Any) -> None:
    """On a full disk, and where there is no agent."""
    backup = cluster.folder / "backup.tar"
    async with cluster.running():
        await cluster.new_secret()
        back_up(cluster.folder / "data", backup)
        before, names = backup.read_bytes(), names_in(cluster.folder)
        with file_size_limit(8192), pytest.raises(StorageError, match=r"cannot (write|copy)"):
            back_up(cluster.folder / "data", backup)
        with pytest.raises(StorageError, match="no cluster agent's database"):
            back_up(cluster.folder / "agent", backup)
    assert backup.read_bytes() == before
    assert names_in(cluster.folder) == names
