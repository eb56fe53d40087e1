"""A disk that is full, and one whose writes fail: what was acknowledged is there, what can be served is, and it recovers by itself."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from agent_parties import short_directory
from crashing_agent import CrashingAgent
from http_get import get
from strace import attached, fail_with

from vanadium_node.errors import CallError

DISK_BYTES = 1 << 20
MOST_SECRETS = 2000
"""More than fit on the disk."""
RECOVERY_SECONDS = 30


@contextmanager
def small_disk(at: Path) -> Iterator[None]:
    """Mount a disk of a megabyte."""
    at.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(at)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


@pytest.fixture
async def agent() -> AsyncIterator[CrashingAgent]:
    """An agent that is claimed, on a disk of its own."""
    with short_directory() as folder:
        agent = await CrashingAgent.at(folder / "agent")
        with small_disk(agent.data):
            try:
                assert agent.start()
                assert await agent.claim(await agent.grant())
                assert await agent.new_secret()
                yield agent
            finally:
                agent.end()


def fill(folder: Path, but: int) -> Path:
    """Fill the disk but for so many bytes, and return the file that does."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        file.write(bytes(max(0, shutil.disk_usage(folder).free - but)))
    return filler


async def is_ready(agent: CrashingAgent) -> tuple[bool, str]:
    """Ask it over HTTP; it lives in any case."""
    assert (await get(agent.health, "/livez"))[0] == 200
    status, reasons = await get(agent.health, "/readyz")
    return status == 200, reasons


async def recovered(agent: CrashingAgent) -> None:
    """Wait until it is ready, without a restart, and look at everything."""
    with trio.fail_after(RECOVERY_SECONDS):
        while not (await is_ready(agent))[0]:  # noqa: ASYNC110 - the process has no event
            await trio.sleep(0.1)
    assert await agent.new_secret()
    for secret in agent.secrets:
        assert await agent.is_known(secret)


async def refused(agent: CrashingAgent) -> CallError:
    """Make secrets until one is refused."""
    for _ in range(MOST_SECRETS):
        try:
            assert await agent.new_secret()
        except CallError as error:
            return error
    raise AssertionError("the disk is never full")


async def test_a_full_disk(agent: CrashingAgent) -> None:
    """The secret that does not fit is refused with what to do; those made before are good; with room again it goes on."""
    filler = fill(agent.data, but=128 << 10)
    error = await refused(agent)
    assert len(agent.secrets) > 1
    assert "full" in str(error) or "No space left" in str(error)
    assert "disk" in error.hint or "disk" in str(error)
    is_well, reasons = await is_ready(agent)
    assert not is_well
    assert "full" in reasons or "No space left" in reasons
    for secret in agent.secrets:
        assert await agent.is_known(secret), "replicas get their blessings all the same"
    filler.unlink()
    await recovered(agent)


async def test_a_start_on_a_full_disk(agent: CrashingAgent) -> None:
    """It starts and serves what it has; the first thing that does not fit makes it unready, until there is room."""
    assert agent.daemon is not None
    agent.end()
    filler = fill(agent.data, but=0)
    assert agent.start()
    assert await agent.is_known(agent.secrets[0])
    await refused(agent)
    is_well, reasons = await is_ready(agent)
    assert not is_well
    assert "make room" in reasons or "full" in reasons
    for secret in agent.secrets:
        assert await agent.is_known(secret)
    filler.unlink()
    await recovered(agent)


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="strace is Linux's")
async def test_writes_that_do_not_reach_the_disk(agent: CrashingAgent) -> None:
    """`fsync` fails: the secret is not acknowledged, the agent says why, and goes on when the disk works again."""
    acknowledged = list(agent.secrets)
    with attached(agent.pid, fail_with("EIO", "fsync", "fdatasync")):
        with pytest.raises(CallError) as caught:
            await agent.new_secret()
        assert agent.secrets == acknowledged
        assert caught.value.hint or ";" in str(caught.value), "it does not say what to do next"
        is_well, reasons = await is_ready(agent)
        assert not is_well
        assert "input/output error; check the disk's health" in reasons
        assert await agent.is_known(acknowledged[0])
    await recovered(agent)
    agent.end()
    assert agent.start()
    await agent.check()
