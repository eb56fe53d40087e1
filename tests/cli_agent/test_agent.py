"""The agent of a credentials directory, as its owner meets it: with real processes."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from agent_parties import Machine, clean_environment, default_of, eventually, run_module
from terminal import on_terminal

from vanadium_node.agent import open_principal
from vanadium_node.agent.on_demand import is_served
from vanadium_node.agent.service import AgentService
from vanadium_node.errors import CallError, ErrorCode, InputError
from vanadium_node.rpc import connect, serve
from vanadium_node.security.authorization import user_authorizer
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.storage.credentials import CredentialsDirectory

SECRET = "correct horse battery"


def agent(folder: Path, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Run `vanadium-node agent ARGUMENTS…` for alice."""
    return run_module(folder, ["agent", *arguments], clean_environment(V23_CREDENTIALS="alice"), stdin)


def status(folder: Path) -> dict[str, object]:
    """Return what `agent status` says."""
    done = agent(folder, "status", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def dump_on_terminal(folder: Path, environment: Mapping[str, str], passphrase: str = "") -> str:
    """Run `principal dump -s` at a terminal, typing the passphrase if there is one to type, and return what it showed."""
    with on_terminal(folder, environment, "principal", "dump", "-s") as terminal:
        if passphrase:
            terminal.expect("Passphrase: ")
            terminal.type(passphrase + "\n")
        assert terminal.end() == 0, terminal.shown
        return terminal.shown


def encrypt(folder: Path) -> None:
    """Give alice a passphrase."""
    key = PrivateKey.generate()
    trio.run(
        lambda: CredentialsDirectory(folder / "alice").create(key, "alice", passphrase=SECRET.encode(), overwrite=True)
    )


def test_a_passphrase_is_asked_for_once(folder: Path, environment: dict[str, str]) -> None:
    """The first command starts the agent, the others use it, with and without a terminal; after `stop` it is asked for again."""
    encrypt(folder)
    assert "alice" in dump_on_terminal(folder, environment, SECRET)
    assert dump_on_terminal(folder, environment) == "alice\n"
    assert run_module(folder, ["principal", "blessself", "me"], environment).returncode == 0
    pid = status(folder)["pid"]
    assert isinstance(pid, int)
    assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    assert agent(folder, "stop").returncode == 0
    assert "alice" in dump_on_terminal(folder, environment, SECRET)


def test_two_that_start_it_at_once_get_one_agent(folder: Path, environment: dict[str, str]) -> None:
    """All succeed, and name the same socket."""
    encrypt(folder)
    starting = [
        subprocess.Popen(
            [sys.executable, "-m", "vanadium_node", "agent", "start", "--passphrase-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )
        for _ in range(3)
    ]
    said = [each.communicate(SECRET + "\n", timeout=60) for each in starting]
    assert [each.returncode for each in starting] == [0, 0, 0], said
    assert {out for out, _ in said} == {f"SOCKET={folder}/alice/agent/sock\n"}
    assert sum("already" in talk for _, talk in said) == 2, said


def test_only_the_owner_is_let_in(folder: Path) -> None:
    """By the permissions of the directory, by those of the socket, and by the agent itself."""
    assert agent(folder, "start").returncode == 0
    assert stat.S_IMODE((folder / "alice/agent").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "alice/agent/sock").stat().st_mode) == 0o600


async def test_other_users_are_refused(folder: Path) -> None:
    """Whoever gets hold of the socket all the same, and is somebody else, is refused everything."""
    principal = await Principal.create(PrivateKey.generate(), "alice")
    service = AgentService(principal, immutable=False, authorize=user_authorizer(os.geteuid() + 1))
    async with serve(service, None, listen=[f"unix:{folder}/s"]), connect(f"unix:{folder}/s", None) as stranger:
        for method in ("State", "PublicKey"):
            with pytest.raises(CallError) as refused:
                await stranger.call(method, returns=bytes)
            assert refused.value.code is ErrorCode.NO_ACCESS


def test_a_killed_agent_is_replaced(folder: Path, environment: dict[str, str]) -> None:
    """The socket that it left behind hinders nobody."""
    assert agent(folder, "start").returncode == 0
    pid = status(folder)["pid"]
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    trio.run(eventually, lambda: not is_served(folder / "alice/agent/sock"))
    assert (folder / "alice/agent/sock").exists()
    assert run_module(folder, ["principal", "dump", "-s"], environment).stdout == "alice\n"
    assert agent(folder, "start").returncode == 0
    assert status(folder)["pid"] != pid


def test_it_ends_when_nobody_has_used_it_for_a_while(folder: Path, environment: dict[str, str]) -> None:
    """A connected program keeps it; nothing but the lock file is left."""
    assert agent(folder, "start", "--idle-timeout=500ms").returncode == 0

    async def use() -> None:
        async with open_principal(credentials=folder / "alice", environ={}) as principal:
            await trio.sleep(1.2)  # longer than the timeout, on purpose
            assert default_of(principal).names == ("alice",)
            assert is_served(folder / "alice/agent/sock")

    trio.run(use)
    trio.run(eventually, lambda: not is_served(folder / "alice/agent/sock"))
    trio.run(eventually, lambda: [each.name for each in (folder / "alice/agent").iterdir()] == ["lock"])


async def test_what_others_change_in_the_directory_is_taken_over(folder: Path) -> None:
    """Also by those that opened it before there was an agent; and what clients change is in the directory."""
    directory = CredentialsDirectory(folder / "alice")
    other = directory.open()
    assert (await trio.to_thread.run_sync(agent, folder, "start")).returncode == 0
    async with open_principal(credentials=directory.path, environ={}) as acting:
        mine = await other.bless_self("me")
        await other.set_default(mine)
        await eventually(lambda: default_of(acting) == mine)
        theirs = await acting.bless_self("them")
        await acting.adopt(theirs)
        assert default_of(directory.open()) == theirs


def test_it_ends_when_the_key_is_replaced(folder: Path) -> None:
    """It would go on as somebody who is not there any more."""
    assert agent(folder, "start").returncode == 0
    encrypt(folder)
    trio.run(eventually, lambda: not is_served(folder / "alice/agent/sock"))


def test_what_status_prints(folder: Path) -> None:
    """Whom it serves, where, and since when."""
    assert agent(folder, "start", "--idle-timeout=1h30m").returncode == 0
    unused = "In use     : 0 programs use it; ends 1h30m after its last use\n"
    trio.run(eventually, lambda: unused in agent(folder, "status").stdout)  # the program before may just be going
    shown = agent(folder, "status").stdout
    assert "Serving    : alice\n" in shown
    assert f"Socket     : {folder}/alice/agent/sock\n" in shown
    assert "In use     : " in shown
    assert status(folder)["idleSeconds"] == 5400
    assert agent(folder, "start").stderr == "An agent serves 'alice' already.\n"


def test_where_there_is_none(folder: Path) -> None:
    """`stop` has nothing to do; `status` says how to start one."""
    assert agent(folder, "stop").stderr == "No agent serves 'alice'.\n"
    done = agent(folder, "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "vanadium-node: no agent serves 'alice'; 'vanadium-node agent start alice' starts one\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["start", "nowhere"], "there is no principal in 'nowhere'"),
        (["start", "--idle-timeout=soon"], "'soon' is not a duration"),
        (["start", "d" * 100 + "/alice"], "there is no principal in"),
        (["status", "nowhere"], "there is no principal in 'nowhere'"),
        (["stop", "nowhere"], "there is no principal in 'nowhere'"),
    ],
)
def test_wrong_usage(folder: Path, arguments: list[str], expected: str) -> None:
    """One sentence each, and no agent."""
    done = agent(folder, *arguments)
    assert done.returncode == 1
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "alice/agent/sock").exists()


def test_a_wrong_passphrase_starts_nothing(folder: Path) -> None:
    """From standard input as from a terminal; the next try is not hindered."""
    encrypt(folder)
    done = agent(folder, "start", "--passphrase-stdin", stdin="wrong\n")
    assert done.returncode == 1
    assert "is the passphrase right?" in done.stderr
    assert "no terminal to ask" in agent(folder, "start").stderr
    assert agent(folder, "start", "--passphrase-stdin", stdin=SECRET + "\n").returncode == 0


def test_in_the_foreground_it_ends_well(folder: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """As a service manager runs it."""
    machine = Machine(tmp_path)
    try:
        daemon = machine.start("agent", "start", "--foreground", str(folder / "alice"), environment=environment)
        assert daemon.announced("SOCKET") == f"{folder}/alice/agent/sock"
        assert daemon.end() == 0
    finally:
        machine.end()
    assert not (folder / "alice/agent/sock").exists()


async def test_where_no_socket_fits_the_passphrase_is_asked_for_each_time(tmp_path: Path) -> None:
    """A path too long for a unix socket takes away the convenience, nothing else."""
    directory = CredentialsDirectory(tmp_path / ("d" * 100))
    await directory.create(PrivateKey.generate(), "alice", passphrase=SECRET.encode())
    asked = []

    def ask() -> bytes:
        asked.append(1)
        return SECRET.encode()

    for _ in range(2):
        async with open_principal(credentials=directory.path, environ={}, passphrase=ask) as principal:
            assert default_of(principal).names == ("alice",)
    assert len(asked) == 2


async def test_a_program_that_cannot_ask_is_told_what_to_do(folder: Path) -> None:
    """A daemon has no terminal."""
    await trio.to_thread.run_sync(lambda: encrypt(folder))
    with pytest.raises(InputError, match="is encrypted, and no agent serves it; 'vanadium-node agent start"):
        async with open_principal(credentials=folder / "alice", environ={}):
            pass
