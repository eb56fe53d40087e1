"""Who may call what."""

import pytest

from vanadium_node.errors import InputError
from vanadium_node.security.access import AccessList, Permissions
from vanadium_node.security.authorization import (
    AuthorizationRequest,
    all_of,
    any_of,
    default_authorizer,
    everyone,
    pattern_authorizer,
    permissions_authorizer,
    public_key_authorizer,
)
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.validation import Rejected, Validation


def request(
    *names: str, local: tuple[str, ...] = (), tags: tuple[str, ...] = (), rejected: tuple[Rejected, ...] = ()
) -> AuthorizationRequest:
    """Return a call by a peer with these names."""
    return AuthorizationRequest(
        local_names=local,
        peer=Validation(names, rejected),
        peer_public_key=None,
        local_public_key=None,
        method="Get",
        tags=frozenset(tags),
    )


@pytest.mark.parametrize(
    ("local", "peer", "allowed"),
    [
        ("root:a", "root:a", True),
        ("root:a", "root:a:b", True),
        ("root:a:b", "root:a", True),
        ("root", "root:a", True),
        ("root:a", "root:b", False),
        ("root:a", "root:ab", False),
    ],
)
def test_default(local: str, peer: str, allowed: bool) -> None:
    """One end's name extends the other's, or is the same."""
    assert (default_authorizer(request(peer, local=(local,))) is None) == allowed


def test_a_refusal_says_who_came_and_why_that_does_not_do() -> None:
    """Presented names, and each rejected one with its reason."""
    refusal = default_authorizer(request("a", local=("b",), rejected=(Rejected("c", "it expired"),)))
    assert refusal is not None
    assert "the peer presented a" in refusal.reason
    assert "rejected: c (it expired)" in refusal.reason
    assert "(b)" in refusal.reason
    nobody = default_authorizer(request(local=("b",)))
    assert nobody is not None
    assert "no blessings" in nobody.reason


def test_default_wants_names_of_both_ends() -> None:
    """Two ends without names have nothing in common."""
    assert default_authorizer(request()) is not None
    assert default_authorizer(request("a")) is not None
    assert everyone(request()) is None


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        (["root:alice"], True),
        (["root:alice:phone"], True),
        (["root:alice:lost"], False),
        (["root:alice:lost:again"], False),
        (["root:alice:lost", "root:alice:phone"], True),
        (["root:bob"], False),
        ([], False),
    ],
)
def test_access_lists(names: list[str], allowed: bool) -> None:
    """NotIn wins over In, extensions included."""
    access = AccessList(in_=(Pattern.parse("root:alice"),), not_in=("root:alice:lost",))
    assert access.includes(names) == allowed


def test_everybody_but() -> None:
    """`...` admits peers without a name, and not whoever is excluded."""
    access = AccessList(in_=(Pattern.parse("..."),), not_in=("root:mallory",))
    assert access.includes([])
    assert access.includes(["x"])
    assert not access.includes(["root:mallory:phone"])


def test_permissions_want_exactly_one_tag() -> None:
    """None or several tags on a method: refused, whoever calls."""
    authorize = permissions_authorizer(
        Permissions.parse('{"Read": {"In": ["..."]}, "Write": {"In": ["root"], "NotIn": []}}')
    )
    assert authorize(request("x", tags=("Read",))) is None
    assert authorize(request("root:a", tags=("Write",))) is None
    assert authorize(request("x", tags=("Write",))) is not None
    assert authorize(request("x", tags=("Admin",))) is not None
    assert authorize(request("root", tags=())) is not None
    assert authorize(request("root", tags=("Read", "Write"))) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"King": {}}',
        '{"Read": []}',
        '{"Read": {"In": "a"}}',
        '{"Read": {"in": []}}',
        '{"Read": {"In": ["a::"]}}',
        "[" * 100_000,
    ],
)
def test_permissions_that_are_none(text: str) -> None:
    """What is wrong is said; nothing half-understood grants anything."""
    with pytest.raises(InputError):
        Permissions.parse(text)


def test_permissions_come_back_from_their_text() -> None:
    """Encoding and parsing agree."""
    permissions = Permissions.parse('{"Admin": {"In": ["root:alice:$"], "NotIn": ["root:bob"]}}')
    assert Permissions.parse(permissions.encode()) == permissions


def test_authorizers_combine() -> None:
    """Any of them, all of them, by key and by pattern."""
    key = PrivateKey.generate().public_key
    by_name = pattern_authorizer(Pattern.parse("root"))
    by_key = public_key_authorizer(key)
    assert any_of(by_key, by_name)(request("root:x")) is None
    refusal = any_of(by_key, by_name)(request("y"))
    assert refusal is not None
    assert key.fingerprint in refusal.reason
    assert all_of(by_key, by_name)(request("root:x")) is not None
    assert all_of(everyone, by_name)(request("root:x")) is None
