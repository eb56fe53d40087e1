"""The program on a node whose clock is wrong, in a process of its own: what its log, its probes and its clients say."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from agent_parties import bless, clean_environment

from vanadium_node.security.caveat import Caveat
from vanadium_node.storage.credentials import CredentialsDirectory

SHIFTED = Path(__file__).parents[1] / "support" / "shifted_clock"
MARGIN = timedelta(minutes=10)


async def limit_in_time(folder: Path) -> None:
    """Let the cluster agent be who it is for twenty minutes only."""
    root, agent = CredentialsDirectory(folder / "root").open(), CredentialsDirectory(folder / "agent").open()
    now = datetime.now(UTC)
    await agent.adopt(await bless(root, agent, "agent", Caveat.not_before(now - MARGIN), Caveat.expiry(now + MARGIN)))


@pytest.mark.parametrize(("seconds", "way"), [(-5430, "1 h 30 min behind"), (5430, "1 h 30 min ahead of")])
def test_the_clock_is_named(walk: Any, seconds: int, way: str) -> None:
    """Once in each line that it is the reason for, with what to do; there is no socket, and the agent ends well."""
    clock = f"this node's clock is {way} the cluster agent's"
    trio.run(limit_in_time, walk.folder)
    walk.start_cluster_agent()
    walk.new_secret()
    roots = walk.do("root", "principal", "get", "default")
    pod_agent = walk.machine.start(
        "pod-agent", f"--agent={walk.agent}", "--socket-path=a.sock", "--secret-key-file=secret",
        environment=clean_environment(ROOT_BLESSINGS=roots, PYTHONPATH=str(SHIFTED), SHIFT_SECONDS=str(seconds)),
    )  # fmt: skip
    log = pod_agent.logged("no identity yet, trying on: the server at")
    warned = [line for line in log.splitlines() if clock in line]
    assert len(warned) == 2
    assert all("set it right (NTP)" in line for line in warned)
    assert clock in walk.refused("", "healthcheck", "--socket", "a.sock")
    assert not (walk.folder / "a.sock").exists()
    assert pod_agent.end() == 0
    assert "Traceback" not in pod_agent.log.read_text()
