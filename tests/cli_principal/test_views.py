"""Looking at principals and blessings: JSON for machines, trees for people, and why blessings count or not."""

import json
from pathlib import Path
from typing import Any

import pytest
from principal_tool import Tool

from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.storage.credentials import CredentialsDirectory


def parsed(text: str) -> Any:
    """Read JSON."""
    return json.loads(text)


def fingerprint(name: str) -> str:
    """Return the key of the principal in a directory."""
    return CredentialsDirectory(Path(name)).open().public_key.fingerprint


def test_dump_as_json(tool: Tool) -> None:
    """The facts of the plain lines, by name."""
    shown = parsed(tool("dump", "--json"))
    key = fingerprint("alice")
    assert shown["publicKey"] == key
    assert shown["default"]["names"] == ["alice"]
    assert shown["peers"] == {"...": ["alice"]}
    assert shown["roots"] == [{"publicKey": key, "patterns": ["alice"]}]
    tool("set", "default", "nil")
    assert parsed(tool("dump", "--json"))["default"] is None


def test_blessings_as_json(tool: Tool) -> None:
    """Chains, certificates and caveats; the blessings themselves can be read from it again."""
    Path("f").write_text(tool("bless", "--caveat", "expiry:2020-01-01T00:00:00Z", "bob", "friend"))
    shown = parsed(tool("dumpblessings", "--json", "f"))
    (chain,) = shown["chains"]
    assert (chain["name"], chain["rootKey"]) == ("alice:friend", fingerprint("alice"))
    assert (chain["expiry"], chain["expired"]) == ("2020-01-01T00:00:00+00:00", True)
    assert chain["certificates"][1] == {
        "extension": "friend",
        "publicKey": fingerprint("bob"),
        "caveats": [{"id": 1, "text": "Expires at 2020-01-01 00:00:00 UTC"}],
    }
    assert Blessings.parse(shown["blessings"]).names == ("alice:friend",)
    (root,) = parsed(tool("dumproots", "--json", "f"))
    assert (root["name"], root["publicKey"]) == ("alice", fingerprint("alice"))


def test_each_thing_as_json(tool: Tool) -> None:
    """Every inspecting command has a form for machines."""
    assert parsed(tool("get", "default", "--names", "--json")) == ["alice"]
    assert parsed(tool("get", "default", "--json"))["names"] == ["alice"]
    assert parsed(tool("get", "default", "--caveats", "alice", "--json")) == []
    assert parsed(tool("get", "forpeer", "--rootkey", "alice", "--json", "x")) == tool("get", "publickey").strip()
    assert parsed(tool("get", "publickey", "--json"))["fingerprint"] == fingerprint("alice")
    assert parsed(tool("get", "recognizedroots", "--json"))[0]["patterns"] == ["alice"]
    assert parsed(tool("get", "peermap", "--json")) == {"...": ["alice"]}


def test_trees_on_a_terminal(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same facts, richer; no name is taken for markup."""
    Path("f").write_text(tool("bless", "--caveat", "method:Get", "bob", "[red]friend"))
    monkeypatch.setattr("vanadium_node.cli.principal_views.is_terminal", lambda: True)
    shown = tool("dumpblessings", "f")
    assert "alice:[red]friend" in shown
    assert "└── Restricted to methods [Get]" in shown
    shown = tool("dump")
    assert f"principal {fingerprint('alice')}" in shown
    assert "as a server: alice" in shown
    assert "to ...: alice" in shown


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("read-only", "Restricted to methods tagged [Read Resolve]"),
        ("only-to:root:shop", "Restricted to peers with blessings [root:shop]"),
        ("one-method:Get", "Restricted to methods [Get]"),
        ("one-hour", "Expires at "),
    ],
)
def test_templates(tool: Tool, template: str, expected: str) -> None:
    """Caveats in the words of people, also together with others."""
    blessings = Blessings.parse(tool("bless", "--template", template, "--caveat=const:true", "bob", "friend"))
    caveats = blessings.chains[0].certificates[1].caveats
    assert str(caveats[1]).startswith(expected)
    assert caveats[0] == Caveat.unconstrained()
    assert "WARNING" not in tool.talk


@pytest.mark.parametrize("template", ["forever", "read-only:yes", "only-to", "only-to:", "one-method:", "only-to:a::b"])
def test_wrong_templates(tool: Tool, template: str) -> None:
    """The sentence names the word."""
    assert template.rpartition("to:")[2] in tool.refused("bless", "--template", template, "bob", "friend")


class TestExplain:
    """Why blessings would be accepted or not."""

    @pytest.fixture
    def file(self, tool: Tool) -> str:
        """Blessings with a caveat of each kind of verdict."""
        options = ["--caveat=expiry:2030-01-01T00:00:00Z", "--caveat=peer:alice", "--template=one-method:Get"]
        Path("f").write_text(tool("bless", *options, "bob", "friend"))
        return "f"

    def test_line_by_line(self, tool: Tool, file: str) -> None:
        """Each caveat with its reason; an expiry has the current time in the same line."""
        lines = tool("explain", "--at", "2029-12-31T22:30:00Z", "--method", "Get", file).splitlines()
        assert lines == [
            "It is 2029-12-31 22:30:00 UTC; judged by alice",
            "alice:friend: accepted",
            f"  root key {fingerprint('alice')}: recognized for alice",
            "  Certificate #0: alice with 0 caveats",
            "  Certificate #1: friend with 3 caveats",
            "    (0) Expires at 2030-01-01 00:00:00 UTC: holds; it is 2029-12-31 22:30:00 UTC, 1h 30m left",
            "    (1) Restricted to peers with blessings [alice]: holds for alice",
            "    (2) Restricted to methods [Get]: holds for Get",
        ]

    def test_what_is_not_known(self, tool: Tool, file: str) -> None:
        """Without a method nobody can tell; the line says how to ask."""
        said = tool("explain", file)
        assert "alice:friend: depends" in said
        assert "say which with --method" in said

    def test_what_does_not_hold(self, tool: Tool, file: str) -> None:
        """Each reason, not only the first."""
        arguments = ["--at", "2031-01-01T00:00:00Z", "--method", "Add", "--peer", "bob"]
        said = tool("explain", *arguments, file)
        assert "alice:friend: rejected" in said
        assert "expired at 2030-01-01 00:00:00 UTC; it is 2031-01-01 00:00:00 UTC" in said
        assert "restricted to methods [Get]" in said
        assert "restricted to peers with blessings [alice]" in said
        shown = parsed(tool("explain", "--json", *arguments, file))
        assert shown["chains"][0]["verdict"] == "rejected"
        caveats = shown["chains"][0]["certificates"][1]["caveats"]
        assert [caveat["verdict"] for caveat in caveats] == ["rejected"] * 3

    def test_an_unknown_root(self, tool: Tool, file: str) -> None:
        """Nothing helps when the root is not recognized."""
        tool.become("bob")
        said = tool("explain", "--method=Get", "--peer=alice", file)
        assert "alice:friend: rejected" in said
        assert "not recognized; 'principal recognize' would add it" in said

    def test_other_caveats(self, tool: Tool) -> None:
        """Addresses, tags, an empty list, times that are still to come."""
        words = ["--caveat=address:10.0.0.0/8", "--template=read-only", "--caveat=not-before:2020-01-01T00:00:00Z"]
        Path("g").write_text(tool("bless", *words, "bob", "friend"))
        said = tool("explain", "--address=10.1.2.3", "--tag=Read", "g")
        assert "alice:friend: accepted" in said
        assert "holds for 10.1.2.3" in said
        assert "holds for Read" in said
        said = tool("explain", "--at", "2019-12-31T00:00:00Z", "g")
        assert "say which with --address" in said
        assert "say which with --tag" in said
        assert "not valid before 2020-01-01 00:00:00 UTC; it is 2019-12-31 00:00:00 UTC" in said
