"""What one round of the server's work sends: much of it leaves before the round is over, so that the peer need not wait."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from vanadium_node.rpc import Call, Service, method, serve
from vanadium_node.security.authorization import everyone
from vanadium_node.wire.frames import Item, Request, Response, decode_frame, encode_frame
from vanadium_node.wire.splitter import FrameSplitter

CALLS = 200
ITEM_BYTES = 1 << 16


class Watching(Service):
    """Watching tells whether something has reached its caller."""

    def __init__(self, caller: socket.socket) -> None:
        self._caller = caller

    def _has_something(self) -> bool:
        try:
            return bool(self._caller.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    @method()
    def look(self, call: Call) -> bool:
        """Returns whether an answer is there already."""
        return self._has_something()

    @method()
    async def items(self, call: Call) -> AsyncIterator[bytes]:
        """Streams four items without a pause, the last of which tells whether something is there already."""
        for _ in range(3):
            yield bytes(ITEM_BYTES)
        yield b"%d" % self._has_something()


async def frames_of(path: Path, requests: list[Request], count: int) -> list[object]:
    """Send requests all at once, and return so many frames."""
    caller = socket.socket(socket.AF_UNIX)
    with caller:
        async with serve(Watching(caller), None, listen=[f"unix:{path}"], authorizer=everyone):
            caller.setblocking(False)
            caller.connect(str(path))
            caller.send(b"".join(map(encode_frame, requests)))
            splitter, found = FrameSplitter(1 << 20), list[object]()
            while len(found) < count:
                await trio.lowlevel.wait_readable(caller)
                found += map(decode_frame, splitter.split(caller.recv(1 << 20)))
    return found


def request(number: int, name: str) -> Request:
    """Return a call without arguments."""
    return Request(2 * number + 1, name, "", [], None, False, None, [], "")


async def test_the_first_answers_leave_before_the_last_calls_are_run(tmp_path: Path) -> None:
    """Calls that came together are not answered all at once."""
    found = await frames_of(tmp_path / "sock", [request(number, "Look") for number in range(CALLS)], CALLS)
    answers = [each.result for each in found if isinstance(each, Response)]
    assert len(answers) == CALLS
    assert answers[0] is False
    assert answers[-1] is True


async def test_the_first_items_leave_before_the_last_is_made(tmp_path: Path) -> None:
    """A method that yields without waiting does not fill a window first."""
    found = await frames_of(tmp_path / "sock", [request(0, "Items")], 5)
    items = [each.value for each in found if isinstance(each, Item)]
    assert items[-1] == b"1"
