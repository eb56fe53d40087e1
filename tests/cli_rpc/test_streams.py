"""`rpc call` of methods that stream: lines of JSON in and out, each as it comes, real processes throughout."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_shell import Shell

SERVER = """\
from collections.abc import AsyncIterator
import trio
from rpc_parties import Playground
from vanadium_node.agent import open_principal
from vanadium_node.rpc import Call, Tag, method, serve

class Streams(Playground):
    @method(tag=Tag.READ)
    async def named(self, call: Call) -> AsyncIterator[dict[str, int]]:
        for number in range(3):
            yield {"n": number}

    @method(tag=Tag.READ)
    async def first(self, call: Call, items: AsyncIterator[str]) -> str:
        return await anext(items)

async def main():
    async with open_principal() as principal, serve(Streams(), principal, listen=["127.0.0.1:0"]) as server:
        print(server.addresses[0], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def call(shell: Shell) -> Iterator[str]:
    """How a command line that calls the server begins."""
    (shell.folder / "server.py").write_text(SERVER)
    with subprocess.Popen(
        [sys.executable, "server.py"],
        cwd=shell.folder,
        env=shell.environment | {"PYTHONPATH": str(SUPPORT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield f"vanadium-node rpc call /{server.stdout.readline().strip()}"
        server.kill()


def test_lines_in_and_out(shell: Shell, call: str) -> None:
    """From pipes, files and nowhere; the last line needs no end, and empty ones are none."""
    assert shell.type(f"{call} Named") == '{"n": 0}\n{"n": 1}\n{"n": 2}\n'
    assert shell.type(f"seq 1 1000 | {call} Double").splitlines() == [str(2 * number) for number in range(1, 1001)]
    assert shell.type(f"printf '1\\n\\n2\\n3' | {call} Total") == "6\n"
    (shell.folder / "numbers").write_text("4\n5\n")
    assert shell.type(f"{call} Total <numbers") == "9\n"
    assert shell.type(f"{call} Total </dev/null") == "0\n"


def test_a_line_that_is_no_item(shell: Shell, call: str) -> None:
    """Its number, what it is, and what would be right."""
    refusal = shell.refused(f"printf '1\\nmany\\n' | {call} Total")
    assert "line 2, an item for Total, is 'many', which is not int64" in refusal
    assert len(refusal.splitlines()) == 1
    assert "longer than" in shell.refused(f"head -c 5000000 /dev/zero | {call} Total")


def test_a_conversation(shell: Shell, call: str) -> None:
    """Each item is answered before the next is written; a method that has enough is not waited for; Ctrl-C ends with 130."""
    with subprocess.Popen(
        ["bash", "-c", f"exec {call} Double"],
        cwd=shell.folder, env=shell.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as tool:  # fmt: skip
        assert tool.stdin is not None
        assert tool.stdout is not None
        for number in range(3):
            tool.stdin.write(f"{number}\n")
            tool.stdin.flush()
            assert json.loads(tool.stdout.readline()) == 2 * number
        tool.send_signal(signal.SIGINT)
        assert tool.wait(timeout=60) == 130
    assert (
        shell.type(f"(echo enough; sleep 1000 & echo $! >sleeping; wait) | {{ {call} First; kill $(cat sleeping); }}")
        == '"enough"\n'
    )
