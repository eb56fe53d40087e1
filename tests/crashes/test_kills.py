"""The cluster agent, killed at every system call that changes a disk: what was acknowledged is there, it always starts.

The plain run takes some of the calls, always the same; VANADIUM_TEST_ALL_CRASHES=1 takes each of them.
"""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agent_parties import short_directory
from crashing_agent import CrashingAgent
from strace import CHANGES, attached, command, kill_at

from vanadium_node.errors import CallError, UnreachableError

FIXTURES = Path(__file__).parents[1] / "secret_store" / "fixtures"
LAST = 60 if os.environ.get("VANADIUM_TEST_ALL_CRASHES") else 2
"""No operation makes more calls of one kind; the plain run kills at the first two of each."""


@pytest.fixture
async def agent() -> AsyncIterator[CrashingAgent]:
    """An agent that does not run yet."""
    with short_directory() as folder:
        agent = await CrashingAgent.at(folder / "agent")
        try:
            yield agent
        finally:
            agent.end()


async def claimed(agent: CrashingAgent) -> None:
    """Start and claim the agent."""
    assert agent.start()
    assert await agent.claim(await agent.grant())


@pytest.mark.parametrize("call", CHANGES)
async def test_new_secret(agent: CrashingAgent, call: str) -> None:
    """An acknowledged secret is good after the restart; one that was not is not there, or whole."""
    await claimed(agent)
    for number in range(1, LAST + 1):
        before = len(agent.secrets)
        with attached(agent.pid, kill_at(call, number)):
            was_acknowledged = await agent.new_secret()
        if not await agent.is_gone():
            assert was_acknowledged
            break
        assert agent.start()
        assert len(await agent.known()) - before <= 1 + number
        await agent.check()
    assert await agent.new_secret()


@pytest.mark.parametrize("call", CHANGES)
async def test_forget_secret(agent: CrashingAgent, call: str) -> None:
    """A secret whose forgetting was acknowledged is worthless after the restart; the others are good."""
    await claimed(agent)
    for number in range(1, LAST + 1):
        for _ in range(2):
            assert await agent.new_secret()
        with attached(agent.pid, kill_at(call, number)):
            secret, was_acknowledged = await agent.forget_secret()
        if not await agent.is_gone():
            assert was_acknowledged
            break
        assert agent.start()
        is_known = await agent.is_known(secret)
        assert not (is_known and was_acknowledged)
        await agent.check()


@pytest.mark.parametrize("call", CHANGES)
async def test_claim(agent: CrashingAgent, call: str) -> None:
    """After the restart the same claim is good, whether it had been made or not; another one only if it had not."""
    for number in range(1, LAST + 1):
        shutil.rmtree(agent.folder / "data", ignore_errors=True)
        assert agent.start()
        granted = await agent.grant()
        with attached(agent.pid, kill_at(call, number)):
            was_acknowledged = await agent.claim(granted)
        was_killed = await agent.is_gone()
        if was_killed:
            assert agent.start()
        assert not (was_acknowledged and "(root:agent)" not in agent.name and was_killed), "it forgot its claim"
        assert await agent.claim(granted), "the same claim may be made again"
        with pytest.raises(CallError, match="already claimed"):
            await agent.claim(await agent.grant())
        assert await agent.new_secret()
        await agent.check()
        agent.secrets.clear()
        agent.end()
        if not was_killed:
            break


async def survives_a_list(agent: CrashingAgent) -> bool:
    """Have it list its secrets, before which it looks at all of its database; tell whether it was not killed meanwhile."""
    try:
        await agent.known()
    except UnreachableError:
        assert await agent.is_gone()
        return False
    return True


@pytest.mark.parametrize("call", [call for call in CHANGES if call not in {"mkdir", "rename", "write"}])
async def test_a_migration(agent: CrashingAgent, call: str) -> None:
    """A database of version 1 is of version 1 or 2 after each kill, and of version 2, with all in it, after the next start."""
    paths = [agent.folder / "data" / f"secrets.db{suffix}" for suffix in ("", "-wal", "-shm", "-journal")]
    await claimed(agent)
    agent.end()
    was_killed = True
    number = 0
    while was_killed and number < LAST * 2:
        number += 1
        for path in paths:
            path.unlink(missing_ok=True)
        shutil.copyfile(FIXTURES / "version-1.db", paths[0])
        was_killed = not (agent.start(command(kill_at(call, number), paths)) and await survives_a_list(agent))
        if was_killed:
            assert agent.start()
        known = await agent.known()
        assert sorted(one.names for one in known) == [("root:alice:cart",), ("root:alice:shop",)]
        assert [one.expires is not None for one in sorted(known, key=lambda one: one.names)] == [True, False]
        assert sorted(one.uses for one in known) == [0, 1]
        await agent.check()
        agent.end()
