"""All pods of a cluster start at once: each gets its identity, and is told nothing worse than to come again.

The plain run has a few hundred pod agents; VANADIUM_TEST_CROWD=10000 has as many as a large cluster. They run in this process, each
with a key, retries and handshakes of its own as in its pod, but without the socket for containers, since one process may not have so
many; the cluster agent is a process with its usual limits, but for that on one address, since here all have the same.
"""

import logging
import os
import resource
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from agent_parties import default_of

from vanadium_node.config import PodAgentSettings
from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.pod_agent.identity import ReplicaIdentity
from vanadium_node.pod_agent.seeking import seek_blessings
from vanadium_node.pod_agent.server import fresh_principal
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.keys import PublicKey

CROWD = int(os.environ.get("VANADIUM_TEST_CROWD", "300"))
APPLICATIONS = 20
FILES_EACH = 1.5
PATIENCE_SECONDS = 60 + CROWD * 0.1


@pytest.fixture
def files() -> None:
    """As many open files as the crowd needs; the container of one pod agent needs a dozen."""
    wanted = int(CROWD * FILES_EACH) + 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with suppress(ValueError, PermissionError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= wanted, "not enough open files are allowed here"


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def peak_mib(pid: int) -> float:
    """Return the peak resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


async def test_all_start_at_once(walk: Any, files: None, caplog: pytest.LogCaptureFixture) -> None:
    """All get an identity; on the way they hear of nothing but overload; the slowest hundredth and the memory are reported."""
    daemon = walk.start_cluster_agent("--rate-per-address=0")
    for number in range(APPLICATIONS):
        walk.new_secret(f"secret-{number}")
    roots = (Blessings.parse(walk.do("root", "principal", "get", "default")),)
    before = peak_mib(daemon.process.pid)
    caplog.set_level(logging.WARNING)
    seconds: list[float] = []
    keys: set[PublicKey] = set()
    async with trio.open_nursery() as nursery:
        began = trio.current_time()

        async def agent(number: int) -> None:
            settings = PodAgentSettings(
                agent=walk.agent,
                socket_path=walk.folder / f"{number}.sock",
                secret_key_file=walk.folder / f"secret-{number % APPLICATIONS}",
                root_blessings=roots,
            )
            principal, is_there = fresh_principal(settings), trio.Event()
            seek = partial(seek_blessings, settings.agent, settings.secret_key_file, principal, utc_now)
            nursery.start_soon(ReplicaIdentity(principal, seek, on_change=lambda _: is_there.set(), now=utc_now).keep)
            await is_there.wait()
            seconds.append(trio.current_time() - began)
            keys.add(default_of(principal).public_key)

        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as starting:
                for number in range(CROWD):
                    starting.start_soon(agent, number)
        nursery.cancel_scope.cancel()
    seconds.sort()
    median, slowest = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
    print(
        f"{CROWD} pod agents: median {median:.2f} s, p99 {slowest:.2f} s, all after {seconds[-1]:.2f} s; "
        f"cluster agent's peak {peak_mib(daemon.process.pid):.0f} MiB (before: {before:.0f})"
    )
    troubles = [record.args for record in caplog.records if record.name.startswith("vanadium_node.pod_agent")]
    others = [str(args[1]) for args in troubles if isinstance(args, tuple) and not is_overload(args[1])]
    assert others == []
    assert len(seconds) == len(keys) == CROWD


def is_overload(error: object) -> bool:
    """Tell whether a pod agent was told to come again."""
    return isinstance(error, CallError) and error.code is ErrorCode.OVERLOADED
