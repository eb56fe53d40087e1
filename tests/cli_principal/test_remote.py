"""`recvblessings` and `bless --remote-…`, each in a process of its own, as between two machines."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from principal_tool import Tool

SECONDS = 30
VANADIUM_NODE = [sys.executable, "-m", "vanadium_node", "principal"]


@contextmanager
def receiving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `recvblessings` as bob."""
    environment = {**os.environ, "V23_CREDENTIALS": "bob"}
    with subprocess.Popen(
        [*VANADIUM_NODE, "recvblessings", "--listen=127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def printed(process: "subprocess.Popen[str]") -> list[str]:
    """Return the arguments of the command that the receiver prints."""
    assert process.stdout is not None
    words = shlex.split(process.stdout.readline())
    assert words[:3] == ["vanadium-node", "principal", "bless"]
    return words[2:-1]


def test_blessings_between_two_machines(tool: Tool) -> None:
    """The printed command blesses the receiver, who shows the blessings from then on and recognizes their root."""
    with receiving() as bob:
        said = tool(*printed(bob), "--for=1h", "phone")
        assert said == ""
        assert "alice:phone" in tool.talk
        _, talk = bob.communicate(timeout=SECONDS)
        assert bob.returncode == 0
        assert "Received blessings: alice:phone" in talk
    tool.become("bob")
    assert tool("dump", "-s") == "alice:phone\n"
    assert tool("get", "forpeer", "--names", "anybody") == "alice:phone\n"
    assert "[alice]" in tool("get", "recognizedroots")


def test_a_wrong_key_fails_on_the_sender_and_a_wrong_token_on_the_receiver(tool: Tool) -> None:
    """Neither ends the waiting, and nothing is kept of either."""
    with receiving("--set-default=false", "--for-peer=alice") as bob:
        command = printed(bob)
        wrong_key = [re.sub("remote-key=..", "remote-key=xx", word) for word in command]
        assert "key mismatch" in tool.refused(*wrong_key, "--for=1h", "phone")
        wrong_token = [re.sub("remote-token=.*", "remote-token=wrong", word) for word in command]
        assert "blessings received from unexpected sender" in tool.refused(*wrong_token, "--for=1h", "phone")
        assert bob.poll() is None
        tool(*command, "--for=1h", "phone")
        bob.communicate(timeout=SECONDS)
    tool.become("bob")
    assert tool("dump", "-s") == "bob\n"
    assert tool("get", "forpeer", "--names", "alice") == "bob\nalice:phone\n"


def test_arguments_in_a_file(tool: Tool, tmp_path: Path) -> None:
    """What is secret need not be in an argument list; the file is private."""
    with receiving("--remote-arg-file", "arguments") as bob:
        assert printed(bob) == ["bless", "--remote-arg-file", "arguments"]
        assert (tmp_path / "arguments").stat().st_mode & 0o777 == 0o600
        tool("bless", "--remote-arg-file", "arguments", "--for=1h", "phone")
        bob.communicate(timeout=SECONDS)
        assert bob.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--remote-key=aa", "/127.0.0.1:1", "x"], 2, "belong together"),
        (["--remote-token=aa", "/127.0.0.1:1", "x"], 2, "belong together"),
        (["--remote-key=aa", "--remote-token=aa", "x"], 2, "belong together"),
        (["--remote-arg-file=f", "bob", "x"], 2, "nothing else but EXTENSION"),
        (["--remote-arg-file=f", "x"], 1, "lack 'key', 'token' or 'name'"),
        (["--remote-arg-file=alice/private-key.pem", "x"], 1, "not JSON"),
        (["--remote-arg-file=nowhere", "x"], 1, "'nowhere'"),
        (["--remote-key=aa", "--remote-token=aa", "nowhere", "x"], 1, "'nowhere'"),
        (["--remote-key=aa", "--remote-token=aa", "/127.0.0.1:1", "x"], 1, "127.0.0.1:1"),
        (["x"], 2, "nobody to bless"),
    ],
)
def test_wrong_usage(tool: Tool, arguments: list[str], status: int, expected: str) -> None:
    """One sentence each."""
    Path("f").write_text("{}")
    said = tool.refused("bless", "--for=1h", *arguments, status=status)
    assert expected in said
    assert len(said.splitlines()) == 1
