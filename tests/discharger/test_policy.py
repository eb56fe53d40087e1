"""Who gets no discharge: deny lists and their rules."""

from datetime import UTC, datetime
from typing import Any

import pytest

from vanadium_node.discharger import DenyList, Policy, Request
from vanadium_node.errors import InputError
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY = PrivateKey.generate().public_key
CAVEAT = "5b:" * 15 + "5b"


def request(**changes: Any) -> Request:
    """Somebody who shows `root:shop:cart`, which counts."""
    asked: dict[str, Any] = {"presented": ("root:shop:cart",), "accepted": ("root:shop:cart",)}
    return Request(**(asked | {"key": KEY, "caveat": CAVEAT, "now": NOON} | changes))


@pytest.mark.parametrize(
    ("rule", "denies"),
    [
        ("root:shop", True),
        ("root:shop:cart:$  # until we know more", True),
        ("root:shop:$", False),
        ("root:other", False),
        ("...", True),
        (f"key {KEY.fingerprint}", True),
        (f"key {CAVEAT}", False),
        (f"caveat {CAVEAT}", True),
        (f"caveat {KEY.fingerprint}", False),
        ("root:shop from 2026-11-23T12:00:00Z", True),
        ("root:shop from 2026-11-23T12:00:01Z", False),
        ("root:shop until 2026-11-23T12:00:00Z", False),
        ("root:shop from 2026-11-23T11:00:00Z until 2026-11-23T13:00:00", True),
        ("root:shop until 2026-11-23T14:00:00+01:00", True),
        ("# root:shop", False),
        ("", False),
    ],
)
def test_a_rule(rule: str, denies: bool) -> None:
    """By name, by key, by caveat, by time; what follows `#` is not read."""
    assert bool(DenyList.parse(f"root:nobody\n{rule}\n").why_denied(request())) is denies


def test_names_that_do_not_count_are_denied_too() -> None:
    """Showing a name whose root the discharger does not know is no way around the list."""
    assert DenyList.parse("root:shop").why_denied(request(accepted=())) == "root:shop"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("key", "not a rule"),
        ("key 5b", "not a rule"),
        ("deny root:shop", "not a rule"),
        ("root::shop", "is not a pattern"),
        ("root:shop from", "is not a time"),
        ("root:shop from yesterday", "is not a time"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_line(line: str, says: str) -> None:
    """The sentence has the number of the line, and how rules are written."""
    with pytest.raises(InputError, match="line 2") as caught:
        DenyList.parse(f"root:a\n{line}\n")
    assert says in caught.value.message
    assert caught.value.hint


def test_only_those_who_are_allowed() -> None:
    """Names count for that only if they are recognized; `...` is everybody, those without a name included."""
    some = Policy(allowed=(Pattern.parse("root:shop"),), denied=DenyList())
    assert some.why_refused(request()) == ""
    assert "none of the names that count here" in some.why_refused(request(accepted=()))
    everybody = Policy(allowed=(Pattern.parse("..."),), denied=DenyList.parse("root:shop"))
    assert everybody.why_refused(request(presented=(), accepted=())) == ""
    assert everybody.why_refused(request()) == "the deny list says 'root:shop'"
