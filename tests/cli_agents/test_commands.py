"""The four commands: settings from everywhere, wrong input in one sentence, and probes that are quick."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from agent_parties import Machine, clean_environment

SETTINGS = ["--socket-path=s", "--secret-key-file=f", "--agent=/127.0.0.1:1"]


@pytest.fixture
def roots(machine: Machine) -> str:
    """The text form of some root's blessings."""
    machine.run("principal", "create", "--with-passphrase=false", "root", "root")
    environment = clean_environment(V23_CREDENTIALS="root")
    return machine.run("principal", "get", "default", environment=environment).stdout.strip()


def sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the one sentence of a command that failed."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_socket_path_too_long_comes_before_anything_else(machine: Machine, roots: str) -> None:
    """One sentence with its length and the limit, and nothing was made or asked."""
    path = machine.folder / ("x" * 120)
    said = sentence(machine.run("pod-agent", *SETTINGS, f"--socket-path={path}", f"--root-blessings={roots}"))
    assert "a unix socket's path at most 107" in said
    assert str(path) in said
    assert "--socket-path" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pod-agent"], "'agent' is not set"),
        (["pod-agent", *SETTINGS], "'root-blessings' is not set"),
        (["pod-agent", *SETTINGS, "--root-blessings=x"], "--root-blessings: the root blessings cannot be read"),
        (["pod-agent", *SETTINGS, "--agent=host"], "--agent: 'host' is no name of a server"),
        (["pod-agent", "--config=none.toml"], "there is no configuration file 'none.toml'"),
        (["cluster-agent"], "'root-dir' is not set"),
        (["cluster-agent", "--root-dir=d"], "nobody could claim it"),
        (["cluster-agent", "--root-dir=d", "--blessing-ttl=soon"], "--blessing-ttl: 'soon' is not a duration"),
        (["cluster-agent", "--root-dir=d", "--permissions=none.json"], "cannot read 'none.json'"),
        (["cluster-agent", "--root-dir=d", "--log-format=xml"], "--log-format: 'xml' is none of text, json"),
        (["cluster-agent", "--root-dir=d", "--max-frame-size=1KiB"], "'1KiB' is not from 64KiB to 64MiB"),
        (["discharger", "--handshake-timeout=0"], "--handshake-timeout: a time of 0 would admit nobody"),
        (["discharger", "--max-calls-per-peer=0"], "--max-calls-per-peer: 0 would admit nothing"),
        (
            ["cluster-agent", "--root-dir=d", "--v23.permissions.literal={"],
            "--permissions-literal: the permissions are",
        ),
        (["cluster-agent", "--root-dir=d", "--v23.permissions.literal={}"], "no principal"),
        (["secret", "--agent=/127.0.0.1:1", "new", "x"], "no principal"),
        (["secret", "--agent=/127.0.0.1:1", "forget", "-"], "the secret is empty"),
        (["healthcheck", "--socket=none"], "no agent answers on 'none'"),
    ],
)
def test_wrong_input_is_one_sentence(machine: Machine, arguments: list[str], expected: str) -> None:
    """It names what is wrong and the next step."""
    said = sentence(machine.run(*arguments))
    assert expected in said
    assert ";" in said, "there is a next step"


def test_wrong_usage(machine: Machine) -> None:
    """Exit status 2, as shells have it."""
    for arguments in (["secret", "new", "x"], ["secret", "--agent=/h:1"], ["pod-agent", "--what"], ["healthcheck"]):
        assert machine.run(*arguments).returncode == 2
    helped = machine.run("secret", "forget", "--help")
    assert (helped.returncode, "--older-than" in helped.stdout) == (0, True), "help needs no cluster agent"


def test_print_config_can_be_used_as_the_file(machine: Machine, roots: str) -> None:
    """What one run prints gives the next run the same settings; each line says where its value comes from."""
    arguments = [*SETTINGS, f"--root-blessings={roots}", "--socket-mode=0600"]
    printed = machine.run("pod-agent", *arguments, "--print-config").stdout
    (machine.folder / "agent.toml").write_text(printed)
    assert 'socket-mode = "0600"  # --socket-mode' in printed
    assert 'drain-timeout = "5s"  # default' in printed
    again = machine.run(
        "pod-agent", "--config=agent.toml", "--print-config", environment=clean_environment(DRAIN_TIMEOUT="7s")
    )
    assert tomllib.loads(again.stdout) == tomllib.loads(printed) | {"drain-timeout": "7s"}, again.stderr
    assert "socket-mode = \"0600\"  # 'socket-mode' in 'agent.toml'" in again.stdout
    assert 'drain-timeout = "7s"  # environment variable DRAIN_TIMEOUT' in again.stdout


def test_a_port_in_use(machine: Machine, roots: str) -> None:
    """The sentence names it, also as a line of JSON."""
    claim = ["--root-dir=d", f"--root-blessings={roots}", "--claimer=root", "--admin=root"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = machine.run("cluster-agent", *claim, f"--listen=127.0.0.1:{port}")
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr.splitlines()[-1]
        assert done.returncode == 1
        done = machine.run("cluster-agent", *claim, f"--listen=127.0.0.1:{port}", "--log-format=json")
        *_, last = (json.loads(line) for line in done.stderr.splitlines())
        assert (last["level"], done.returncode) == ("critical", 1)
        assert f"cannot listen on 127.0.0.1:{port}" in last["message"]


def test_an_unreachable_cluster_agent(machine: Machine, roots: str) -> None:
    """The tools do not hang."""
    environment = clean_environment(V23_CREDENTIALS="root")
    said = sentence(machine.run("secret", "--agent=/127.0.0.1:1", "new", "x", environment=environment))
    assert "127.0.0.1:1" in said


def seconds_of(command: list[str], folder: Path) -> float:
    """Run a command and return how long it took."""
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return time.perf_counter() - begin


def test_a_probe_is_quick_and_imports_little(walk: Any) -> None:
    """Every second in every pod: no trio, no cryptography, no TLS, and under 150 ms."""
    walk.start_cluster_agent()
    walk.new_secret()
    walk.start_pod_agent().announced("SOCKET")
    arguments = ["healthcheck", "--socket", "a.sock"]
    assert walk.machine.run(*arguments).returncode == 0
    probe = min(seconds_of([sys.executable, "-m", "vanadium_node", *arguments], walk.folder) for _ in range(5))
    bare = min(seconds_of([sys.executable, "-c", "pass"], walk.folder) for _ in range(5))
    assert probe < max(0.15, 8 * bare), "on a machine where Python itself starts slowly, it may take longer"
    program = (
        "import sys; from vanadium_node.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    imported = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=walk.folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert not {"trio", "cryptography", "OpenSSL", "rich", "httpx", "ssl", "asyncio"} & set(imported)


def test_a_probe_of_something_else(machine: Machine) -> None:
    """A socket that says nothing, or nonsense, is not healthy."""
    path = machine.folder / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        for options in ((), ("--live",)):
            said = sentence(machine.run("healthcheck", "--socket=s", "--timeout=0.3", *options))
            assert "no agent answers on 's'" in said


def test_a_second_signal_ends_at_once(walk: Any) -> None:
    """Whoever cannot wait for the drain does not have to."""
    walk.start_cluster_agent("--drain-timeout=1h")
    cluster_agent = walk.machine.daemons[-1]
    cluster_agent.process.send_signal(signal.SIGSTOP)
    cluster_agent.process.send_signal(signal.SIGTERM)
    cluster_agent.process.send_signal(signal.SIGINT)
    cluster_agent.process.send_signal(signal.SIGCONT)
    assert cluster_agent.process.wait(60) in {0, 128 + signal.SIGINT, 128 + signal.SIGTERM}


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-fp", "true"], capture_output=True, check=False).returncode != 0,
    reason="no PID namespaces here",
)
def test_as_the_first_process_of_a_container(machine: Machine, roots: str) -> None:
    """As PID 1, where unhandled signals do nothing, SIGTERM still ends it well."""
    log = machine.folder / "log"
    with log.open("wb") as err:
        process = subprocess.Popen(
            ["unshare", "-fp", "--kill-child", sys.executable, "-m", "vanadium_node", "pod-agent", *SETTINGS,
             f"--root-blessings={roots}"],
            cwd=machine.folder, stderr=err, env=clean_environment(),
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while "no identity yet" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert process.wait(60) == 0
        assert "stopping" in log.read_text()
    finally:
        process.kill()
        process.wait(60)
