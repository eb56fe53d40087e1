"""The cluster agent as a process whose database is damaged: alive, not ready, and the same process all the time."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
from agent_parties import START
from crashing_agent import CrashingAgent, crashing_agent
from http_get import get
from until import until

from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.secret_store import fresh_secret, key_of_secret, open_secret_store, secret_id


@pytest.fixture
async def agent() -> AsyncIterator[CrashingAgent]:
    """A claimed agent with three secrets, as a process."""
    async with crashing_agent() as agent:
        await agent.begin(secrets=3)
        yield agent


def place_of(agent: CrashingAgent, secret: str) -> int:
    """Return where a record begins in the file, with its key."""
    key = bytes.fromhex(secret_id(secret))
    return (agent.folder / "data" / "secrets.db").read_bytes().index(key)


def change(agent: CrashingAgent, at: int, count: int = 1) -> None:
    """Change bytes of the database in place."""
    with (agent.folder / "data" / "secrets.db").open("r+b", buffering=0) as file:
        file.seek(at)
        data = file.read(count)
        file.seek(at)
        file.write(bytes(byte ^ 0xA5 for byte in data))


async def refusal(agent: CrashingAgent, secret: str) -> str:
    """Return with which words a replica is refused."""
    with pytest.raises(CallError) as refused:
        await agent.is_known(secret)
    assert refused.value.code is ErrorCode.INTERNAL
    assert "log says why" not in str(refused.value), "a bug of ours has no other words"
    return str(refused.value)


async def test_a_damaged_record_and_the_process(agent: CrashingAgent) -> None:
    """It starts, is alive and not ready, serves the others, and is ready again as soon as the damaged one is forgotten."""
    agent.stop()
    change(agent, place_of(agent, agent.secrets[0]) + 100)
    assert agent.start()
    assert "records of 1 secrets are damaged" in await agent.unready()
    assert "forget it" in await refusal(agent, agent.secrets[0])
    assert await agent.is_known(agent.secrets[1])
    assert await agent.is_known(agent.secrets[2])
    assert [one.is_damaged for one in await agent.known()].count(True) == 1
    assert await agent.new_secret(), "one record says nothing about the rest"
    agent.secrets.append(agent.secrets.pop(0))
    assert (await agent.forget_secret())[1]
    await agent.becomes_ready()
    assert all([await agent.is_known(secret) for secret in agent.secrets])


async def test_a_damaged_page_and_the_process(agent: CrashingAgent) -> None:
    """It starts once, stays, and says in log, readiness and each answer what to restore; it makes no new secret."""
    agent.stop()
    change(agent, 4096, 8)
    assert agent.start()
    reason = await agent.unready()
    assert "secrets.db" in reason
    assert "restore it from a backup" in reason
    for secret in agent.secrets:
        assert "restore" in await refusal(agent, secret)
    with pytest.raises(CallError, match=r"nothing can be stored now.*restore it from a backup"):
        await agent.new_secret()
    assert agent.daemon is not None
    assert agent.daemon.log.read_text().count("not ready") == 1
    assert "Traceback" not in agent.daemon.log.read_text()
    assert agent.stop() == 0


async def crowd(agent: CrashingAgent) -> list[str]:
    """Put more secrets into the store of an agent that was ended than it remembers pages of; return them as it orders them."""
    granted, secrets = await agent.grant(), [fresh_secret() for _ in range(4000)]
    agent.stop()
    async with open_secret_store(agent.folder / "data" / "secrets.db") as store, trio.open_nursery() as nursery:
        for secret in secrets:
            nursery.start_soon(partial(store.new, granted, created_by="root", now=START, secret=secret))
    return sorted(secrets, key=key_of_secret)


async def test_damage_under_the_process(agent: CrashingAgent) -> None:
    """It is noticed by the next who asks, and is the reason why the agent is not ready; it neither ends nor starts again."""
    secrets = await crowd(agent)
    assert agent.start()
    assert not await agent.unready()
    page = place_of(agent, secrets[0]) // 4096
    change(agent, page * 4096, 8)
    words = await refusal(agent, secrets[0])
    assert "secrets.db" in words
    assert "restore it from a backup" in await agent.unready()
    assert all([await agent.is_known(secret, "agent") for secret in secrets[-1:1000:-500]])
    assert "vanadium_ready 0.0" in (await get(agent.health, "/metrics"))[1]
    assert agent.daemon is not None

    async def is_logged() -> bool:
        assert agent.daemon is not None
        return "not ready" in agent.daemon.log.read_text()

    await until(is_logged)
    assert '"outcome":"failed"' in (agent.folder / "data" / "audit.jsonl").read_text()
    assert not await agent.is_gone()
