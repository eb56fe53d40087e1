"""The cluster agent, killed at every system call that changes a disk: what was acknowledged is there, it always starts.

strace counts the calls of each thread for itself. So that none is left out because another thread is always first, the calls on
each of the files are counted for themselves too. The plain run takes the first two calls of each kind, whatever they are about;
VANADIUM_TEST_ALL_CRASHES=1 takes one more until the operation is done before it.
"""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from crashing_agent import CrashingAgent, crashing_agent
from strace import CHANGES, attached, command, kill_at

from vanadium_node.errors import CallError, UnreachableError

FIXTURES = Path(__file__).parents[1] / "secret_store" / "fixtures"
ALL_CRASHES = bool(os.environ.get("VANADIUM_TEST_ALL_CRASHES"))
MOST = 200
"""No operation makes so many calls of one kind."""

FILES = {
    "anything": (),
    "the database": ("secrets.db", "secrets.db-wal", "secrets.db-shm", "secrets.db-journal"),
    "the audit log": ("audit.jsonl",),
}
"""What calls are counted that are about a file of the agent: all, or those on some of them."""


def numbers(plain: int) -> Iterator[int]:
    """Yield which of the calls to kill at: so many, or more and more of them, which must have an end."""
    yield from range(1, (MOST if ALL_CRASHES else plain) + 1)
    assert not ALL_CRASHES, "it never survives"


def files_of(agent: CrashingAgent, about: str) -> list[Path]:
    """Return the paths of what calls are counted for."""
    return [agent.folder / "data" / name for name in FILES[about]]


@pytest.fixture
async def agent() -> AsyncIterator[CrashingAgent]:
    """An agent that does not run yet."""
    async with crashing_agent() as agent:
        yield agent


each_call = pytest.mark.parametrize("call", CHANGES)
each_file = pytest.mark.parametrize("about", list(FILES) if ALL_CRASHES else ["anything"])


@each_file
@each_call
async def test_new_secret(agent: CrashingAgent, call: str, about: str) -> None:
    """An acknowledged secret is good after the restart; one that was not is not there, or whole."""
    await agent.begin()
    for number in numbers(2):
        before = len(agent.secrets)
        with attached(agent.pid, kill_at(call, number), paths=files_of(agent, about)):
            was_acknowledged = await agent.new_secret()
        if not await agent.is_gone():
            assert was_acknowledged
            break
        assert agent.start()
        assert len(await agent.known()) - before <= 1 + number
        await agent.check()
    assert await agent.new_secret()


@each_file
@each_call
async def test_forget_secret(agent: CrashingAgent, call: str, about: str) -> None:
    """A secret whose forgetting was acknowledged is worthless after the restart; the others are good."""
    await agent.begin()
    for number in numbers(2):
        for _ in range(2):
            assert await agent.new_secret()
        with attached(agent.pid, kill_at(call, number), paths=files_of(agent, about)):
            secret, was_acknowledged = await agent.forget_secret()
        if not await agent.is_gone():
            assert was_acknowledged
            break
        assert agent.start()
        is_known = await agent.is_known(secret)
        assert not (is_known and was_acknowledged)
        await agent.check()


@each_call
async def test_claim(agent: CrashingAgent, call: str) -> None:
    """After the restart the same claim is good, whether it had been made or not; another one only if it had not."""
    for number in numbers(2):
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


@each_call
async def test_a_migration(agent: CrashingAgent, call: str) -> None:
    """A database of version 1 is of version 1 or 2 after each kill, and of version 2, with all in it, after the next start.

    SQLite makes no directory, writes with `pwrite64` and renames nothing: those kinds survive the first time.
    """
    paths = files_of(agent, "the database")
    await agent.begin()
    agent.end()
    for number in numbers(4):
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
        if not was_killed:
            break
