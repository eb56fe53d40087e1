"""Starting a cluster agent: unclaimed or with an identity, and what is refused before it serves."""

import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from agent_parties import blessed, default_of, eventually, new_root
from http_get import get

from vanadium_node.cluster_agent import Serving, run
from vanadium_node.config import ClusterAgentSettings
from vanadium_node.errors import CallError, ConfigurationError, ErrorCode, NotTrustedError, StorageError
from vanadium_node.rpc import connect
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal


def claimable(folder: Path, root: Principal) -> ClusterAgentSettings:
    """Return the settings of an agent that `root:$` may claim and `root` administer."""
    return ClusterAgentSettings(
        root_dir=folder / "data",
        listen="127.0.0.1:0",
        root_blessings=(default_of(root),),
        claimer=(Pattern.parse("root:$"),),
        admin=(Pattern.parse("root"),),
    )


async def test_from_nothing_to_a_secret(tmp_path: Path) -> None:
    """An agent in an empty directory is claimed and then serves; after a restart it is still claimed."""
    root = await new_root()
    settings = claimable(tmp_path, root)
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        serving: Serving = await nursery.start(lambda task_status: run(settings, stop=stop, task_status=task_status))
        assert serving.names == ()
        assert serving.name.startswith("/127.0.0.1:")
        async with connect(serving.name, root, insecure=True) as client:
            with pytest.raises(CallError, match=r"not claimed yet.*claim-cluster-agent") as refused:
                await client.call("ForgetSecret", "x")
            assert refused.value.code is ErrorCode.NO_ACCESS
            key = client.server.public_key
            assert key is not None
            own = default_of(root)
            agent = await root.bless(key, own, "agent", [Caveat.unconstrained()])
            await client.call("Claim", "", returns=type(None), granted=agent)
            granted = await root.bless(key, own, "foo", [Caveat.unconstrained()])
            secret = await client.call("NewSecret", returns=str, granted=granted)
        stop.set()
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        serving = await nursery.start(lambda task_status: run(settings, stop=stop, task_status=task_status))
        assert serving.names == ("root:agent",)
        replica = Principal((await new_root()).signer, roots=root.roots)
        async with connect(serving.name, replica) as client:
            assert client.server.public_key == key
            await client.call("SeekBlessings", secret)
        stop.set()


async def test_an_unclaimed_agent_has_no_name_that_counts(tmp_path: Path) -> None:
    """A pod agent that comes before the claim refuses it, and has shown nothing."""
    root = await new_root()
    settings = claimable(tmp_path, root)
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        serving: Serving = await nursery.start(lambda task_status: run(settings, stop=stop, task_status=task_status))
        with pytest.raises(NotTrustedError, match="unclaimed"):
            async with connect(serving.name, await blessed(root, "pod")):
                pass
        stop.set()


@pytest.mark.parametrize("missing", ["root_blessings", "claimer", "admin"])
async def test_an_agent_that_nobody_could_claim_is_refused(tmp_path: Path, missing: str) -> None:
    """The three settings are named, as flags and as variables."""
    settings = replace(claimable(tmp_path, await new_root()), **{missing: ()})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"nobody could claim it; set --root-blessings.*CLAIMER"):
        await run(settings)


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """So is the next step; and no task is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = replace(claimable(tmp_path, await new_root()), listen=f"127.0.0.1:{port}")
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}.*choose another port"):
            await run(settings)


async def test_a_damaged_key_is_waited_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without it nothing can be served: the agent names the file, which is left as it is, and is told to end like any other."""
    settings = claimable(tmp_path, await new_root())
    with trio.move_on_after(0.5):
        await run(settings)
    damaged = tmp_path / "data" / "principal" / "private-key.pem"
    damaged.write_bytes(b"damage" * 100)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run, settings, stop=stop))
        await eventually(lambda: f"not ready: '{damaged}' is damaged" in caplog.text)
        stop.set()
    assert damaged.read_bytes() == b"damage" * 100


async def test_a_damaged_database_does_not_end_the_agent(cluster: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It stays, so that it can be looked at and restored: not ready, with the reason, and an error for each call."""
    async with cluster.running() as serving:
        secret = await cluster.new_secret()
        assert serving.not_ready() == ()
    damaged = cluster.folder / "data" / "secrets.db"
    damaged.write_bytes(b"damage" * 100)
    caplog.set_level("ERROR")
    async with cluster.running() as serving:
        [reason] = serving.not_ready()
        assert str(damaged) in reason
        assert "restore it from a backup" in reason
        replica = await cluster.replica()
        for attempt in (cluster.new_secret, lambda: cluster.seek(secret, replica)):
            with pytest.raises(CallError, match="restore it from a backup") as failed:
                await attempt()
            assert failed.value.code is ErrorCode.INTERNAL
        assert reason in caplog.text
    assert damaged.read_bytes() == b"damage" * 100


async def test_one_agent_for_a_directory(cluster: Any) -> None:
    """A second one is told so, and the first goes on."""
    async with cluster.running():
        with pytest.raises(StorageError, match=f"another process uses the directory '{cluster.folder / 'data'}'"):
            await run(cluster.settings())
        await cluster.new_secret()


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), ("{", "not JSON"), ('{"Boss": {}}', "is not a tag")]
)
async def test_permissions_that_cannot_be_read(cluster: Any, content: str | None, reason: str) -> None:
    """The file is named; nobody is admitted by mistake."""
    file = cluster.folder / "permissions.json"
    if content is not None:
        file.write_text(content)
    settings = replace(cluster.settings(), permissions=None, permissions_file=file)
    with pytest.raises((ConfigurationError, StorageError), match=f"(?s){file}.*{reason}"):
        await run(settings)


async def test_health_over_http(cluster: Any) -> None:
    """Alive and not ready, with the reason, while its database is damaged; its calls are counted."""
    health = f"unix:{cluster.folder / 'health.sock'}"
    async with cluster.running(health_listen=health):
        await cluster.new_secret()
        assert await get(health, "/readyz") == (200, "ok\n")
        assert 'vanadium_rpc_calls_total{code="ok",method="NewSecret"} 1.0' in (await get(health, "/metrics"))[1]
    (cluster.folder / "data" / "secrets.db").write_bytes(b"damage" * 100)
    async with cluster.running(health_listen=health):
        assert await get(health, "/livez") == (200, "ok\n")
        status, reason = await get(health, "/readyz")
        assert status == 503
        assert "secrets.db" in reason


async def test_permissions_that_change_while_it_serves(cluster: Any) -> None:
    """Who may make secrets is what the file says at that moment; while it says nothing sensible, nobody may."""
    file = cluster.folder / "permissions.json"
    file.write_text('{"Admin": {"In": ["root:alice"]}}')
    async with cluster.running(permissions=None, permissions_file=file):
        await cluster.new_secret()
        for text, reason in (('{"Admin": {"In": ["root:bob"]}}', "none has the right"), ("{", "nobody is allowed")):
            file.write_text(text)
            with pytest.raises(CallError, match=reason):
                await cluster.new_secret()
        file.write_text('{"Admin": {"In": ["root:alice"]}}')
        await cluster.new_secret()


async def test_an_empty_pairing_token_is_refused(tmp_path: Path) -> None:
    """An empty file would be a token that everybody knows."""
    file = tmp_path / "token"
    file.write_text("\n")
    settings = replace(claimable(tmp_path, await new_root()), pairing_token_file=file)
    with pytest.raises(ConfigurationError, match=f"token file '{file}' is empty"):
        await run(settings)


async def test_an_administrator_sees_what_a_claimed_agent_offers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those named by --admin have every right on the agent; its log says which key it waits to be claimed with."""
    root = await new_root()
    settings = replace(claimable(tmp_path, root), admin=(Pattern.parse("root:alice"),), pairing_token="open sesame")
    caplog.set_level("INFO")
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        serving: Serving = await nursery.start(lambda task_status: run(settings, stop=stop, task_status=task_status))
        async with connect(serving.name, root, insecure=True) as client:
            key = client.server.public_key
            assert key is not None
            assert f"--fingerprint {key.fingerprint}" in caplog.text
            granted = await root.bless(key, default_of(root), "agent", [Caveat.unconstrained()])
            await client.call("Claim", "open sesame", returns=type(None), granted=granted)
        async with connect(serving.name, await blessed(root, "alice")) as client:
            assert await client.call("__signature")
        async with connect(serving.name, await blessed(root, "bob")) as client:
            with pytest.raises(CallError) as refused:
                await client.call("__signature")
            assert refused.value.code is ErrorCode.NO_ACCESS
        stop.set()
