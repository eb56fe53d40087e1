"""Both agents as containers have them, without Kubernetes: PID 1, user 65532, a read-only root, one folder that can be written to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from agent_parties import PATIENCE_SECONDS, Daemon, clean_environment, default_of
from contained import UNSHARE, USER, contained, first_process, orphans_of, why_not

from vanadium_node.agent import open_principal
from vanadium_node.rpc import connect
from vanadium_node.security.caveat import Caveat
from vanadium_node.storage.credentials import CredentialsDirectory

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


async def claim(folder: Path, name: str) -> str:
    """Make the cluster agent `root:agent`, as root; return its name and leave a secret for `root:app` in a file."""
    root = CredentialsDirectory(folder / "root").open()
    async with connect(name, root, insecure=True) as client:
        key, own = client.server.public_key, default_of(root)
        assert key is not None
        agent = await root.bless(key, own, "agent", [Caveat.unconstrained()])
        await client.call("Claim", "", returns=type(None), granted=agent)
        granted = await root.bless(key, own, "app", [Caveat.unconstrained()])
        (folder / "secret").write_text(await client.call("NewSecret", returns=str, granted=granted))
    return f"/(root:agent)@{name.removeprefix('/')}"


def start_cluster_agent(walk: Any) -> Daemon:
    """Start one that can be claimed by root."""
    walk.folder.chmod(0o755)
    data = walk.folder / "data"
    data.mkdir()
    daemon: Daemon = walk.machine.start(
        "cluster-agent", f"--root-dir={data}", "--listen=127.0.0.1:0", "--claimer=root", "--admin=root",
        environment=clean_environment(ROOT_BLESSINGS=walk.do("root", "principal", "get", "default")),
        within=contained(data),
    )  # fmt: skip
    return daemon


def start_pod_agent(walk: Any, agent: str, *arguments: str) -> Daemon:
    """Start one with the secret, for that agent."""
    walk.folder.chmod(0o755)
    place = walk.folder / "pod"
    place.mkdir()
    daemon: Daemon = walk.machine.start(
        "pod-agent", f"--agent={agent}", f"--secret-key-file={walk.folder / 'secret'}", f"--socket-path={place / 's'}",
        *arguments,
        environment=clean_environment(ROOT_BLESSINGS=walk.do("root", "principal", "get", "default")),
        within=contained(place),
    )  # fmt: skip
    return daemon


def inside(daemon: Daemon, path: Path) -> Path:
    """Return a path in a container as it is reached from outside."""
    return Path(f"/proc/{first_process(daemon.process.pid)}/root{path}")


def end(daemon: Daemon, number: int) -> int:
    """Send a signal to a container's first process, and return the exit status."""
    os.kill(first_process(daemon.process.pid), number)
    return daemon.process.wait(PATIENCE_SECONDS)


async def names_behind(socket: Path) -> tuple[str, ...]:
    """Return the names of a program that acts through a pod agent's socket."""
    async with open_principal(environ={"V23_AGENT_PATH": str(socket)}, timeout=PATIENCE_SECONDS) as principal:
        return default_of(principal).names


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_container_has_what_it_needs(walk: Any, number: int) -> None:
    """An identity for a program; nothing written but a database, a log, a key, a socket; a signal ends both well."""
    cluster_agent = start_cluster_agent(walk)
    agent = trio.run(claim, walk.folder, cluster_agent.announced("NAME"))
    pod_agent = start_pod_agent(walk, agent)
    socket = inside(pod_agent, Path(pod_agent.announced("SOCKET")))
    (name,) = trio.run(names_behind, socket)
    assert name.startswith("root:app:127.0.0.1:")
    for daemon in (cluster_agent, pod_agent):
        status = Path(f"/proc/{first_process(daemon.process.pid)}/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in status)
        assert (fields["NSpid"].split()[-1], fields["Uid"].split()[1], fields["NoNewPrivs"]) == ("1", str(USER), "1")
        assert int(fields["CapEff"], 16) == 0
    assert [path.name for path in socket.parent.iterdir()] == ["s"]
    data = inside(cluster_agent, walk.folder / "data")
    assert {path.name for path in data.iterdir()} >= {"secrets.db", "audit.jsonl"}
    assert {path.stat().st_uid for path in data.rglob("*")} == {USER}
    for daemon in (pod_agent, cluster_agent):
        assert end(daemon, number) == 0
        log = daemon.log.read_text()
        assert "stopping" in log
        assert not {"Traceback", "WARNING", "ERROR", "Read-only"} & set(log.replace(":", " ").split()), log


def test_programs_that_follow_a_pod_agent_do_not_keep_it(walk: Any) -> None:
    """They wait for changes as long as they live; an agent that ends tells them that there will be none."""
    walk.start_cluster_agent()
    walk.new_secret()
    pod_agent = start_pod_agent(walk, walk.agent, "--drain-timeout=1h")
    socket = inside(pod_agent, Path(pod_agent.announced("SOCKET")))

    async def follow() -> None:
        async with open_principal(environ={"V23_AGENT_PATH": str(socket)}) as principal:
            assert default_of(principal).names
            assert await trio.to_thread.run_sync(end, pod_agent, signal.SIGTERM) == 0

    trio.run(follow)


@pytest.mark.parametrize("role", ["cluster-agent", "pod-agent"])
def test_orphans_are_buried(walk: Any, role: str) -> None:
    """What a `kubectl exec` leaves behind becomes a child of PID 1, and must not stay as a zombie when it ends."""
    if role == "pod-agent":
        daemon = start_pod_agent(walk, "/127.0.0.1:1")
        daemon.logged("no identity yet")
    else:
        daemon = start_cluster_agent(walk)
        daemon.announced("NAME")
    first = first_process(daemon.process.pid)
    for _ in range(3):
        leaving = ["nsenter", f"--target={first}", "--pid", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &"]
        subprocess.run(leaving, check=True, timeout=PATIENCE_SECONDS)
        (orphan,) = orphans_of(first)
        os.kill(orphan, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while orphans_of(first):
            assert time.monotonic() < deadline, Path(f"/proc/{orphan}/stat").read_text()
            time.sleep(0.01)
    assert end(daemon, signal.SIGTERM) == 0


def test_a_signal_that_comes_early_is_not_lost() -> None:
    """Before a daemon listens to signals, the system's default would end it, were it not PID 1."""
    program = (
        "import os, signal, time, vanadium_node.__main__ as roof\n"
        "roof.run = lambda *_: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(1000))\n"
        "roof.main(['pod-agent'])"
    )
    done = subprocess.run([*UNSHARE, sys.executable, "-c", program], timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 128 + signal.SIGTERM
