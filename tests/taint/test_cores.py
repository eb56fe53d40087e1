"""Keys are in no core: a process that holds one leaves none behind, and a core that somebody has all the same is empty."""

import copy
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from agent_parties import PATIENCE_SECONDS, Machine, clean_environment, new_root, short_directory

from vanadium_node.security.keys import KeyType, PrivateKey
from vanadium_node.storage.credentials import CredentialsDirectory

UNLIMITED = 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"'
"""Runs a command with cores allowed as far as they can be."""

NO_MEMORY = "00000000"
"""What the kernel puts into a core: none of the process's memory, not even where a program takes cores and ignores limits."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with alice's credentials in it; processes work there, and leave their cores there."""
    with short_directory() as folder:
        trio.run(_make_alice, folder)
        yield folder


async def _make_alice(folder: Path) -> None:
    await CredentialsDirectory(folder / "alice").create(PrivateKey.generate(), "alice")


def roots_of(folder: Path) -> str:
    """Return alice's blessings."""
    default = CredentialsDirectory(folder / "alice").open().store.default
    assert default is not None
    return default.text


def started(folder: Path, *command: str) -> "subprocess.Popen[bytes]":
    """Start a program that may leave a core in the folder."""
    return subprocess.Popen(
        ["bash", "-c", UNLIMITED, "bash", sys.executable, *command],
        cwd=folder,
        env=clean_environment(V23_CREDENTIALS="alice", ROOT_BLESSINGS=roots_of(folder), XDG_RUNTIME_DIR=str(folder)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def line_of(process: "subprocess.Popen[bytes]") -> str:
    """Wait for a line of a program."""
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def aborted(process: "subprocess.Popen[bytes]") -> None:
    """Have a program end as one that has crashed."""
    process.send_signal(signal.SIGABRT)
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGABRT


def cores(folder: Path) -> list[str]:
    """Return the cores in a folder; those of this test's folder alone, however they are named."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("core"))


def core_limit(pid: int) -> str:
    """Return the largest core that a process may leave now."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return limits.partition("Max core file size")[2].split()[0]


DAEMONS = {
    "agent": ["agent", "start", "--foreground"],
    "cluster-agent": ["cluster-agent", "--listen=127.0.0.1:0", "--root-dir=data", "--claimer=alice", "--admin=alice"],
    "discharger": ["discharger", "--listen=127.0.0.1:0", "--credentials=alice"],
    "run": ["run", "--name=x", "sh", "-c", "echo up; exec sleep 600"],
}


@pytest.mark.parametrize("name", DAEMONS)
def test_a_process_with_a_key_leaves_no_core(folder: Path, name: str) -> None:
    """Whatever limit it was started with; and the kernel would put nothing of its memory into one."""
    with started(folder, "-m", "vanadium_node", *DAEMONS[name]) as process:
        try:
            assert line_of(process), "it did not start"
            assert core_limit(process.pid) == "0"
            assert Path(f"/proc/{process.pid}/coredump_filter").read_text().strip() == NO_MEMORY
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            aborted(process)
        finally:
            process.kill()
        for child in children if name == "run" else ():
            os.kill(int(child), signal.SIGKILL)
    assert cores(folder) == []


def test_a_command_that_is_run_has_the_limits_of_whoever_runs_it(folder: Path) -> None:
    """It is somebody else's program: its cores are its own affair, and hold none of our keys."""
    show = "echo $(ulimit -S -c) $(cat /proc/$$/coredump_filter)"
    with started(folder, "-c", f"import subprocess; subprocess.run(['sh', '-c', {show!r}])") as process:
        before = line_of(process)
    with started(folder, "-m", "vanadium_node", "run", "--name=x", "sh", "-c", f"sleep 1; {show}") as process:
        assert line_of(process) == before


def test_a_core_without_memory_holds_no_key(folder: Path) -> None:
    """The filter alone does it, where limits are ignored; without it, the key is there, so this would be seen."""
    if Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
        pytest.skip("a program takes the cores of this machine")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("no process may leave a core here")
    program = (
        "import os, resource, sys\n"
        "from vanadium_node.cli import cores\n"
        "key = bytes.fromhex(sys.stdin.read())\n"
        "{}\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)\n"
        "os.abort()"
    )  # fmt: skip
    key = os.urandom(64)
    for filtered, is_there in (("", True), ("cores.leave_no_core()", False)):
        place = folder / f"place-{is_there}"
        place.mkdir()
        subprocess.run(
            ["bash", "-c", UNLIMITED, "bash", sys.executable, "-c", program.format(filtered)],
            cwd=place, input=key.hex().encode(), check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        (core,) = cores(place)
        assert (key in (place / core).read_bytes()) == is_there


@pytest.mark.parametrize("key_type", KeyType)
@pytest.mark.parametrize("give_away", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deep copy"])
async def test_a_key_is_not_given_away(key_type: KeyType, give_away: Callable[[object], object]) -> None:
    """Neither a key nor what holds one is copied or written down; their texts hold nothing of it."""
    key = PrivateKey.generate(key_type)
    with pytest.raises(TypeError, match="does not leave its process"):
        give_away(key)
    if give_away is not copy.copy:  # which would only share the key
        with pytest.raises(TypeError, match="does not leave its process"):
            give_away(await new_root())
    assert repr(key) == str(key) == f"<PrivateKey of {key.public_key.fingerprint}>"


def test_a_pod_agent_leaves_no_core(folder: Path) -> None:
    """From its start on: also while it waits for the cluster agent, before it has an identity."""
    machine = Machine(folder)
    (folder / "secret").write_text("x")
    environment = clean_environment(
        AGENT_NAME="/(root:agent)@127.0.0.1:1", ROOT_BLESSINGS=roots_of(folder),
        SOCKET_PATH=str(folder / "a.sock"), SECRET_KEY_FILE=str(folder / "secret"),
    )  # fmt: skip
    try:
        daemon = machine.start("pod-agent", environment=environment)
        daemon.logged("no identity yet")
        assert core_limit(daemon.process.pid) == "0"
        assert Path(f"/proc/{daemon.process.pid}/coredump_filter").read_text().strip() == NO_MEMORY
        aborted(daemon.process)
    finally:
        machine.end()
    assert cores(folder) == []
