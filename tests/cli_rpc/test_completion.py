"""Names of methods completed in shells: asked of real servers, as the shells' own scripts ask."""

import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from typing_shell import Shell

Fortuned = Callable[..., str]

BASH = """\
source <(vanadium-node completion bash) || exit 1
COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
_vanadium_node_completion vanadium-node
printf '%s\\n' "${COMPREPLY[@]}"
"""

EVIL = """\
import sys, trio
from vanadium_node.agent import open_principal
from vanadium_node.rpc import Call, Service, Tag, method, serve

class Evil(Service):
    @method(tag=Tag.READ, name="Good")
    async def good(self, call: Call) -> None:
        '''Looks\tgood \x1b[31m\u202e and goes on and on and on and on and on and on and on and on and on.'''

    @method(tag=Tag.READ, name="$(touch owned)")
    async def bad(self, call: Call) -> None:
        '''Is not.'''

    @method(tag=Tag.READ, name="a\\nplain,b")
    async def worse(self, call: Call) -> None:
        '''Is not.'''

async def main():
    async with open_principal() as principal, serve(Evil(), principal, listen=["127.0.0.1:0"]) as server:
        print(server.addresses[0], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def completed(shell: Shell, line: str) -> list[str]:
    """Return what bash offers after a line; nothing else may be written."""
    (shell.folder / "complete.bash").write_text(BASH)
    done = subprocess.run(
        ["bash", "complete.bash", line], cwd=shell.folder, env=shell.environment, capture_output=True, text=True, check=False,
        timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_methods_of_a_server(shell: Shell, fortuned: Fortuned) -> None:
    """For `call` and `signature`, with and without a pattern, quotes, options and the beginning of the name."""
    name = f"/{fortuned()}"
    assert completed(shell, f"vanadium-node rpc call {name} ") == ["Add", "Get", "Has"]
    assert completed(shell, f"vanadium-node rpc signature --show-reserved {name} G") == ["Get"]
    assert completed(shell, f"vanadium-node rpc call '/(root)@{name[1:]}' H") == ["Has"]
    assert completed(shell, f"vanadium-node rpc call {name} __") == ["__signature", "__identify"]
    assert completed(shell, f"vanadium-node rpc call {name} X") == []


def test_commands_and_options_as_before(shell: Shell) -> None:
    """The words before the last one may have colons."""
    assert completed(shell, "vanadium-node rp") == ["rpc"]
    assert completed(shell, "vanadium-node rpc call /h:1 --ins") == ["--insecure"]


@pytest.mark.parametrize(("name", "words"), [("zsh", "4"), ("fish", "")])
def test_other_shells_show_what_a_method_does(shell: Shell, fortuned: Fortuned, name: str, words: str) -> None:
    """Arguments and comment, as zsh and fish ask for them."""
    answer = shell.type(
        f"COMP_WORDS='vanadium-node rpc call /{fortuned()} ' COMP_CWORD={words} "
        f"_VANADIUM_NODE_COMPLETE={name}_complete vanadium-node"
    )
    assert "(fortune string) Adds a fortune to the set used by Get()." in answer
    assert [word for word in ("Add", "Get", "Has") if word in answer] == ["Add", "Get", "Has"]


@pytest.mark.parametrize("line", ["/127.0.0.1:1 ", "nonsense ", "/does-not-exist.invalid:1 ", ""])
def test_nobody_to_ask(shell: Shell, line: str) -> None:
    """No candidates and no word of it, soon."""
    began = time.monotonic()
    assert completed(shell, f"vanadium-node rpc call {line}") == []
    assert time.monotonic() - began < 20, "one and a half seconds, and the start of two processes on a busy machine"


def test_who_may_not_ask(shell: Shell, fortuned: Fortuned) -> None:
    """A server that is not trusted is shown nothing, and an encrypted key is no reason to ask for its passphrase."""
    address = fortuned()
    shell.type("vanadium-node principal create --with-passphrase=false lonely lonely")
    for who in ("lonely", "nowhere", ""):
        shell.environment["V23_CREDENTIALS"] = who
        assert completed(shell, f"vanadium-node rpc call /{address} ") == []
    shell.environment["V23_CREDENTIALS"] = "lonely"
    assert completed(shell, "vanadium-node nonsense call ") == []


def test_a_server_that_wants_to_write_on_the_terminal(shell: Shell) -> None:
    """Names that are none are left out, and what it says of the others is one line of plain text."""
    (shell.folder / "evil.py").write_text(EVIL)
    with subprocess.Popen(
        [sys.executable, "evil.py"], cwd=shell.folder, env=shell.environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            name = f"/{server.stdout.readline().strip()}"
            assert completed(shell, f"vanadium-node rpc call {name} ") == ["Good"]
            told = shell.type(
                f"COMP_WORDS='vanadium-node rpc call {name} ' COMP_CWORD=4 _VANADIUM_NODE_COMPLETE=zsh_complete vanadium-node"
            )
        finally:
            server.kill()
    kind, value, described = told.splitlines()
    assert (kind, value) == ("plain", "Good")
    assert described.startswith("() Looks good [31m")
    assert described.isprintable()
    assert len(described) == 80
    assert not (shell.folder / "owned").exists()
