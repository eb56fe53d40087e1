"""`vanadium-node rpc` and `fortuned`, as real processes that talk over real sockets."""

import json
import re
import signal
import socket
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typing_shell import Shell

FINGERPRINT = r"([0-9a-f]{2}:){15}[0-9a-f]{2}"
FORTUNE = """\
// Fortune is the interface to a fortune-telling service.
type "vanadium_node/examples/fortune".Fortune interface {
  // Adds a fortune to the set used by Get().
  Add(fortune string) error {Write}
  // Returns a random fortune.
  Get() (fortune string | error) {Read}
  // Returns whether or not a fortune exists.
  Has(fortune string) (bool | error) {Read}
}
"""

Fortuned = Callable[..., str]


def test_identify(shell: Shell, fortuned: Fortuned) -> None:
    """Who a server says it is, what counts of that here, and its key."""
    address = fortuned()
    lines = shell.type(f"vanadium-node rpc identify /{address}").splitlines()
    assert lines[:2] == ["PRESENTED: root", "VALID: [root]"]
    assert re.fullmatch(f"PUBLICKEY: {FINGERPRINT}", lines[2])
    answer = json.loads(shell.type(f"vanadium-node rpc identify --json '/(root)@{address}'"))
    assert answer["presented"] == answer["valid"] == ["root"]
    assert answer["rejected"] == []


def test_a_server_that_is_not_trusted_is_refused_first(shell: Shell, fortuned: Fortuned) -> None:
    """The wrong name, or an unknown root: the client says which names it was shown, and shows nothing of itself."""
    address = fortuned()
    refusal = shell.refused(f"vanadium-node rpc identify '/(root:other)@{address}'")
    assert "it presented root" in refusal
    assert "root:other" in refusal
    shell.type("vanadium-node principal create --with-passphrase=false lonely lonely")
    refusal = shell.refused(f"V23_CREDENTIALS=lonely vanadium-node rpc identify /{address}")
    assert "rejected: root (its root" in refusal
    assert "--insecure" in refusal
    shown = shell.type(f"V23_CREDENTIALS=lonely vanadium-node rpc identify --insecure /{address}")
    assert shown.splitlines()[:2] == ["PRESENTED: root", "VALID: []"]


def test_signature(shell: Shell, fortuned: Fortuned) -> None:
    """The whole interface, one method of it, and what every server answers."""
    address = fortuned()
    assert shell.type(f"vanadium-node rpc signature /{address}") == FORTUNE
    one = shell.type(f"vanadium-node rpc signature /{address} Has")
    assert one == "// Returns whether or not a fortune exists.\nHas(fortune string) (bool | error) {Read}\n"
    everything = shell.type(f"vanadium-node rpc signature --show-reserved /{address}")
    assert "__identify()" in everything
    assert "Fortune interface" in everything
    assert "it has Add, Get, Has" in shell.refused(f"vanadium-node rpc signature /{address} Had")


def test_call(shell: Shell, fortuned: Fortuned) -> None:
    """Plain words and JSON as arguments, JSON as results; wrong ones name the argument and its type."""
    address = fortuned()
    shell.type(f"vanadium-node rpc call /{address} Add 'a bird in the hand'")
    shell.type(f"V23_CREDENTIALS=friend vanadium-node rpc call /{address} Add '\"two in the bush\"'")
    for fortune in ("a bird in the hand", "two in the bush"):
        assert shell.type(f"vanadium-node rpc call /{address} Has '{fortune}'") == "true\n"
    assert shell.type(f"vanadium-node rpc call /{address} Has 42") == "false\n"
    assert isinstance(json.loads(shell.type(f"vanadium-node rpc call /{address} Get")), str)
    assert "Has takes (fortune string)" in shell.refused(f"vanadium-node rpc call /{address} Has")
    assert "1 to 1000 characters" in shell.refused(f"vanadium-node rpc call /{address} Add ''")


def test_a_stranger_is_told_why(shell: Shell, fortuned: Fortuned) -> None:
    """The refusal has the name that was presented, and why it does not count."""
    refusal = shell.refused(f"V23_CREDENTIALS=stranger vanadium-node rpc call /{fortuned()} Get")
    assert "rejected: stranger (its root" in refusal
    assert "is not recognized" in refusal


def test_permissions(shell: Shell, fortuned: Fortuned) -> None:
    """Rights by tag, from a literal or a file."""
    permissions = '{"Read": {"In": ["root:friend"]}, "Debug": {"In": ["root"]}}'
    (shell.folder / "permissions").write_text(permissions)
    for flags in (["--v23.permissions.literal", permissions], ["--permissions", "permissions"]):
        address = fortuned(*flags)
        as_friend = f"V23_CREDENTIALS=friend vanadium-node rpc call /{address}"
        assert shell.type(f"{as_friend} Get")
        assert "none has the right Write" in shell.refused(f"{as_friend} Add x")
        assert "none has the right Read" in shell.refused(f"vanadium-node rpc call /{address} Get")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vanadium-node rpc identify 127.0.0.1:1", "is not the name of a server; a name is like"),
        ("vanadium-node rpc identify '/(a::b)@127.0.0.1:1'", "a::b"),
        (
            "vanadium-node rpc identify --timeout 0.2 /127.0.0.1:1 2>&1 | tail -n 1 >&2; exit 1",
            "nobody answers at 127.0.0.1:1",
        ),
        ("vanadium-node rpc identify /127.0.0.1:99999", "99999"),
        ("fortuned --listen nonsense", "nonsense"),
        ("fortuned --v23.permissions.literal '{'", "not JSON"),
        ("fortuned --permissions nowhere", "'nowhere'"),
        ("fortuned --credentials nowhere", "'nowhere'"),
    ],
)
def test_wrong_input(shell: Shell, line: str, expected: str) -> None:
    """One sentence that quotes what is wrong."""
    refusal = shell.refused(line)
    assert expected in refusal
    assert len(refusal.splitlines()) == 1


def test_a_server_that_was_just_started_is_waited_for(shell: Shell, fortuned: Fortuned) -> None:
    """Nobody answers yet: the tool says so once, tries again for a while, and goes on when the server is there."""
    with socket.create_server(("127.0.0.2", 0)) as unused:
        free = unused.getsockname()[1]
    line = f"(vanadium-node rpc identify /127.0.0.2:{free} && echo found) 2>&1"
    with subprocess.Popen(
        ["bash", "-c", line], cwd=shell.folder, env=shell.environment, stdout=subprocess.PIPE
    ) as tool:
        assert tool.stdout is not None
        assert b"trying for 5 s" in tool.stdout.readline()
        fortuned_again = fortuned("--listen", f"127.0.0.2:{free}", host="127.0.0.2")
        assert fortuned_again.endswith(f":{free}")
        assert b"found" in tool.stdout.read()


def test_a_server_that_waits_for_its_agent_can_be_stopped(shell: Shell) -> None:
    """SIGTERM ends it well while its agent says nothing: it may be a container's first process, that no default would end."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as agent:
        agent.bind(f"{folder}/agent.sock")
        agent.listen()
        environment = {**shell.environment, "V23_AGENT_PATH": f"{folder}/agent.sock"}
        program = str(Path(sysconfig.get_path("scripts")) / "fortuned")
        with subprocess.Popen([program, "--listen", "127.0.0.1:0"], env=environment, stdout=subprocess.PIPE) as process:
            with agent.accept()[0]:
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=20) == 0
            assert process.stdout is not None
            assert process.stdout.read() == b""


def test_an_agent_that_never_comes_is_named(shell: Shell) -> None:
    """The tool gives up after a while, and says which socket it waited for."""
    refusal = shell.refused("V23_AGENT_PATH=$PWD/agent.sock vanadium-node principal dump")
    assert "agent.sock" in refusal
    assert "is the agent running" in refusal
