"""Backups: made while the agent works, private, whole or not at all; put back, they are the same agent."""

import io
import os
import stat
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from agent_parties import default_of, new_root
from disk_faults import file_size_limit

from vanadium_node.cluster_agent import Serving, run
from vanadium_node.cluster_agent.backup import back_up, back_up_to, restore
from vanadium_node.config import ClusterAgentSettings
from vanadium_node.errors import StorageError
from vanadium_node.rpc import connect
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
