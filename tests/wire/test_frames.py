"""Frames and their bytes: one accepted form each, and errors instead of surprises."""

from contextlib import suppress

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.errors import ProtocolError
from vanadium_node.wire.frames import (
    Auth,
    Cancel,
    Credit,
    End,
    Frame,
    Goaway,
    Item,
    Ping,
    Pong,
    Request,
    Response,
    decode_frame,
    encode_frame,
    frame_header,
)
from vanadium_node.wire.splitter import FrameSplitter

numbers = st.integers(0, 2**40)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
frames = st.one_of(
    st.builds(Auth, st.just(0), st.lists(numbers, max_size=3), st.binary(), st.none() | st.binary(), st.lists(st.binary(), max_size=2), st.binary()),
    st.builds(Request, numbers, texts, texts, st.lists(values, max_size=4), st.none() | numbers, st.booleans(), st.none() | st.binary(), st.just([]), texts),
    st.builds(Response, numbers, values, st.none()),
    st.builds(Response, numbers, st.none(), st.just(["no-access", "why", {"retry_after_ms": 3}])),
    st.builds(Item, numbers, values),
    st.builds(End, numbers),
    st.builds(Cancel, numbers),
    st.builds(Credit, numbers, numbers),
    st.builds(Ping, st.just(0), numbers),
    st.builds(Pong, st.just(0), numbers),
    st.builds(Goaway, st.just(0), texts, texts),
)  # fmt: skip


@given(frames)
def test_every_frame_survives_its_encoding(frame: Frame) -> None:
    """What is encoded is one CBOR byte string, and decodes to the same frame."""
    encoded = encode_frame(frame)
    content = cbor2.loads(encoded)
    assert isinstance(content, bytes)
    assert decode_frame(content) == frame


@given(st.lists(frames, max_size=6), st.data())
def test_frames_come_out_however_the_bytes_are_split(sent: list[Frame], data: st.DataObject) -> None:
    """Any division of the bytes gives the same frames."""
    stream = b"".join(map(encode_frame, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    splitter = FrameSplitter(1 << 20)
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += [decode_frame(content) for content in splitter.split(stream[start:end])]
    assert got == sent
    assert splitter.is_clean


@given(frames, st.data())
def test_a_changed_byte_never_raises_anything_but_a_protocol_error(frame: Frame, data: st.DataObject) -> None:
    """A mutated frame is another frame, one to be ignored, or a protocol error."""
    content = bytearray(cbor2.loads(encode_frame(frame)))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    with suppress(ProtocolError):
        decode_frame(bytes(content))


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_a_protocol_error(data: bytes) -> None:
    """Noise, as a stream and as a frame's content."""
    for attempt in (lambda: list(FrameSplitter(1000).split(data)), lambda: [decode_frame(data)]):
        with suppress(ProtocolError):
            attempt()


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        (b"\x5b\x00\x00\x00\x01\x00\x00\x00\x00", "larger than the limit"),
        (b"\x5a\xff\xff\xff\xff", "larger than the limit"),
        (b"\x5a\x00\x00\x00\x05", "shortest form"),
        (b"\x58\x05", "shortest form"),
        (b"\x59\x00\xff", "shortest form"),
        (b"\x5f", "does not speak this protocol"),
        (b"\x16\x03\x01\x02\x00", "does not speak this protocol"),
    ],
)
def test_lengths_that_are_none(head: bytes, complaint: str) -> None:
    """Too long, not shortest, of no definite length, or another protocol: refused by the header alone."""
    with pytest.raises(ProtocolError, match=complaint):
        list(FrameSplitter(1000).split(head))


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 65535, 65536])
def test_headers_are_those_of_cbor(size: int) -> None:
    """The header is what any CBOR library writes for a byte string of that size."""
    assert frame_header(size) + bytes(size) == cbor2.dumps(bytes(size))


@pytest.mark.parametrize(
    "content",
    [
        cbor2.dumps([1]),
        cbor2.dumps({}),
        cbor2.dumps("x"),
        cbor2.dumps([[], 0]),
        cbor2.dumps([True, 0]),
        cbor2.dumps([4, -1]),
        cbor2.dumps([4, 1 << 60]),
        cbor2.dumps([4, 1, 2]),
        cbor2.dumps([6, 1, "x"]),
        cbor2.dumps([31, 0]),
        cbor2.dumps([0, 1, [1], b"key", None, [], b"signature"]),
        cbor2.dumps([7, 1, 0]),
        cbor2.dumps([8, 2, 0]),
        cbor2.dumps([9, 1, "", ""]),
        cbor2.dumps([-1, 0]) + b"\x00",
        cbor2.dumps([3, 1, {"a": cbor2.CBORTag(35, "(")}]),
        b"\x82\x18\x04\x01",
        b"\x83\x03\x01\xa2\x61a\x01\x61a\x02",
        b"\x83\x03\x01" + b"\x81" * 40 + b"\x00",
        b"\x9f\x04\x01\xff",
        b"\x83\x03\x01\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x83\x03\x01\xbb\x00\x00\x00\x01\x00\x00\x00\x00",
        b"",
    ],
    ids=range(23),
)  # fmt: skip
def test_contents_that_are_none(content: bytes) -> None:
    """Wrong shapes, kinds, types, numbers, tags, duplicate keys, non-minimal integers, deep nesting, huge counts."""
    with pytest.raises(ProtocolError):
        decode_frame(content)


def test_unknown_kinds_that_are_not_critical_are_ignored() -> None:
    """A later version may add kinds from 32 on."""
    assert decode_frame(cbor2.dumps([32, 0, "anything"])) is None
