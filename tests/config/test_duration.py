"""Durations: what people write, what it means, and what is refused."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.config import format_duration, parse_duration
from vanadium_node.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("24h", 86400),
        ("7d", 604800),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        ("0", 0),
    ],
)
def test_durations_of_all_units(text: str, seconds: float) -> None:
    """Each unit, sums of units and fractions mean what they say."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "-5s", "s", "5 s", "5x", "1e3s", "٣s", "1h-5m"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    """A number without a unit is refused too: nobody should have to guess whether it means seconds."""
    with pytest.raises(InputError, match=r"is not a duration; .*90s"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["36501d", "36500d1ms", "999999999d999999999d"])
def test_a_duration_longer_than_a_century_is_refused(text: str) -> None:
    """What would overflow a date is an input error, not a crash."""
    with pytest.raises(InputError, match="longer than 36500d"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=36500 * 86_400_000))
def test_formatting_is_the_inverse_of_parsing(milliseconds: int) -> None:
    """What is printed can be read again."""
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration
