"""Frames read and written by hand are what the general way reads and writes, to the byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node import cbor
from vanadium_node.errors import InputError, ProtocolError
from vanadium_node.wire.frames import LARGE_BYTES, Item, Request, Response, decode_frame, encode_frame
from vanadium_node.wire.plain import decode_plain, encode_bytes_item, encode_bytes_response, encode_plain_request
from vanadium_node.wire.splitter import FrameSplitter

NUMBERS = st.one_of(st.integers(0, 300), st.integers(0, (1 << 53) - 1))
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(0, (1 << 64) - 1), st.text(max_size=300), st.binary(max_size=300)
)
ANY = st.one_of(PLAIN, st.integers(-9, -1), st.floats(allow_nan=False), st.lists(PLAIN, max_size=3))
FRAMES = st.one_of(
    st.builds(Response, NUMBERS, ANY, st.none()),
    st.builds(Item, NUMBERS, ANY),
    st.builds(
        Request,
        NUMBERS,
        st.text(max_size=30),
        st.text(max_size=30),
        st.lists(ANY, max_size=26),
        st.one_of(st.none(), NUMBERS),
        st.booleans(),
        st.one_of(st.none(), st.just(b"granted")),
        st.lists(st.just(b"discharge"), max_size=1),
        st.sampled_from(["", "trace"]),
    ),
)
PLAIN_FRAMES = st.one_of(
    st.builds(Response, NUMBERS, PLAIN, st.none()),
    st.builds(Item, NUMBERS, PLAIN),
    st.builds(
        lambda stream, method, arguments, deadline: Request(
            stream, method, "", arguments, deadline, False, None, [], ""
        ),
        NUMBERS,
        st.text(max_size=30),
        st.lists(PLAIN, max_size=23),
        st.one_of(st.none(), NUMBERS),
    ),
)


def content_of(frame: Request | Response | Item) -> bytes:
    """Return what a frame's byte string holds."""
    (content,) = FrameSplitter(1 << 20).split(encode_frame(frame))
    return bytes(content)


def generally(content: bytes) -> object:
    """Return what the general way makes of a frame's content; None where it refuses or ignores it."""
    try:
        return decode_frame(content)
    except ProtocolError:
        return None


@given(PLAIN_FRAMES)
def test_plain_frames_are_read_by_hand(frame: Request | Response | Item) -> None:
    """What is plain needs no second look."""
    assert decode_plain(content_of(frame)) == frame


@given(FRAMES, st.data())
def test_what_is_read_by_hand_is_what_the_general_way_reads(
    frame: Request | Response | Item, data: st.DataObject
) -> None:
    """Whole, cut, lengthened or with other bytes in it: never another frame, and none that the general way refuses."""
    content = bytearray(content_of(frame))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=3)):
        content[at] = byte
    cut = data.draw(st.integers(0, 3))
    changed = bytes(content[: len(content) - cut] if cut else content) + data.draw(
        st.sampled_from([b"", b"\x00", b"\xf6"])
    )
    for form in (changed, memoryview(changed)):
        by_hand = decode_plain(form)
        if by_hand is not None:
            assert by_hand == generally(changed)
            assert list(map(type, by_hand)) == list(map(type, decode_frame(changed) or ()))


@given(st.sampled_from([Item, Response]), NUMBERS, st.integers(0, 70_000), st.data())
def test_large_frames_are_read_as_the_general_way_reads_them(
    kind: type[Item] | type[Response], stream: int, size: int, data: st.DataObject
) -> None:
    """Their heads and ends may be anything, as those of small ones."""
    frame = Item(stream, bytes(size)) if kind is Item else Response(stream, bytes(size), None)
    content = bytearray(content_of(frame))
    assert size < LARGE_BYTES or decode_plain(memoryview(content)) == frame
    for at, byte in data.draw(st.lists(st.tuples(st.integers(-2, 12), st.integers(0, 255)), max_size=2)):
        if at < len(content):
            content[at] = byte
    changed = bytes(content) + data.draw(st.sampled_from([b"", b"\x00", b"\xf6"]))
    by_hand = decode_plain(memoryview(changed))
    assert by_hand is None or by_hand == generally(changed)


@pytest.mark.parametrize(
    "value",
    [
        b"\x18\x17",
        b"\x19\x00\xff",
        b"\x58\x17" + bytes(23),
        b"\x78\x01a",
        b"\x1a\x00\x00\xff\xff",
        b"\x61\xff",
        b"\x5f\xff",
    ],
)
def test_a_value_in_a_longer_form_than_it_needs_goes_the_general_way_and_is_refused(value: bytes) -> None:
    """Each value has one encoding, however it is read."""
    for content in (b"\x83\x03\x01" + value, b"\x84\x02\x01" + value + b"\xf6"):
        assert decode_plain(content) is None
        with pytest.raises(ProtocolError):
            decode_frame(content)


@given(NUMBERS, st.binary(max_size=70_000))
def test_bytes_are_written_by_hand_as_by_the_general_way(stream: int, value: bytes) -> None:
    """The answer and the item that are a byte string have one encoding."""
    assert b"".join(encode_bytes_response(stream, value)) == encode_frame(Response(stream, value, None))
    assert b"".join(encode_bytes_item(stream, value)) == encode_frame(Item(stream, value))
    assert cbor.decode_frame(content_of(Item(stream, value)), max_bytes=80_000) == [3, stream, value]


@given(NUMBERS, st.text(max_size=30), st.text(max_size=30), st.lists(ANY, max_size=26), st.one_of(st.none(), NUMBERS))
def test_requests_are_written_by_hand_as_by_the_general_way(
    stream: int, method: str, suffix: str, arguments: list[object], deadline: int | None
) -> None:
    """A request of plain arguments has one encoding; any other is left to the general way."""
    by_hand = encode_plain_request(stream, method, suffix, arguments, deadline)
    if by_hand is not None:
        assert by_hand == encode_frame(Request(stream, method, suffix, arguments, deadline, False, None, [], ""))
    else:
        assert len(arguments) >= 24 or any(decode_plain(content_of(Item(1, each))) is None for each in arguments)


@pytest.mark.parametrize("method", ["\ud800", "a\udfff"])
def test_a_method_that_is_no_text_is_refused(method: str) -> None:
    """Half a surrogate pair has no encoding."""
    with pytest.raises(InputError):
        encode_plain_request(1, method, "", [], None)
