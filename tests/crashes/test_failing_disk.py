"""A disk on which flushing fails: nothing is acknowledged, the rest is served, and all goes on when the disk is good again.

What the system had in memory for a flush that failed may never reach the disk, however well the next flush goes. So the last
test builds the files of a machine that lost its power from what the agent had really flushed.
"""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent_parties import Machine, default_of, new_root, short_directory
from crashing_agent import CrashingAgent
from strace import attached, command, fail_with

from vanadium_node.errors import CallError, StorageError
from vanadium_node.security.keys import PrivateKey
from vanadium_node.storage.audit_file import verify_file
from vanadium_node.storage.credentials import CredentialsDirectory

FLUSHES = ("fsync", "fdatasync")


@pytest.fixture
async def agent() -> AsyncIterator[CrashingAgent]:
    """A claimed agent with two secrets, as a process."""
    with short_directory() as folder:
        agent = await CrashingAgent.at(folder / "agent")
        try:
            assert agent.start()
            assert await agent.claim(await agent.grant())
            assert await agent.new_secret()
            assert await agent.new_secret()
            yield agent
        finally:
            agent.end()


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
    """None is acknowledged, none is kept, replicas get their blessings, and readiness says why; then it recovers by itself."""
    before = len(await agent.known())
    with attached(agent.pid, fail_with("EIO", call)):
        for _ in range(3):
            await refused(agent, reason.partition(";")[0])
        assert "check the disk's" in await agent.unready()
        for secret in agent.secrets:
            assert await agent.is_known(secret)
        assert len(await agent.known()) == before
    await agent.becomes_ready()
    assert len(await agent.known()) == before
    assert await agent.new_secret()
    for secret in agent.secrets:
        assert await agent.is_known(secret)
    assert not await agent.is_gone()
    assert verify_file(agent.folder / "data" / "audit.jsonl").problem == ""
