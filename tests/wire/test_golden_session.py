"""The golden session: what the machines write, byte for byte, and what they read from it, however it is cut."""

from pathlib import Path

import pytest
import trio
from make_session import session
from session_script import BINDING, Step, script

from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import ConnectionState, Event, ReceivedItem, Refused
from vanadium_node.wire.frames import Auth, Item, decode_frame, encode_frame
from vanadium_node.wire.handshake import Role, verify_auth
from vanadium_node.wire.splitter import FrameSplitter

GOLDEN = Path(__file__).parents[1] / "vectors" / "session.txt"


def golden() -> list[tuple[str, bytes]]:
    """Return the frames of the file with their titles, and nothing that is not in its lines."""
    frames: list[tuple[str, bytes]] = []
    for block in GOLDEN.read_text(encoding="utf-8").split("\n== ")[1:]:
        title, *lines = block.splitlines()
        explained = [line.partition("#") for line in lines if line]
        assert all(meaning.strip() for _, _, meaning in explained), title
        frames.append((title, b"".join(bytes.fromhex(digits) for digits, _, _ in explained)))
    return frames


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    """What happens."""
    return trio.run(script)


def received(end: Connection, frame: bytes, size: int) -> list[Event]:
    """Return what a frame means to an end, when so many bytes come at a time."""
    return [event for start in range(0, len(frame), size) for event in end.receive(frame[start : start + size])]


def test_the_file_is_what_the_machines_write() -> None:
    """Encoding has not changed: the same wishes give the same bytes, and the same explanations."""
    assert session() == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [1, 5, 1 << 16], ids=["byte by byte", "in fives", "at once"])
def test_the_file_is_read_as_it_is_meant(steps: list[Step], size: int) -> None:
    """Decoding has not changed: each frame makes the other end report it, or drop it where the step says so."""
    ends = {role: Connection(role) for role in Role}
    frames = [frame for _, frame in golden()]
    assert len(frames) == len(steps)

    def deliver(at: int) -> None:
        step, frame = steps[at], frames[at]
        (content,) = FrameSplitter(1 << 20).split(frame)
        meant = decode_frame(content)
        events = received(ends[step.role.other], frame, size)
        if step.is_dropped:
            assert not events or isinstance(events[0], Refused), step.title
            return
        (event,) = events
        if isinstance(event, ReceivedItem):
            assert isinstance(meant, Item)
            assert (event.stream, event.value, event.size) == (meant.stream, meant.value, len(content))
        else:
            assert event == meant

    for at, step in enumerate(steps):
        if at and not step.crosses:
            deliver(at - 1)
        step.wish(ends[step.role])
        assert ends[step.role].take_outgoing() == frames[at], step.title
        if step.crosses:
            deliver(at - 1)
    deliver(len(steps) - 1)
    for end in ends.values():
        assert end.state is ConnectionState.DRAINING
        assert not end.own
        assert not end.incoming


def test_every_frame_is_encoded_as_it_was_decoded() -> None:
    """No other bytes stand for what a frame says."""
    for title, frame in golden():
        (content,) = FrameSplitter(1 << 20).split(frame)
        decoded = decode_frame(content)
        assert decoded is None if "ignored" in title else decoded is not None and encode_frame(decoded) == frame


@pytest.mark.parametrize(
    ("at", "role", "names"), [(0, Role.SERVER, ("root",)), (1, Role.CLIENT, ("root:shop",))], ids=["server", "client"]
)
def test_both_ends_prove_who_they_are(at: int, role: Role, names: tuple[str, ...]) -> None:
    """The signatures of the file hold for its channel and roles, and for no others."""
    (content,) = FrameSplitter(1 << 20).split(golden()[at][1])
    auth = decode_frame(content)
    assert isinstance(auth, Auth)
    blessings = verify_auth(auth, role, BINDING).blessings
    assert blessings is not None
    assert blessings.names == names
