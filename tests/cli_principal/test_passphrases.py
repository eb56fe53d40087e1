"""Passphrases, as typed at a terminal."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_parties import clean_environment, run_module, short_directory
from terminal import CTRL_C, on_terminal

SECRET = "correct horse battery"


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short name, for the agents' sockets; agents that were started in it end with it."""
    with short_directory() as folder:
        yield folder


def create(folder: Path, *passphrases: str) -> str:
    """Create the principal alice, typing passphrases, and return what was shown."""
    with on_terminal(folder, clean_environment(), "principal", "create", "alice", "alice") as terminal:
        for number, passphrase in enumerate(passphrases):
            terminal.expect("The same again: " if number % 2 else "Enter passphrase")
            terminal.type(passphrase + "\n")
        assert terminal.end() == 0, terminal.shown
        return terminal.shown


def test_a_passphrase_is_asked_for_twice_and_never_shown(folder: Path) -> None:
    """The key is encrypted with it; a typing mistake is noticed, and both are asked for again."""
    shown = create(folder, SECRET, "something else", SECRET, SECRET)
    assert "The two are not the same." in shown
    assert SECRET not in shown
    assert "something else" not in shown
    assert b"ENCRYPTED PRIVATE KEY" in (folder / "alice" / "private-key.pem").read_bytes()


def test_no_passphrase_is_warned_about(folder: Path) -> None:
    """An empty one leaves the key as it is."""
    assert "WARNING: the private key is stored unencrypted" in create(folder, "")
    assert b"ENCRYPTED" not in (folder / "alice" / "private-key.pem").read_bytes()


def test_nobody_is_asked_in_vain(folder: Path) -> None:
    """A directory that is taken is refused before the prompt, on a terminal as without one."""
    create(folder, SECRET, SECRET)
    before = (folder / "alice" / "private-key.pem").read_bytes()
    with on_terminal(folder, clean_environment(), "principal", "create", "alice", "again") as terminal:
        assert terminal.end() != 0
        assert "holds a principal already" in terminal.shown
        assert "passphrase" not in terminal.shown
    for arguments in (["create", "alice", "again"], ["fork", "alice", "again"]):
        done = run_module(folder, ["principal", *arguments], clean_environment())
        assert "holds a principal already" in done.stderr
    assert (folder / "alice" / "private-key.pem").read_bytes() == before


@pytest.mark.parametrize("answered", [[], [SECRET]])
def test_ctrl_c_at_a_prompt_leaves_nothing(folder: Path, answered: list[str]) -> None:
    """At the first prompt as at the second one: exit status 130, one word, no directory."""
    with on_terminal(folder, clean_environment(), "principal", "create", "alice", "alice") as terminal:
        terminal.expect("Enter passphrase")
        for passphrase in answered:
            terminal.type(passphrase + "\n")
            terminal.expect("The same again: ")
        terminal.type(CTRL_C)
        assert terminal.end() == 130, terminal.shown
    assert "vanadium-node: interrupted" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert list(folder.iterdir()) == []


def test_the_end_of_the_input_at_a_prompt_leaves_nothing(folder: Path) -> None:
    """Ctrl-D is no passphrase."""
    with on_terminal(folder, clean_environment(), "principal", "create", "alice", "alice") as terminal:
        terminal.expect("Enter passphrase")
        terminal.type("\x04")
        assert terminal.end() == 130, terminal.shown
    assert "Traceback" not in terminal.shown
    assert list(folder.iterdir()) == []


def test_ctrl_c_when_asked_to_bless_without_caveats(folder: Path) -> None:
    """It is no answer, and nothing is blessed."""
    environment = clean_environment(V23_CREDENTIALS="alice")
    create(folder, "")
    with on_terminal(folder, environment, "principal", "bless", "alice", "friend") as terminal:
        terminal.expect("Type yes to do so:")
        terminal.type(CTRL_C)
        assert terminal.end() == 130, terminal.shown
    assert "Traceback" not in terminal.shown


def test_a_wrong_passphrase(folder: Path) -> None:
    """One sentence, which does not repeat it, and no agent is left running."""
    create(folder, SECRET, SECRET)
    environment = clean_environment(V23_CREDENTIALS="alice")
    with on_terminal(folder, environment, "principal", "dump") as terminal:
        terminal.expect("Passphrase")
        terminal.type("wrong\n")
        assert terminal.end() == 1, terminal.shown
    assert "the private key cannot be read; is the passphrase right?" in terminal.shown
    assert "wrong" not in terminal.shown
    assert run_module(folder, ["agent", "status"], environment).returncode == 1


def test_ctrl_c_when_the_key_is_to_be_opened(folder: Path) -> None:
    """The same as at a new passphrase."""
    create(folder, SECRET, SECRET)
    with on_terminal(folder, clean_environment(V23_CREDENTIALS="alice"), "principal", "dump") as terminal:
        terminal.expect("Passphrase")
        terminal.type(CTRL_C)
        assert terminal.end() == 130, terminal.shown


def test_without_a_terminal_nobody_is_asked(folder: Path) -> None:
    """The sentence says what to do instead."""
    create(folder, SECRET, SECRET)
    done = run_module(folder, ["principal", "dump"], clean_environment(V23_CREDENTIALS="alice"))
    assert done.returncode == 1
    assert "there is no terminal to ask for its passphrase" in done.stderr
    assert "vanadium-node agent start" in done.stderr
