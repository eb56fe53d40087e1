"""Names and the patterns that match them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.errors import InputError
from vanadium_node.security.pattern import Pattern, check_extension


@pytest.mark.parametrize(
    ("pattern", "matched", "not_matched"),
    [
        ("a:b", ["a:b", "a:b:c", "a:b:c:d"], ["a", "a:bc", "a:c", "b", "x:a:b", ""]),
        ("a:b:$", ["a:b"], ["a:b:c", "a", "a:b:$"]),
        ("...", ["a", "a:b", "anything"], []),
        ("$", [], ["a", "$", ""]),
        ("", [], ["a", ""]),
    ],
)
def test_what_a_pattern_matches(pattern: str, matched: list[str], not_matched: list[str]) -> None:
    """Extensions are matched whole, `$` ends the name, `...` matches all, the empty pattern none."""
    parsed = Pattern.parse(pattern)
    assert [name for name in matched if not parsed.is_matched_by(name)] == []
    assert [name for name in not_matched if parsed.is_matched_by(name)] == []


def test_only_the_dots_match_no_name_at_all() -> None:
    """A peer without blessings is matched by `...` alone."""
    assert Pattern.parse("...").matches([])
    assert not Pattern.parse("a").matches([])


BAD = [
    "",
    "$",
    "a:$",
    "$:a",
    ":a",
    "a:",
    "a::b",
    "...",
    "a...b",
    "a,b",
    "a@@b",
    "(a)",
    "<a>",
    "a/b",
    "a\nb",
    "a\n",
    "a\0",
]
BAD += ["a\x7f", "a\u2028b", "a\ud800", "x" * 5000, "\u200b"]


@pytest.mark.parametrize("extension", BAD)
def test_bad_extensions(extension: str) -> None:
    """None of these may extend a name, a trailing newline included."""
    with pytest.raises(InputError, match="cannot be part of a blessing's name"):
        check_extension(extension)


@pytest.mark.parametrize(
    "extension", ["a", "a:b", "alice@example.com", "10.64.0.4:54945", "größe", "a b", "[0:1]:3", "$a"]
)
def test_good_extensions(extension: str) -> None:
    """Names that people and programs use."""
    assert check_extension(extension) == extension


@pytest.mark.parametrize("pattern", ["a:", "a:$:b", "a,b", "a\n", "a:$\n", "a:...", "$:$"])
def test_bad_patterns(pattern: str) -> None:
    """What is no pattern is quoted."""
    with pytest.raises(InputError, match="is not a pattern"):
        Pattern.parse(pattern)


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["a", "b"]), max_size=4),
)
def test_a_pattern_is_matched_by_itself_and_its_extensions(base: list[str], more: list[str]) -> None:
    """Extending a name never makes a pattern lose it, but for an exact one."""
    pattern, name = ":".join(base), ":".join([*base, *more])
    assert Pattern.parse(pattern).is_matched_by(name)
    assert Pattern.parse(pattern + ":$").is_matched_by(name) == (not more)
