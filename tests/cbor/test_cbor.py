"""One accepted encoding per value, and nothing that is not a plain value."""

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError

LIMIT = 1 << 20

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_encoded_decodes_to_itself(value: cbor.Value) -> None:
    """Decoding undoes encoding, in both forms."""
    assert cbor.decode(cbor.encode(value), max_bytes=LIMIT) == value
    assert cbor.decode_frame(cbor.encode_frame(value), max_bytes=LIMIT) == value


@given(st.binary(max_size=64))
def test_any_bytes_are_refused_or_the_one_encoding_of_their_value(data: bytes) -> None:
    """There are no two encodings of one value, and no other error than the declared one."""
    try:
        value = cbor.decode(data, max_bytes=LIMIT)
    except DecodeError:
        return
    assert cbor.encode(value) == data


@given(st.binary(max_size=64))
def test_any_bytes_as_a_frame_are_refused_or_the_one_encoding_of_their_value(data: bytes) -> None:
    """The cheaper form is as strict but for the order of maps."""
    try:
        value = cbor.decode_frame(data, max_bytes=LIMIT)
    except DecodeError:
        return
    assert cbor.encode_frame(value) == data


REFUSED = {
    "empty": b"",
    "cut off": b"\x82\x01",
    "trailing bytes": b"\x01\x01",
    "an integer in more bytes than it needs": b"\x18\x01",
    "an indefinite array": b"\x9f\x01\xff",
    "an indefinite string": b"\x5f\x41\x00\xff",
    "a key twice": b"\xa2\x01\x01\x01\x02",
    "a promise of 2^64 items": b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    "a promise of 2^63 bytes": b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "too deep": b"\x81" * 17 + b"\x01",
    "text that is not UTF-8": b"\x61\xff",
    "a date (tag 0)": cbor2.dumps(cbor2.CBORTag(0, "2026-11-23T10:00:00Z")),
    "a time (tag 1)": cbor2.dumps(cbor2.CBORTag(1, 1)),
    "a bignum": cbor2.dumps(2**70),
    "a regular expression": cbor2.dumps(cbor2.CBORTag(35, "a+")),
    "a shared value": b"\xd8\x1c\x81\x01",
    "a cyclic reference": b"\xd8\x1c\x81\xd8\x1d\x00",
    "a MIME message": cbor2.dumps(cbor2.CBORTag(36, "x")),
    "a set": cbor2.dumps(cbor2.CBORTag(258, [1])),
    "self-described CBOR": b"\xd9\xd9\xf7\x01",
    "a signed value where none is asked for": b"\xd2\x84\x40\xa0\x40\x40",
    "an unknown tag": cbor2.dumps(cbor2.CBORTag(999, 1)),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("decode", [cbor.decode, cbor.decode_frame])
def test_refused(decode, data: bytes) -> None:  # type: ignore[no-untyped-def]
    """Each of these ends with the declared error, in both forms."""
    with pytest.raises(DecodeError):
        decode(data, max_bytes=LIMIT)


INSIDE = [b"\x00", b"\x44\x01\x02\x03\x04", b"\x50" + bytes(16), b"\x63foo", b"\x6a2020-01-01", b"\x82\x01\x02", b"\x82\x18\x20\x44\x01\x02\x03\x04"]  # fmt: skip
"""What the tags that libraries know have inside."""


@pytest.mark.parametrize("decode", [cbor.decode, cbor.decode_frame])
def test_no_tag_is_accepted(decode) -> None:  # type: ignore[no-untyped-def]
    """Whatever the library makes of it: an address, a date, a number; and whatever it learns to make of one later."""
    for tag in (*range(2000), 43000, 55799, 2**32, 2**64 - 1):
        head = cbor2.dumps(cbor2.CBORTag(tag, 0))[:-1]
        for inside in INSIDE:
            with pytest.raises(DecodeError):
                decode(b"\x81" + head + inside, max_bytes=LIMIT)


@pytest.mark.parametrize("data", [b"\xf7", b"\xe0", b"\xf8\x20", b"\xa1\x81\x01\x01", b"\xa1\xf5\x01"])
def test_undefined_simple_values_and_odd_keys_are_refused_where_it_is_signed(data: bytes) -> None:
    """The data model has no undefined, no other simple values, and keys of text and integers only."""
    with pytest.raises(DecodeError):
        cbor.decode(data, max_bytes=LIMIT)


def test_size_is_checked_first() -> None:
    """What is too long is not looked at."""
    with pytest.raises(DecodeError, match="at most 3"):
        cbor.decode(b"\xff" * 4, max_bytes=3)


def test_a_value_without_an_encoding_is_refused() -> None:
    """An object of Python's is no value."""
    with pytest.raises(InputError, match="no CBOR encoding"):
        cbor.encode([object()])


@given(st.binary(max_size=100))
def test_text_form(data: bytes) -> None:
    """The text form is base64url without padding, on one line."""
    line = cbor.text(data)
    assert not set(line) & set("=+/\n ")
    assert cbor.from_text(f" {line}\n", max_bytes=100) == data


@pytest.mark.parametrize("line", ["YQ==", "Y", "YR", "a+b/", "YQ\nYQ", "é", "YWJj" * 100])
def test_text_that_is_none(line: str) -> None:
    """Padding, other alphabets, stray bits and too much are refused."""
    with pytest.raises(DecodeError):
        cbor.from_text(line, max_bytes=100)


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**64) - 1, {1: 0, "a": 0}, {-1: 0}, {b"k": 0}, {1, 2}, [1 + 2j], object(), "\ud800"],
    ids=repr,
)
def test_what_has_no_encoding_here(value: object) -> None:
    """Nothing is encoded that would be refused: no tags, no odd keys, no broken text."""
    with pytest.raises(InputError):
        cbor.encode(value)


@given(st.binary(max_size=70_000), st.binary(max_size=3))
def test_byte_strings_are_read_in_place(content: bytes, after: bytes) -> None:
    """What stands before a byte string is its shortest form, and no other is read."""
    data = cbor.bytes_head(len(content)) + content
    assert data == cbor.encode(content)
    assert cbor.bytes_at(data + after, 0) == (content, len(data))
    with pytest.raises(DecodeError):
        cbor.bytes_at(data[:-1], 0) if content else cbor.bytes_at(b"", 0)


@pytest.mark.parametrize("data", ["", "60", "5801", "580100", "590001", "5f", "5b0000000000000001", "5a0000000100"])
def test_other_byte_strings_are_refused(data: str) -> None:
    """Text, lengths in more bytes than they need, indefinite lengths, and what is cut off."""
    with pytest.raises(DecodeError):
        cbor.bytes_at(bytes.fromhex(data), 0)
