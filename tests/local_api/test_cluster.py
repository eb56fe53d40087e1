"""The embedded cluster as a daemon: up, down, status, what is left behind, and what goes wrong."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from vanadium_node.local.cluster import default_directory
from vanadium_node.local.directory import ClusterDirectory, State

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "web"}},
}


def deployment(*command: str) -> dict[str, Any]:
    """Return a deployment whose one pod runs a command."""
    container = {"name": "a", "image": "example/a:1", "command": list(command)}
    template = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}


def status(daemon: Any) -> dict[str, Any]:
    """Return what `local status` says."""
    found: dict[str, Any] = json.loads(daemon.local("status", "--json").stdout)
    return found


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Any, seconds: float = 15) -> None:
    """Wait for something that happens in another process."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_up_says_how_to_go_on_and_down_leaves_nothing(daemon: Any) -> None:
    """The kubeconfig, kubectl, and the way back; after down, the directory is gone."""
    up = daemon.local("up")
    assert up.returncode == 0, up.stderr
    assert f"export KUBECONFIG={daemon.directory}/kubeconfig" in up.stdout
    assert "kubectl get pods" in up.stdout
    down = daemon.local("down")
    assert down.stdout == f"The embedded cluster in {daemon.directory} is down.\n"
    assert not daemon.directory.exists()


def test_up_twice_is_refused_politely(daemon: Any) -> None:
    """With exit status 1, the directory and the next step; the first one runs on."""
    daemon.local("up")
    again = daemon.local("up")
    assert again.returncode == 1
    assert again.stderr == (
        f"vanadium-node: an embedded cluster runs in '{daemon.directory}' already; "
        "use it, or end it with 'vanadium-node local down'\n"
    )
    assert daemon.local("status").returncode == 0


def test_two_that_start_at_once_start_one(daemon: Any) -> None:
    """One of them is told that there is one already; both find it up."""
    command = [sys.executable, "-m", "vanadium_node", "local", "up"]
    started = [
        subprocess.Popen(command, env=daemon.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert sorted(process.wait(30) for process in started) == [0, 1, 1]
    assert daemon.local("status").returncode == 0


def test_everything_private_is_private(daemon: Any) -> None:
    """Key, certificate and kubeconfig can be read by their owner only; the API listens on loopback only."""
    daemon.local("up")
    for name in ("kubeconfig", "tls.key", "tls.crt", "state.json", "log"):
        mode = stat.S_IMODE((daemon.directory / name).stat().st_mode)
        assert mode == 0o600, f"{name} has mode {mode:o}"
    assert stat.S_IMODE(daemon.directory.stat().st_mode) == 0o700
    config = yaml.safe_load((daemon.directory / "kubeconfig").read_text())
    assert config["clusters"][0]["cluster"]["server"].startswith("https://127.0.0.1:")
    token = config["users"][0]["user"]["token"]
    pid = status(daemon)["pid"]
    assert token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert token.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_status_says_what_runs(daemon: Any, tmp_path: Path) -> None:
    """For people and for machines; the exit status is 1 when nothing runs."""
    before = daemon.local("status")
    assert before.returncode == 1
    assert "'vanadium-node local up' starts one" in before.stdout
    assert status(daemon) == {"running": False, "directory": str(daemon.directory)}
    daemon.local("up")
    manifest = tmp_path / "a.yaml"
    manifest.write_text(yaml.safe_dump(deployment("sleep", "60")))
    assert daemon.local("apply", str(manifest)).stdout == "deployment.apps/a created\n"
    assert daemon.local("apply", str(manifest)).stdout == "deployment.apps/a unchanged\n"
    wait_until(lambda: [pod["phase"] for pod in status(daemon)["pods"]] == ["Running"])
    assert "default/a-" in daemon.local("status").stdout


def test_down_ends_the_pods(daemon: Any, tmp_path: Path) -> None:
    """Their processes are gone before down returns."""
    daemon.local("up")
    note = tmp_path / "pid"
    manifest = tmp_path / "a.yaml"
    manifest.write_text(yaml.safe_dump(deployment("sh", "-c", f"echo $$$$ > {note}; exec sleep 600")))
    daemon.local("apply", str(manifest))
    wait_until(lambda: note.exists() and note.read_text().strip())
    pid = int(note.read_text())
    assert is_alive(pid)
    daemon.local("down")
    assert not is_alive(pid)


def test_a_killed_daemon_leaves_no_pods_and_no_lock(daemon: Any, tmp_path: Path) -> None:
    """After kill -9 its pods end, status knows, up starts a new one on the same port, and down cleans up."""
    daemon.local("up")
    first = status(daemon)
    note = tmp_path / "pid"
    manifest = tmp_path / "a.yaml"
    manifest.write_text(yaml.safe_dump(deployment("sh", "-c", f"echo $$$$ > {note}; exec sleep 600")))
    daemon.local("apply", str(manifest))
    wait_until(lambda: note.exists() and note.read_text().strip())
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: not is_alive(first["pid"]))
    wait_until(lambda: not is_alive(int(note.read_text())))
    assert daemon.local("status").returncode == 1
    again = daemon.local("up")
    assert again.returncode == 0, again.stderr
    assert status(daemon)["server"] == first["server"]
    assert status(daemon)["pods"] == []


def test_a_stale_state_file_fools_nobody(daemon: Any) -> None:
    """It may name a living process that is not ours: nothing is signalled, and the next cluster takes its place."""
    files = ClusterDirectory(daemon.directory)
    files.make()
    files.write_state(State(os.getpid(), 1, "2026-11-23T12:00:00Z"))
    assert daemon.local("status").returncode == 1
    assert "No embedded cluster was running" in daemon.local("down").stdout
    assert daemon.local("up").returncode == 0


def test_a_broken_state_file_is_overlooked(daemon: Any) -> None:
    """It only means that the port is chosen anew."""
    ClusterDirectory(daemon.directory).make()
    (daemon.directory / "state.json").write_bytes(b"\xff{")
    assert daemon.local("up").returncode == 0


def test_down_leaves_what_is_not_its_own(daemon: Any) -> None:
    """A file of the user's in the directory stays, and so does the directory."""
    daemon.local("up")
    (daemon.directory / "notes.txt").write_text("mine")
    daemon.local("down")
    assert [path.name for path in daemon.directory.iterdir()] == ["notes.txt"]


def test_a_port_in_use_is_named(daemon: Any) -> None:
    """One sentence, and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = daemon.local("up", "--port", str(port))
    assert refused.returncode == 1
    assert f"cannot serve the embedded cluster's API on 127.0.0.1:{port}: the port is in use" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert daemon.local("status").returncode == 1


def test_a_directory_with_a_long_path_is_refused(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unix sockets in its pods would have too long a path."""
    monkeypatch.setattr(
        type(daemon), "environment", lambda self: os.environ | {"VANADIUM_LOCAL_DIR": "/tmp/" + "x" * 90}
    )
    refused = daemon.local("up")
    assert refused.returncode == 1
    assert "its path is 95 bytes long" in refused.stderr
    assert "at most 76 bytes" in refused.stderr


def test_a_directory_that_cannot_be_made_is_refused(daemon: Any) -> None:
    """A file stands where the directory should be."""
    daemon.directory.write_text("in the way")
    refused = daemon.local("up")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"vanadium-node: cannot make the directory '{daemon.directory}'")
    assert refused.stderr.count("\n") == 1


def test_a_foreground_cluster_ends_with_ctrl_c(daemon: Any) -> None:
    """It says when it is up, and cleans up behind its pods."""
    with subprocess.Popen(
        [sys.executable, "-m", "vanadium_node", "local", "up", "--foreground"],
        env=daemon.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert "The embedded cluster is up at https://127.0.0.1:" in process.stdout.readline()
        assert daemon.local("status").returncode == 0
        assert "already" in daemon.local("up").stderr
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode in {0, 130}, errors
    assert "Traceback" not in errors
    assert daemon.local("status").returncode == 1


def test_addresses_of_services(daemon: Any, tmp_path: Path) -> None:
    """A load balancer has one; another service is refused with the reason."""
    nobody = daemon.local("address", "web")
    assert "no embedded cluster runs" in nobody.stderr
    daemon.local("up")
    manifest = tmp_path / "service.json"
    manifest.write_text(json.dumps(SERVICE))
    daemon.local("apply", str(manifest))
    assert daemon.local("address", "web").stdout.startswith("127.")
    manifest.write_text(json.dumps(SERVICE | {"metadata": {"name": "inner"}, "spec": {"ports": [{"port": 80}]}}))
    daemon.local("apply", str(manifest))
    refused = daemon.local("address", "inner")
    assert refused.returncode == 1
    assert "its type must be LoadBalancer" in refused.stderr
    assert "cannot read Service default/none" in daemon.local("address", "none").stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Wonder\napiVersion: v1\nmetadata: {name: a}\n", "cannot apply the kind Wonder of v1"),
        ("kind: Service\napiVersion: v1\nmetadata: {name: a}\nspec: {prots: []}\n", 'unknown field "spec.prots"'),
        ("{", "a.yaml"),
    ],
)
def test_manifests_that_are_wrong_are_named(daemon: Any, tmp_path: Path, text: str, said: str) -> None:
    """One sentence, exit status 1."""
    daemon.local("up")
    manifest = tmp_path / "a.yaml"
    manifest.write_text(text)
    refused = daemon.local("apply", str(manifest))
    assert refused.returncode == 1
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_the_help_says_that_objects_live_in_memory(daemon: Any) -> None:
    """Nobody should be surprised by it."""
    assert "live in memory" in " ".join(daemon.local("--help").stdout.split())


def test_only_who_has_the_token_gets_in(daemon: Any) -> None:
    """Another user of the machine can reach the port, and gets 401."""
    daemon.local("up")
    config = yaml.safe_load((daemon.directory / "kubeconfig").read_text())
    server = config["clusters"][0]["cluster"]["server"]
    with httpx.Client(verify=False, trust_env=False) as client:  # noqa: S501 - it is about the client's rights
        assert client.get(f"{server}/api/v1/secrets").status_code == 401


def test_the_directory_follows_the_environment() -> None:
    """VANADIUM_LOCAL_DIR, else the state directory of the user."""
    assert default_directory({"VANADIUM_LOCAL_DIR": "/a/b"}) == Path("/a/b")
    assert default_directory({"XDG_STATE_HOME": "/state"}) == Path("/state/vanadium-node/local")
    assert default_directory({}) == Path.home() / ".local/state/vanadium-node/local"
