"""Arguments as JSON or plain words, and results as JSON, for every type that a method can take or return."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc_parties import principal

from vanadium_node import cbor
from vanadium_node.cli.rpc_values import to_json, value_for
from vanadium_node.errors import InputError
from vanadium_node.rpc.types import codec_of
from vanadium_node.security.blessing import Blessings


class Colour(Enum):
    """Texts."""

    RED = "red"


class Level(IntEnum):
    """Numbers."""

    LOW = 1


@dataclass(frozen=True)
class Inner:
    """A part."""

    words: list[str]


@dataclass(frozen=True)
class Outer:
    """A whole, with a field that came later."""

    inner: Inner
    colour: Colour
    note: str = ""


@dataclass
class Gap:
    """A struct of which the last two fields may be left out."""

    x: int
    a: str = ""
    b: str = ""


WHEN = datetime(2026, 11, 23, 10, 0, 0, 1, tzinfo=UTC)
GOOD: list[tuple[Any, str, object]] = [
    (int, "-3", -3),
    (int, str(2**63 - 1), 2**63 - 1),
    (float, "1.5", 1.5),
    (float, "2", 2.0),
    (str, "plain words", "plain words"),
    (str, '"in quotes"', "in quotes"),
    (str, "42", "42"),
    (str, "true", "true"),
    (str, "[1", "[1"),
    (str, "", ""),
    (bytes, "AP8", b"\x00\xff"),
    (bool, "true", True),
    (None, "null", None),
    (list[int], "[1, 2]", [1, 2]),
    (list[str], '["1", "b"]', ["1", "b"]),
    (list[bytes], '["AA"]', [b"\x00"]),
    (tuple[int, str], '[1, "a"]', (1, "a")),
    (tuple[int, ...], "[1, 2]", (1, 2)),
    (dict[str, list[bool]], '{"a": [true]}', {"a": [True]}),
    (dict[int, str], '{"7": "a"}', {7: "a"}),
    (datetime, "2026-11-23T10:00:00.000001+00:00", WHEN),
    (datetime, '"2026-11-23T11:00:00.000001+01:00"', WHEN),
    (datetime, "2026-11-23T10:00:00.000001Z", WHEN),
    (Colour, "red", Colour.RED),
    (Level, "1", Level.LOW),
    (Outer, '{"inner": {"words": ["a"]}, "colour": "red"}', Outer(Inner(["a"]), Colour.RED)),
    (Outer, '{"note": "n", "inner": {"words": []}, "colour": "red"}', Outer(Inner([]), Colour.RED, "n")),
    (int | None, "null", None),
    (int | None, "3", 3),
    (list[Outer | None], "[null]", [None]),
]


@pytest.mark.parametrize(("annotation", "word", "value"), GOOD, ids=[f"{row[0]} {row[1]}" for row in GOOD])
def test_a_word_is_what_the_method_gets(annotation: Any, word: str, value: object) -> None:
    """And what it returns is shown as JSON that means the same again."""
    codec = codec_of(annotation)
    assert codec.from_wire(value_for("it", codec.shape, word)) == value
    shown = json.dumps(to_json(codec.shape, codec.to_wire(value)))
    assert codec.from_wire(value_for("it", codec.shape, shown)) == value


@pytest.mark.parametrize(
    ("annotation", "word"),
    [
        (int, "many"), (int, "1.5"), (int, "true"), (int, '"1"'), (float, "true"), (bool, "1"), (bool, "yes"), (None, "0"),
        (bytes, "not base64!"), (bytes, "3"), (list[int], "[1"), (list[int], '["a"]'), (list[int], "{}"),
        (tuple[int, str], "[1]"), (dict[int, str], '{"a": "b"}'), (dict[str, int], "[]"), (datetime, "tomorrow"),
        (datetime, "3"), (Level, "[]"), (Outer, "[]"), (Outer, '{"other": 1}'), (Outer, '{"inner": 3}'), (int | None, "a"),
        (int, "[" * 100_000), (list[int], "9" * 10_000), (Blessings, "AAAA!"),
    ],
)  # fmt: skip
def test_a_word_that_is_none(annotation: Any, word: str) -> None:
    """It is named, shortened, with the type that is wanted."""
    with pytest.raises(InputError, match=r"the argument is '.*', which is not ") as caught:
        value_for("the argument", codec_of(annotation).shape, word)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("annotation", "word"),
    [
        (float, "9" * 400),
        (datetime, '"9999-12-31T23:59:59-23:59"'),
        (datetime, '"0001-01-01T00:00:00+23:59"'),
        (Gap, '{"x": 1, "b": "v"}'),
    ],
)
def test_a_word_that_would_become_another_value(annotation: Any, word: str) -> None:
    """Numbers beyond what is sent, times beyond the calendar, and fields that would shift into the place of one left out."""
    with pytest.raises(InputError, match="which is not"):
        value_for("it", codec_of(annotation).shape, word)


@pytest.mark.parametrize("microseconds", [2**70, -(2**70), 2**63])
def test_a_time_beyond_the_calendar_is_shown_as_it_is(microseconds: int) -> None:
    """A server can send it."""
    assert to_json(codec_of(datetime).shape, microseconds) == microseconds


async def test_blessings() -> None:
    """As the tools print and take them."""
    given_away = (await principal("root")).store.default
    assert given_away is not None
    codec = codec_of(Blessings)
    word = to_json(codec.shape, codec.to_wire(given_away))
    assert word == cbor.text(given_away.encoded)
    assert codec.from_wire(value_for("it", codec.shape, word)) == given_away


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([codec_of(row[0]) for row in GOOD]), json_values.map(json.dumps) | st.text(max_size=20))
def test_no_word_raises_anything_but_an_input_error(codec: Any, word: str) -> None:
    """Whatever is typed."""
    with suppress(InputError):
        value_for("it", codec.shape, word)


@given(st.sampled_from([codec_of(row[0]) for row in GOOD]), json_values)
def test_a_result_of_another_type_is_shown_as_it_is(codec: Any, value: Any) -> None:
    """A server may be newer than what it said, or lie."""
    json.dumps(to_json(codec.shape, value))
