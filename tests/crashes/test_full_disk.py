"""A disk that is really full: new secrets are refused with the reason and the next step, the others are served, and all goes
on when there is room again, without a restart.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from agent_parties import Machine, default_of, new_root, short_directory
from crashing_agent import CrashingAgent
from disk_faults import SmallDisk, small_disk
from http_get import get

from vanadium_node.errors import CallError, InputError, StorageError
from vanadium_node.security.keys import PrivateKey
from vanadium_node.storage.audit_file import verify_file
from vanadium_node.storage.credentials import CredentialsDirectory

MOST = 2000
"""Secrets that fit on none of the disks here."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name."""
    with short_directory() as folder:
        yield folder


@pytest.fixture
async def agent(folder: Path) -> AsyncIterator[CrashingAgent]:
    """An agent that does not run yet."""
    agent = await CrashingAgent.at(folder / "agent")
    try:
        yield agent
    finally:
        agent.end()


@pytest.fixture
def disk(agent: CrashingAgent) -> Iterator[SmallDisk]:
    """A small disk for all that the agent keeps."""
    with small_disk(agent.folder / "data", "256k") as disk:
        yield disk
        agent.end()


async def fill_with_secrets(agent: CrashingAgent) -> str:
    """Make secrets until one is refused, and return the words."""
    for _ in range(MOST):
        try:
            assert await agent.new_secret()
        except CallError as error:
            return str(error)
    raise AssertionError("the disk takes everything")


async def serves_all(agent: CrashingAgent) -> None:
    """Make sure that each secret that was acknowledged gives blessings, and is listed."""
    for secret in agent.secrets:
        assert await agent.is_known(secret)
    assert len(await agent.known()) >= len(agent.secrets)


async def test_secrets_until_the_disk_is_full(agent: CrashingAgent, disk: SmallDisk) -> None:
    """The one that does not fit is refused; replicas get their blessings all the time; with room it is ready by itself."""
    await agent.begin(secrets=1)
    words = await fill_with_secrets(agent)
    assert "make room" in words
    disk.fill()
    with pytest.raises(CallError, match=r"make room"):
        await agent.new_secret()
    reason = await agent.unready()
    assert "make room on the disk" in reason
    await serves_all(agent)
    disk.resize("4m")
    await agent.becomes_ready()
    assert await agent.new_secret()
    await serves_all(agent)
    assert verify_file(disk.path / "audit.jsonl").problem == ""
    assert not await agent.is_gone()


async def test_only_the_database_is_on_the_full_disk(agent: CrashingAgent, disk: SmallDisk) -> None:
    """The refusal is the database's own, a secret can still be forgotten when there is room, and nothing is half there."""
    agent.options = (f"--audit-file={agent.folder / 'audit.jsonl'}",)
    await agent.begin(secrets=1)
    words = await fill_with_secrets(agent)
    assert (
        "cannot change the database 'data/secrets.db': the disk is full; make room on the disk, and try again" in words
    )
    assert "the disk is full" in await agent.unready()
    await serves_all(agent)
    assert len(await agent.known()) == len(agent.secrets)
    disk.resize("4m")
    assert await agent.new_secret()
    assert not await agent.unready()
    secret, was_acknowledged = await agent.forget_secret()
    assert was_acknowledged
    assert not await agent.is_known(secret)
    assert len(await agent.known()) == len(agent.secrets)


async def test_only_the_audit_log_is_on_the_full_disk(agent: CrashingAgent) -> None:
    """Nothing is changed that cannot be written down; what was not written is counted in the first line that is."""
    with small_disk(agent.folder / "audit", "64k") as disk:
        agent.options = (f"--audit-file={disk.path / 'audit.jsonl'}",)
        await agent.begin(secrets=1)
        disk.fill()
        words = await fill_with_secrets(agent)
        assert "nothing was changed, because it could not be written down: cannot write the audit log" in words
        assert "no space left on device; make room" in words
        assert "audit.jsonl': no space left on device" in await agent.unready()
        assert len(await agent.known()) == len(agent.secrets)
        await serves_all(agent)
        disk.empty()
        assert await agent.new_secret()
        assert not await agent.unready()
        assert verify_file(disk.path / "audit.jsonl").problem == ""
        assert '"event":"resumed"' in (disk.path / "audit.jsonl").read_text()
        agent.end()


@pytest.mark.parametrize("is_killed", [True, False])
async def test_a_start_on_a_full_disk(agent: CrashingAgent, disk: SmallDisk, is_killed: bool) -> None:
    """It starts, is not ready, and serves what it has; with room it is ready, and makes secrets, without another start."""
    await agent.begin(secrets=1)
    assert await agent.new_secret()
    if is_killed:
        agent.end()
    else:
        assert agent.stop() == 0
    disk.fill()
    assert agent.start()
    disk.fill()  # what the start gave back
    with pytest.raises(CallError, match=r"disk|space"):
        await agent.new_secret()
    assert "disk" in await agent.unready()
    await serves_all(agent)
    disk.empty()
    if not is_killed:
        await agent.becomes_ready()
    assert await agent.new_secret()
    await serves_all(agent)
    assert agent.stop() == 0
    assert agent.start()
    await serves_all(agent)
    assert not await agent.unready()


async def test_a_claim_on_a_full_disk(agent: CrashingAgent, disk: SmallDisk) -> None:
    """It is refused with the reason, and good when it is made again; before, the agent is nobody's."""
    assert agent.start()
    disk.fill()
    granted = await agent.grant()
    with pytest.raises(CallError, match=r"no space left on device"):
        await agent.claim(granted)
    disk.empty()
    assert await agent.claim(await agent.grant())
    await agent.becomes_ready()
    assert await agent.new_secret()


async def test_a_first_start_on_a_full_disk(agent: CrashingAgent, disk: SmallDisk) -> None:
    """One sentence says what is missing, nothing half made is left, and the next start finds an empty directory."""
    disk.fill()
    with pytest.raises(AssertionError, match=r"cannot write 'data/principal/.*no space left on device; make room"):
        agent.start()
    assert agent.daemon is not None
    assert agent.daemon.process.wait(30) == 1
    assert "Traceback" not in agent.daemon.log.read_text()
    assert not [path.name for path in (disk.path / "principal").glob("*") if path.stat().st_size]
    disk.empty()
    await agent.begin(secrets=1)


async def test_credentials_on_a_full_disk(folder: Path) -> None:
    """No principal is made by half; one that is there stays as it is, and takes changes when there is room."""
    with small_disk(folder / "disk", "64k") as disk:
        alice, bob = CredentialsDirectory(disk.path / "alice"), CredentialsDirectory(disk.path / "bob")
        made = await alice.create(PrivateKey.generate(), "alice")
        before = made.store
        disk.fill()
        with pytest.raises(StorageError, match="no space left on device; make room"):
            await bob.create(PrivateKey.generate(), "bob")
        assert not bob.path.exists()
        own = default_of(made)
        with pytest.raises(StorageError, match="no space left on device; make room"):
            await made.adopt(await made.bless_self("other"))
        assert default_of(made) == own
        assert alice.open().store == before
        with pytest.raises(InputError):
            await alice.create(PrivateKey.generate(), "a::b", overwrite=True)
        disk.empty()
        await made.adopt(await made.bless_self("other"))
        await bob.create(PrivateKey.generate(), "bob")


async def test_a_pod_agent_on_a_full_disk(folder: Path) -> None:
    """It writes nothing: its socket appears on a disk without a free byte."""
    machine = Machine(folder)
    agent = await CrashingAgent.at(folder / "agent")
    try:
        await agent.begin(secrets=1)
        (folder / "secret").write_text(agent.secrets[0])
        with small_disk(folder / "pod", "64k") as disk:
            disk.fill()
            options = [f"--socket-path={disk.path / 's'}", f"--health-listen=unix:{folder / 'h'}"]
            roots = f"--root-blessings={default_of(agent.root).text}"
            name = agent.name if "(root" in agent.name else agent.name.replace("/", "/(root:agent)@", 1)
            daemon = machine.start(
                "pod-agent", f"--agent={name}", f"--secret-key-file={folder / 'secret'}", roots, *options
            )
            assert await trio.to_thread.run_sync(daemon.announced, "SOCKET")
            assert await get(f"unix:{folder / 'h'}", "/readyz") == (200, "ok\n")
            assert machine.run("healthcheck", f"--socket={disk.path / 's'}").returncode == 0
            assert daemon.end() == 0
    finally:
        machine.end()
        agent.end()


async def test_a_pod_agent_whose_directory_takes_nothing_more(folder: Path) -> None:
    """Where not even a name can be made it ends at once, with one sentence: no container could use what it would get."""
    machine = Machine(folder)
    (folder / "secret").write_text("unused")
    with small_disk(folder / "pod", "64k,nr_inodes=1") as disk:
        roots = f"--root-blessings={default_of(await new_root()).text}"
        arguments = ["--agent=/127.0.0.1:1", f"--secret-key-file={folder / 'secret'}", roots]
        done = machine.run("pod-agent", *arguments, f"--socket-path={disk.path / 's'}")
        assert done.returncode == 1
        assert "no space left on device" in done.stderr.splitlines()[-1].lower()
        assert "Traceback" not in done.stderr
