"""The `principal` tool as a user types it: exact output when piped, one sentence when something is wrong."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from principal_tool import Tool

from vanadium_node.cli.principal import command
from vanadium_node.security.blessing import Blessings
from vanadium_node.storage.credentials import CredentialsDirectory

FINGERPRINT = r"([0-9a-f]{2}:){15}[0-9a-f]{2}"


def test_dump(tool: Tool) -> None:
    """Byte for byte as it is documented."""
    lines = tool("dump").splitlines()
    key = CredentialsDirectory(Path("alice")).open().public_key.fingerprint
    assert lines == [
        f"Public key : {key}",
        "Default Blessings : alice",
        "---------------- BlessingStore ----------------",
        "Default Blessings                alice",
        "Peer pattern                     Blessings",
        "...                              alice",
        "---------------- BlessingRoots ----------------",
        "Public key                                        Pattern",
        f"{key}   [alice]",
    ]
    assert tool("dump", "-s") == "alice\n"


def test_dumpblessings(tool: Tool) -> None:
    """Two chains of one key, as documented."""
    tool.become("bob")
    Path("own").write_text(tool("get", "default"))
    tool.become("alice")
    Path("friend").write_text(tool("bless", "--caveat", "expiry:2026-11-23T10:00:00Z", "bob", "friend"))
    Path("both").write_text(tool("union", "own", "friend"))
    alice = CredentialsDirectory(Path("alice")).open().public_key.fingerprint
    bob = CredentialsDirectory(Path("bob")).open().public_key.fingerprint
    assert tool("dumpblessings", "both").splitlines() == [
        "Blessings          : bob,alice:friend",
        f"PublicKey          : {bob}",
        "Certificate chains : 2",
        f"Chain #0 (1 certificates). Root certificate public key: {bob}",
        "  Certificate #0: bob with 0 caveats",
        f"Chain #1 (2 certificates). Root certificate public key: {alice}",
        "  Certificate #0: alice with 0 caveats",
        "  Certificate #1: friend with 1 caveat",
        "    (0) Expires at 2026-11-23 10:00:00 UTC",
    ]


def test_blessing_without_a_caveat_is_asked_about(tool: Tool) -> None:
    """A warning and a question; only yes goes on."""
    assert "nothing was blessed" in tool.refused("bless", "bob", "friend", stdin="no\n")
    assert "nothing was blessed" in tool.refused("bless", "bob", "friend", stdin="")
    for answer in ("yes", "YES"):
        blessings = Blessings.parse(tool("bless", "bob", "friend", stdin=f"{answer}\n"))
        assert blessings.names == ("alice:friend",)
        assert "WARNING: No caveats provided" in tool.talk
    assert Blessings.parse(tool("bless", "--require-caveats=false", "bob", "friend")).names == ("alice:friend",)
    assert "WARNING" not in tool.talk


def test_whom_to_bless(tool: Tool) -> None:
    """A directory, a file with a key or blessings, or standard input."""
    tool.become("bob")
    key, own = tool("get", "publickey"), tool("get", "default")
    tool.become("alice")
    Path("key").write_text(key)
    for who, stdin in (("bob", ""), ("key", ""), ("-", own), ("-", key)):
        blessed = Blessings.parse(tool("bless", "--for", "1h", who, "friend", stdin=stdin))
        assert blessed.public_key.text == key.strip()
    assert "neither a public key nor blessings" in tool.refused("bless", "--for=1h", "-", "x", stdin="noise")


def test_expired_names_are_marked(tool: Tool) -> None:
    """`dump -s` says which names no longer count."""
    Path("old").write_text(tool("bless", "--caveat", "expiry:2020-01-01T00:00:00Z", "bob", "friend"))
    tool.become("bob")
    tool("set", "default", "old")
    assert tool("dump", "-s") == "alice:friend [EXPIRED]\n"


def test_fork(tool: Tool) -> None:
    """A new principal, blessed by the current one, trusting what it trusts."""
    tool("fork", "--with-passphrase=false", "--for", "24h", "phone", "phone")
    tool.become("phone")
    lines = tool("dump").splitlines()
    assert lines[1] == "Default Blessings : alice:phone"
    assert any(line.endswith("[alice]") for line in lines)
    assert "child" not in "".join(lines)


def test_set_and_get(tool: Tool) -> None:
    """Default and peers can be chosen, looked at, and removed with nil."""
    Path("friend").write_text(tool("bless", "--caveat=method:Get", "bob", "friend"))
    assert "not to this principal's" in tool.refused("set", "default", "friend")
    tool.become("bob")
    tool("set", "forpeer", "friend", "alice")
    assert tool("get", "forpeer", "--names", "alice:server") == "bob\nalice:friend\n"
    assert tool("get", "forpeer", "--names", "other") == "bob\n"
    assert tool("get", "forpeer", "--caveats", "alice:friend", "alice") == "Restricted to methods [Get]\n"
    assert len(tool("get", "recognizedroots").splitlines()) == 3
    assert "alice                            alice:friend" in tool("get", "peermap")
    tool("set", "forpeer", "nil", "alice")
    assert tool("get", "forpeer", "--names", "alice:server") == "bob\n"
    tool("set", "default", "nil")
    assert "no such blessings" in tool.refused("get", "default")
    assert re.fullmatch(FINGERPRINT + "\n", tool("get", "publickey", "--pretty"))


def test_roots_are_recognized(tool: Tool) -> None:
    """By pattern and key, or by blessings; what dumproots prints is what others must recognize."""
    tool.become("bob")
    key = tool("get", "publickey").strip()
    Path("roots").write_text(tool("dumproots", "-", stdin=tool("get", "default")))
    tool.become("alice")
    tool("recognize", "bob:work", key)
    assert "[bob:work]" in tool("get", "recognizedroots")
    tool("recognize", "roots")
    assert "[bob bob:work]" in tool("get", "recognizedroots")
    assert "cannot be the pattern of a root" in tool.refused("recognize", "...", key)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["bless", "--caveat=expire:never", "bob", "x"], "'expire:never' is not a caveat; write one of"),
        (["bless", "--for=soon", "bob", "x"], "'soon' is not a duration"),
        (["bless", "--for=0", "bob", "x"], "longer than none"),
        (["bless", "--for=1h", "nobody", "x"], "'nobody'"),
        (["bless", "--for=1h", "bob", "a/b"], "'a/b'"),
        (["dumpblessings", "nowhere"], "'nowhere'"),
        (["dumpblessings", "alice"], "'alice'"),
        (["set", "forpeer", "nil", "a:$:b"], "'a:$:b' is not a pattern"),
        (["create", "--with-passphrase=false", "alice", "again"], "holds a principal already"),
        (["union", "nowhere"], "'nowhere'"),
    ],
)
def test_wrong_input(tool: Tool, arguments: list[str], expected: str) -> None:
    """One sentence that names the thing."""
    said = tool.refused(*arguments)
    assert expected in said
    assert len(said.splitlines()) == 1


def test_no_principal_at_all(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names both variables and how to make a principal."""
    monkeypatch.delenv("V23_CREDENTIALS")
    said = tool.refused("dump")
    assert "V23_AGENT_PATH" in said
    assert "principal create" in said


def test_every_command_documents_itself() -> None:
    """Help for each."""
    for name in command.list_commands(None):  # type: ignore[arg-type]
        result = CliRunner().invoke(command, [name, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.output
