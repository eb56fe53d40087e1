"""`run`: commands as fresh principals that the current one blessed."""

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from agent_parties import clean_environment, run_module
from terminal import CTRL_C, on_terminal

from vanadium_node.storage.credentials import CredentialsDirectory

US = [sys.executable, "-m", "vanadium_node"]


@pytest.fixture
def runtime(folder: Path) -> Path:
    """Where sockets are made."""
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    return runtime


@pytest.fixture
def environment(runtime: Path) -> dict[str, str]:
    """The environment of alice's programs."""
    return clean_environment(V23_CREDENTIALS="alice", XDG_RUNTIME_DIR=str(runtime))


def run(folder: Path, environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `vanadium-node run ARGUMENTS…`."""
    return run_module(folder, ["run", *arguments], environment)


def test_the_command_is_somebody_new(folder: Path, environment: dict[str, str]) -> None:
    """Blessed by the current principal, for an hour, with a key of its own that its caller's names recognize."""
    alice = CredentialsDirectory(folder / "alice").open().public_key
    done = run(folder, environment, "--name=phone", *US, "principal", "dump")
    assert done.returncode == 0, done.stderr
    assert "Default Blessings : alice:phone\n" in done.stdout
    assert "...                              alice:phone\n" in done.stdout
    assert f"{alice}   [alice]\n" in done.stdout
    assert f"Public key : {alice}" not in done.stdout


def test_caveats_are_passed_on(folder: Path, environment: dict[str, str]) -> None:
    """As `bless` takes them; there is always an end."""
    look = [*US, "principal", "get", "default", "--caveats=alice:phone"]
    done = run(folder, environment, "--name=phone", "--template=read-only", "--caveat=peer:alice", *look)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "Restricted to methods tagged [Read Resolve]" in lines
    assert "Restricted to peers with blessings [alice]" in lines
    assert sum(line.startswith("Expires at") for line in lines) == 1
    done = run(folder, environment, "--name=phone", "--caveat=expiry:2099-01-01", *look)
    assert [line for line in done.stdout.splitlines() if "Expires" in line] == ["Expires at 2099-01-01 00:00:00 UTC"]


def test_inside_another_run(folder: Path, environment: dict[str, str]) -> None:
    """The name grows; the inner command has one way to an identity."""
    inner = [
        *US,
        "run",
        "--name=b",
        "sh",
        "-c",
        f"env | grep -o ^V23_[A-Z_]*; {sys.executable} -m vanadium_node principal dump -s",
    ]
    done = run(folder, environment, "--name=a", "--", *inner)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "V23_AGENT_PATH\nalice:a:b\n"


@pytest.mark.parametrize(
    ("command", "status", "talk"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -KILL $$"], 137, ""),
        (["no-such-command"], 127, "vanadium-node: cannot run 'no-such-command': there is no such command\n"),
        (["/"], 126, "vanadium-node: cannot run '/': Permission denied\n"),
    ],
)
def test_the_exit_status_is_the_commands(
    folder: Path, runtime: Path, environment: dict[str, str], command: list[str], status: int, talk: str
) -> None:
    """As shells have it, and whatever it is, nothing is left."""
    done = run(folder, environment, "--name=x", *command)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", talk)
    assert list(runtime.iterdir()) == []


def test_what_there_is_while_it_runs(folder: Path, runtime: Path, environment: dict[str, str]) -> None:
    """A private directory with a private socket in it, and nothing else: the key is on no disk."""
    done = run(folder, environment, "--name=x", "sh", "-c", 'find "$XDG_RUNTIME_DIR" -mindepth 1 -printf "%M %y\\n"')
    assert done.stdout == "drwx------ d\nsrw------- s\n"
    assert list(runtime.iterdir()) == []
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(
    folder: Path, runtime: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    """The command decides what they mean."""
    trap = f"trap 'echo got it; exit 9' {number.name.removeprefix('SIG')}; echo up; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [*US, "run", "--name=x", "sh", "-c", trap],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.stdout.read() == "got it\n"
        assert process.wait(60) == 9
    assert list(runtime.iterdir()) == []


def test_ctrl_c_reaches_the_command_once(folder: Path, runtime: Path, environment: dict[str, str]) -> None:
    """The terminal has told it already."""
    count = "n=0; trap 'n=$((n+1)); echo got $n' INT; echo up; i=0; while [ $i -lt 20 ]; do sleep 0.05; i=$((i+1)); done; exit $n"
    with on_terminal(folder, environment, "run", "--name=x", "sh", "-c", count) as terminal:
        terminal.expect("up")
        terminal.type(CTRL_C)
        terminal.expect("got 1")
        assert terminal.end() == 1, terminal.shown
    assert list(runtime.iterdir()) == []


def test_the_identity_ends_with_the_command(folder: Path, runtime: Path, environment: dict[str, str]) -> None:
    """What the command leaves running has nobody to ask."""
    look = f"{{ cat <&3 >/dev/null; {' '.join(US)} healthcheck; echo $?; }} 2>&1"
    with subprocess.Popen(
        [*US, "run", "--name=x", "sh", "-c", f"exec 3<&0; {look} & exec true"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    ) as process:
        assert process.wait(60) == 0
        assert list(runtime.iterdir()) == []
        said, _ = process.communicate(timeout=60)
    assert "no agent answers" in said
    assert said.endswith("\n1\n")


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["true"], 2, "Missing option '--name'"),
        (["--name=x"], 2, "Missing argument"),
        (["--name=a::b", "true"], 1, "it has '::' in it"),
        (["--name=x", "--for=soon", "true"], 1, "'soon' is not a duration"),
        (["--name=x", "--for=0", "true"], 1, "--for wants a duration longer than none"),
    ],
)
def test_wrong_usage(
    folder: Path, runtime: Path, environment: dict[str, str], arguments: list[str], status: int, expected: str
) -> None:
    """One sentence each; the command does not run."""
    done = run(folder, environment, *arguments)
    assert done.returncode == status
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(runtime.iterdir()) == []
