"""Cluster agent and pod agent as processes, used with the tools: the original's own test of the pair, and what breaks."""

import base64
import signal
from pathlib import Path
from typing import Any

import pytest

from vanadium_node.security.blessing import Blessings


def names(walk: Any, socket: str = "a.sock") -> list[str]:
    """Return the default names of the principal that an agent serves."""
    done = walk.machine.run(
        "principal",
        "get",
        "default",
        "--names",
        environment={**walk.as_(""), "V23_AGENT_PATH": str(walk.folder / socket)},
    )
    assert done.returncode == 0, done.stderr
    return list(done.stdout.split())


def test_the_originals_own_test_of_the_pair(walk: Any) -> None:
    """alice makes a secret, a replica lives on it, bob may not, and a forgotten secret gives nothing new."""
    walk.start_cluster_agent()
    assert walk.agent.startswith("/(root:agent)@127.0.0.1:")
    secret = walk.new_secret()
    pod_agent = walk.start_pod_agent()
    socket = pod_agent.announced("SOCKET")
    assert socket == str(walk.folder / "a.sock")
    assert all(name.startswith("root:alice:foo:") for name in names(walk))
    assert "rejected" not in (refusal := walk.refused("bob", "secret", "--agent", walk.agent, "new", "foo"))
    assert "root:bob" in refusal
    assert "Admin" in refusal
    blessings = Blessings.parse(walk.do("bob", "secret", "--agent", walk.agent, "seekblessings", "-", stdin=secret))
    assert blessings.names[0].startswith("root:alice:foo:127.0.0.1:")
    listed = walk.do("alice", "secret", "--agent", walk.agent, "list")
    assert " root:alice:foo: made 20" in listed
    assert "by root:alice, root:alice:prod, used 2 times" in listed
    assert secret not in listed + walk.do("alice", "secret", "--agent", walk.agent, "list", "--json")
    walk.do("alice", "secret", "--agent", walk.agent, "forget", "-", stdin=secret)
    refusal = walk.refused("bob", "secret", "--agent", walk.agent, "seekblessings", "-", stdin=secret)
    assert "the secret is unknown here" in refusal
    assert secret not in refusal
    assert all(name.startswith("root:alice:foo:") for name in names(walk)), "the running pod agent is unaffected"
    assert pod_agent.end() == 0


def test_base64_is_what_kubernetes_wants(walk: Any) -> None:
    """`--base64` prints the data of a Secret."""
    walk.start_cluster_agent()
    data = walk.do("alice", "secret", "--agent", walk.agent, "new", "foo", "--base64")
    secret = base64.b64decode(data, validate=True).decode()
    walk.do("alice", "secret", "--agent", walk.agent, "forget", "-", stdin=f"{secret}\n")


def test_the_cluster_agent_is_killed_and_comes_back(walk: Any) -> None:
    """Running replicas go on; after the restart the name, the key and the secrets are the same."""
    first = walk.start_cluster_agent()
    walk.new_secret()
    pod_agent = walk.start_pod_agent()
    pod_agent.announced("SOCKET")
    before = names(walk)
    key = walk.do("alice", "rpc", "identify", walk.agent)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    assert names(walk) == before
    for options in ((), ("--live",)):
        assert walk.machine.run("healthcheck", "--socket", "a.sock", *options).returncode == 0
    walk.start_cluster_agent()
    assert walk.do("alice", "rpc", "identify", walk.agent) == key
    other = walk.start_pod_agent(socket="b.sock")
    other.announced("SOCKET")
    assert names(walk, "b.sock") != before


def test_a_pod_agent_comes_first_and_is_killed(walk: Any) -> None:
    """It waits for the cluster agent, saying why once; its successor clears the leftover and has another name."""
    first = walk.start_cluster_agent()
    walk.new_secret()
    assert first.end() == 0
    pod_agent = walk.start_pod_agent()
    log = pod_agent.logged("no identity yet, trying on: nobody answers at")
    assert not (walk.folder / "a.sock").exists()
    port = walk.agent.rpartition(":")[2]
    walk.start_cluster_agent(f"--listen=127.0.0.1:{port}")
    pod_agent.announced("SOCKET")
    assert log.count("no identity yet") == 1
    before = names(walk)
    pod_agent.end(signal.SIGKILL)
    assert (walk.folder / "a.sock").exists()
    for options in ((), ("--live",)):
        assert "no agent answers on" in walk.refused("", "healthcheck", "--socket", "a.sock", *options)
    successor = walk.start_pod_agent()
    successor.announced("SOCKET")
    assert names(walk) != before
    assert sorted(path.name for path in walk.folder.glob("*.soc*")) == ["a.sock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_end_well(walk: Any, number: int) -> None:
    """SIGTERM and Ctrl-C drain: exit status 0, no traceback, no socket left."""
    cluster_agent = walk.start_cluster_agent()
    walk.new_secret()
    pod_agent = walk.start_pod_agent()
    pod_agent.announced("SOCKET")
    for daemon in (pod_agent, cluster_agent):
        assert daemon.end(number) == 0
        log = daemon.log.read_text()
        assert "stopping" in log
        assert "Traceback" not in log
    assert not list(walk.folder.glob("*.soc*"))


def test_a_waiting_pod_agent_ends_well(walk: Any) -> None:
    """Also while there is nobody to get an identity from."""
    walk.agent = "/(root:agent)@127.0.0.1:1"
    (walk.folder / "secret").write_text("x")
    pod_agent = walk.start_pod_agent()
    pod_agent.logged("no identity yet")
    assert pod_agent.end() == 0
    assert pod_agent.output.read_text() == ""
    assert [path.name for path in walk.folder.glob("*soc*")] == []


def test_neither_key_nor_secret_gets_out(walk: Any) -> None:
    """The secret is where it was put, and the private key nowhere: not in logs, environments, arguments, files."""
    daemons = [walk.start_cluster_agent()]
    secret = walk.new_secret()
    daemons.append(walk.start_pod_agent())
    daemons[1].announced("SOCKET")
    walk.refused("bob", "secret", "--agent", walk.agent, "new", "foo")
    walk.do("bob", "secret", "--agent", walk.agent, "seekblessings", "-", stdin=secret)
    walk.refused("bob", "secret", "--agent", walk.agent, "seekblessings", "-", stdin=f"{secret}x")
    seen = []
    for daemon in daemons:
        process = Path(f"/proc/{daemon.process.pid}")
        seen += [(process / name).read_bytes() for name in ("environ", "cmdline")]
        assert (process / "limits").read_text().partition("Max core file size")[2].split()[:2] == ["0", "0"]
        opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
        assert not any("key" in path and "private" in path for path in opened)
    seen += [path.read_bytes() for path in walk.folder.rglob("*") if path.is_file() and path.name != "secret"]
    raw = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    assert len(raw) == 256
    for data in seen:
        assert secret.encode() not in data
        assert raw not in data
    keys = [path for path in walk.folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert sorted(path.parent.name for path in keys) == ["agent", "alice", "bob", "root"], "none of the pod agent"
    assert not any(b"PRIVATE KEY" in daemon.log.read_bytes() for daemon in daemons)
