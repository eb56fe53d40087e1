"""A disk on which flushing fails: nothing is acknowledged, the rest is served, and all goes on when the disk is good again.

What the system had in memory for a flush that failed may never reach the disk, however well the next flush goes. So the last
test builds the files of a machine that lost its power from what the agent had really flushed.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import suppress

import power_cut
import pytest
from agent_parties import Machine, default_of, short_directory
from crashing_agent import CrashingAgent, crashing_agent
from strace import attached, command, fail_with

from vanadium_node.errors import CallError
from vanadium_node.security.keys import PrivateKey
from vanadium_node.storage.audit_file import verify_file
from vanadium_node.storage.credentials import CredentialsDirectory

FLUSHES = ("fsync", "fdatasync")


@pytest.fixture
async def agent() -> AsyncIterator[CrashingAgent]:
    """A claimed agent with two secrets, as a process."""
    async with crashing_agent() as agent:
        await agent.begin(secrets=2)
        yield agent


async def refused(agent: CrashingAgent, why: str) -> None:
    """Ask for a secret, which must be refused, with the reason and the next step."""
    with pytest.raises(CallError, match=why):
        await agent.new_secret()


@pytest.mark.parametrize(
    ("call", "reason"),
    [("fsync", r"cannot write the audit log '.*audit.jsonl': input/output error; check"),
     ("fdatasync", r"cannot change the database '.*secrets.db': disk I/O error; check the disk's space and health")],
)  # fmt: skip
async def test_new_secrets_while_flushing_fails(agent: CrashingAgent, call: str, reason: str) -> None:
    """None is acknowledged, none is kept, replicas get their blessings, and readiness says why, until a flush succeeds."""
    before = len(await agent.known())
    with attached(agent.pid, fail_with("EIO", call)):
        for _ in range(3):
            await refused(agent, reason.partition(";")[0])
        assert "check the disk's" in await agent.unready()
        for secret in agent.secrets:
            assert await agent.is_known(secret)
        assert len(await agent.known()) == before
    assert len(await agent.known()) == before
    assert await agent.new_secret()
    assert not await agent.unready()
    for secret in agent.secrets:
        assert await agent.is_known(secret)
    assert not await agent.is_gone()
    assert verify_file(agent.folder / "data" / "audit.jsonl").problem == ""


async def test_the_power_is_cut_after_flushes_that_failed(agent: CrashingAgent) -> None:
    """What was acknowledged between and after them was flushed itself: it is on the disk, and nothing needs what was lost."""
    data = agent.folder / "data"
    before = {data / name: (data / name).read_bytes() for name in ("secrets.db", "secrets.db-wal", "audit.jsonl")}
    record = agent.folder / "calls"
    failed = 0
    with attached(agent.pid, fail_with("EIO", "fdatasync", when="2+2"), power_cut.options(record, before)):
        for _ in range(12):
            with suppress(CallError):
                failed += 1
                await agent.new_secret()
                failed -= 1
        agent.end()
    assert failed >= 3
    assert len(agent.secrets) >= 6
    for path, content in power_cut.cut(record, before).items():
        path.write_bytes(content)
    (data / "secrets.db-shm").unlink()
    assert agent.start()
    assert not await agent.unready()
    for secret in agent.secrets:
        assert await agent.is_known(secret)
    assert len(await agent.known()) == len(agent.secrets)
    assert verify_file(data / "audit.jsonl").problem == ""


@pytest.mark.parametrize(
    ("overwrite", "number"), [*((False, n) for n in (2, 3, 4, 5)), *((True, n) for n in (2, 3, 4))]
)
async def test_a_principal_is_made_while_flushing_fails(overwrite: bool, number: int) -> None:
    """Whichever flush fails: a new directory holds nothing, an old one a whole principal, the old one or the new one."""
    with short_directory() as folder:
        machine, directory = Machine(folder), CredentialsDirectory(folder / "alice")
        if overwrite:
            await directory.create(PrivateKey.generate(), "old")
        prefix = command(fail_with("EIO", "fsync", when=str(number)))
        arguments = [
            "principal",
            "create",
            "--with-passphrase=false",
            *["--overwrite"] * overwrite,
            str(directory.path),
            "new",
        ]
        done = machine.run_under(prefix, *arguments)
        assert done.returncode == 1
        assert "input/output error; check the disk's health" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        if overwrite:
            assert default_of(directory.open()).names in {("old",), ("new",)}
        else:
            assert not directory.holds_principal()
            await directory.create(PrivateKey.generate(), "again")


async def test_a_first_start_while_flushing_fails() -> None:
    """The cluster agent ends with one sentence, and starts as if for the first time when the disk is good again."""
    async with crashing_agent() as agent:
        for number in (4, 6):  # the state is there already; the key is, too
            shutil.rmtree(agent.folder / "data", ignore_errors=True)
            with suppress(AssertionError):
                agent.start(command(fail_with("EIO", "fsync", when=str(number))))
            assert agent.daemon is not None
            assert "Traceback" not in agent.daemon.log.read_text()
            agent.end()
            assert agent.start(), f"after flush {number} failed"
            agent.end()
