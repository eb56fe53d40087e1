"""What is fuzzed: each target takes bytes as a peer could send them, and raises only where the code is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from vanadium_node.errors import NotTrustedError, ProtocolError
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import ConnectionState, Event, Failed
from vanadium_node.wire.frames import Auth, Request, decode_frame, encode_frame
from vanadium_node.wire.handshake import HandshakeState, Role, verify_auth
from vanadium_node.wire.limits import Limits
from vanadium_node.wire.plain import decode_plain
from vanadium_node.wire.splitter import FrameSplitter

SESSION: Final = Path(__file__).parents[1] / "vectors" / "session.txt"
BINDING: Final = bytes(range(32))
MAX_FRAME_BYTES: Final = 4096
LIMITS: Final = Limits(
    max_streams=4, max_frame_bytes=MAX_FRAME_BYTES, max_auth_bytes=MAX_FRAME_BYTES, max_pings=1 << 30
)
MAX_ANSWER_RATIO: Final = 40
"""Bytes that a machine wants to send for each that it received, before any method has run."""


@cache
def golden_frames() -> tuple[bytes, ...]:
    """Return the frames of the golden session: where the search begins."""
    blocks = SESSION.read_text(encoding="utf-8").split("\n== ")[1:]
    return tuple(b"".join(bytes.fromhex(line.partition("#")[0]) for line in block.splitlines()[1:]) for block in blocks)


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut all but the first byte into pieces, whose sizes it chooses."""
    seed = data[0] if data else 0
    at = 1
    while at < len(data):
        size = 1 + (seed * (at + 7) >> 3) % 61
        yield data[at : at + size]
        at += size


def frames(data: bytes) -> None:
    """Cut bytes into frames and decode them: the same however they come, in one form only, by hand as in general."""
    whole = _contents([data[1:]])
    assert _contents(pieces(data)) == whole
    for content in whole[0]:
        try:
            frame = decode_frame(content)
        except ProtocolError:
            assert decode_plain(content) is decode_plain(memoryview(content)) is None, (
                "read by hand, and refused in general"
            )
            continue
        for form in (content, memoryview(content)):
            by_hand = decode_plain(form)
            assert by_hand is None or repr(by_hand) == repr(frame)
        if frame is not None:
            assert encode_frame(frame).endswith(content), "two encodings of one frame"


def _contents(parts: Iterator[bytes] | list[bytes]) -> tuple[list[bytes], str, bool]:
    """Return the contents of frames, the fault, if any, and whether nothing is left over."""
    splitter, found = FrameSplitter(MAX_FRAME_BYTES), list[bytes]()
    try:
        for part in parts:
            found.extend(bytes(each) for each in splitter.split(part))
    except ProtocolError as error:
        return found, error.message, True
    return found, "", splitter.is_clean


def handshake(data: bytes) -> None:
    """Verify an `auth` frame: what was not signed for this channel and role is refused, and by the errors declared."""
    for content in _contents([data[1:]])[0]:
        with suppress(ProtocolError):
            auth = decode_frame(content)
            if isinstance(auth, Auth):
                _verify(auth, content)


def _verify(auth: Auth, content: bytes) -> None:
    for role, golden in zip((Role.SERVER, Role.CLIENT), golden_frames(), strict=False):
        try:
            verify_auth(auth, role, BINDING)
        except (ProtocolError, NotTrustedError):
            continue
        assert golden.endswith(content), f"a forged {role} was believed"


def connection(data: bytes) -> None:
    """Feed a connection: events or one fault and then silence, the same however the bytes come, and bounded answers."""
    for role in Role:
        for authenticates in (False, True):
            at_once = _fed(role, [data[1:]], authenticates=authenticates)
            in_pieces = _fed(role, pieces(data), authenticates=authenticates)
            assert repr(at_once) == repr(in_pieces)


def _fed(role: Role, parts: Iterator[bytes] | list[bytes], *, authenticates: bool) -> tuple[list[Event], bytes]:
    """Return what a connection reports and answers."""
    end = Connection(role, LIMITS, authenticates=authenticates)
    if authenticates and role is Role.SERVER:
        end.send_auth(Auth(0, [1], b"", None, [], b""))
    elif not authenticates:
        end.send_request("Get", "", [], has_items=True)
        end.send_request("Get", "", [])
    end.take_outgoing()
    events: list[Event] = []
    received = 0
    for part in parts:
        was_failed = end.state is ConnectionState.FAILED
        happened = end.receive(part)
        received += len(part)
        assert not (was_failed and happened), "something was heard after a fault"
        events += happened
        assert len(end.incoming) <= LIMITS.max_streams
        assert end.outgoing_bytes <= 200 + MAX_ANSWER_RATIO * received
    faults = [each for each in events if isinstance(each, Failed)]
    assert len(faults) == (end.state is ConnectionState.FAILED)
    assert not faults or events[-1] is faults[0]
    if authenticates and end.handshake is not HandshakeState.OPEN:
        assert not [each for each in events if isinstance(each, Request)], "a stranger made a call"
    return events, end.take_outgoing()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "frames": frames,
    "handshake": handshake,
    "connection": connection,
}
