"""What the controller says about its caller."""

import pytest

from vanadium_node.controller.identity import claimer_pattern, named, own_blessings, root_blessings
from vanadium_node.errors import ConfigurationError, InputError
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal


async def principal(name: str) -> Principal:
    return await Principal.create(PrivateKey.generate(), name)


async def blessed(by: Principal, to: Principal, extension: str) -> Blessings:
    base = own_blessings(by)
    return await by.bless(to.public_key, base, extension, [Caveat.unconstrained()])


async def test_the_roots_of_several_blessings() -> None:
    """One certificate for each root, however many names come from it; nothing of the rest of the chain is in it."""
    one, two, me = await principal("one"), await principal("two"), await principal("me")
    held = Blessings.union(await blessed(one, me, "a"), await blessed(one, me, "b"), await blessed(two, me, "c"))
    roots = [Blessings.parse(text) for text in root_blessings(held).split(",")]
    assert [root.names for root in roots] == [("one",), ("two",)]
    assert [root.public_key for root in roots] == [one.public_key, two.public_key]


async def test_base_blessings() -> None:
    """Given ones must be the caller's; without any the principal's default counts, and must be there."""
    root, me, other = await principal("root"), await principal("me"), await principal("other")
    mine = await blessed(root, me, "x")
    assert own_blessings(me, mine.text) == mine
    with pytest.raises(InputError, match="not to this principal's"):
        own_blessings(other, mine.text)
    await me.set_default(None)
    with pytest.raises(ConfigurationError, match="no default blessings"):
        own_blessings(me)


async def test_the_claimer_is_exactly_the_caller() -> None:
    """Whoever merely has a name under the claimer's may not claim; a caller without the name is told at once."""
    root = await principal("root")
    pattern = Pattern.parse(claimer_pattern(own_blessings(root), "root"))
    assert pattern.matches(("root",))
    assert not pattern.matches(("root:fortuned:10.0.0.1:5",))
    with pytest.raises(InputError, match="extends 'boss', and this principal is 'root'"):
        claimer_pattern(own_blessings(root), "boss")


async def test_named_chooses_among_several() -> None:
    """Only the chains of exactly that name are extended."""
    root, me = await principal("root"), await principal("me")
    held = Blessings.union(await blessed(root, me, "a"), await blessed(root, me, "b"))
    assert named(held, "root:b").names == ("root:b",)
