"""Chains of certificates: making, extending, and refusing what was tampered with."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError
from vanadium_node.security.blessing import Blessings, Chain, ChainCache
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import KeyType, PrivateKey
from vanadium_node.security.principal import Principal

FREE = Caveat.unconstrained()


def default(principal: Principal) -> Blessings:
    """Return the principal's default blessings, which it has."""
    assert principal.store.default is not None
    return principal.store.default


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_blessing_extends_the_name_to_another_key(key_type: KeyType, alice: Principal) -> None:
    """Whoever holds a blessing can pass it on, offline, and anyone can check it."""
    phone = await Principal.create(PrivateKey.generate(key_type), "phone")
    given_ = await alice.bless(phone.public_key, default(alice), "phone", [FREE])
    app = PrivateKey.generate().public_key
    passed_on = await phone.bless(app, given_, "app:v1", [FREE])
    assert passed_on.names == ("alice:phone:app:v1",)
    assert passed_on.public_key == app
    assert Blessings.decode(passed_on.encode()) == passed_on == Blessings.parse(passed_on.text)
    assert [root.names for root in passed_on.roots] == [("alice",)]


async def test_only_own_blessings_are_extended_and_never_without_a_caveat(alice: Principal, bob: Principal) -> None:
    """Nobody extends what is bound to another key; no use without limits by oversight."""
    with pytest.raises(InputError, match="not to this principal's"):
        await bob.bless(bob.public_key, default(alice), "friend", [FREE])
    with pytest.raises(InputError, match="without any caveat"):
        await alice.bless(bob.public_key, default(alice), "friend", [])
    with pytest.raises(InputError, match="cannot be part"):
        await alice.bless(bob.public_key, default(alice), "a/b", [FREE])


async def test_a_union_is_of_one_key(alice: Principal, bob: Principal) -> None:
    """Names of one key are put together, each once; names of two keys are not."""
    friend = await alice.bless(bob.public_key, default(alice), "friend", [FREE])
    both = Blessings.union(default(bob), friend, friend)
    assert both.names == ("bob", "alice:friend")
    assert str(both) == "bob,alice:friend"
    with pytest.raises(InputError, match="different public keys"):
        Blessings.union(default(alice), default(bob))


async def test_expiry_is_of_the_chain_that_lasts_longest(alice: Principal, bob: Principal, now: datetime) -> None:
    """A chain ends with the first of its certificates; blessings end with their last chain."""
    day, week = Caveat.expiry(now + timedelta(days=1)), Caveat.expiry(now + timedelta(days=7))
    short = await alice.bless(bob.public_key, default(alice), "short", [week, day])
    long = await alice.bless(bob.public_key, default(alice), "long", [week])
    assert Blessings.union(short, long).expiry == now + timedelta(days=7)
    assert (await bob.bless(alice.public_key, short, "x", [week])).expiry == now + timedelta(days=1)
    assert default(bob).expiry is None


async def test_certificates_cannot_be_cut_off_swapped_or_moved(alice: Principal, bob: Principal) -> None:
    """A certificate is signed over everything before it."""
    one = await alice.bless(bob.public_key, default(alice), "one", [FREE])
    two = await alice.bless(bob.public_key, default(alice), "two", [FREE])
    deep = await bob.bless(alice.public_key, one, "deep", [FREE])
    root, first, last = (c.encoded for c in deep.chains[0].certificates)
    other = two.chains[0].certificates[1].encoded
    for chain in ([first, last], [root, last], [root, other, last], [first, root, last], [root, first, last, last]):
        with pytest.raises(DecodeError):
            Blessings.decode(cbor.encode([chain]))


@pytest.mark.parametrize("value", [[], [[]], [[b"x"]], 5, [5], [["x"]], [[b""] * 33], [[b"x"]] * 17])
def test_what_is_no_blessings(value: cbor.Value) -> None:
    """Shapes and counts are checked before any signature."""
    with pytest.raises(DecodeError):
        Blessings.decode(cbor.encode(value))


def test_the_size_of_blessings_is_limited() -> None:
    """64 KiB in all."""
    with pytest.raises(DecodeError, match="at most 65536"):
        Blessings.decode(b"\0" * 65537)


async def test_the_length_of_chains_is_limited(alice: Principal) -> None:
    """32 certificates, in making as in reading."""
    blessings = default(alice)
    for _ in range(31):
        blessings = await alice.bless(alice.public_key, blessings, "x", [FREE])
    assert Blessings.decode(blessings.encode()) == blessings
    with pytest.raises(InputError, match="at most 32"):
        await alice.bless(alice.public_key, blessings, "x", [FREE])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(position=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7))
async def test_no_bit_can_be_changed(alice: Principal, bob: Principal, position: int, bit: int) -> None:
    """Any mutation of valid blessings is refused with the declared error."""
    data = (await alice.bless(bob.public_key, default(alice), "friend", [Caveat.method("Get")])).encode()
    at = position % len(data)
    with pytest.raises(DecodeError):
        Blessings.decode(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])


async def test_the_cache_remembers_good_chains_only(
    alice: Principal, bob: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached chain costs no verification; a bad one is refused each time; old ones are dropped."""
    cache = ChainCache(max_bytes=2600)
    friend = await alice.bless(bob.public_key, default(alice), "friend", [FREE])
    verified: list[int] = []
    verify = Chain.verify

    def counted(encoded: Sequence[bytes]) -> Chain:
        verified.append(1)
        return verify(encoded)

    monkeypatch.setattr(Chain, "verify", counted)
    for _ in range(3):
        assert Blessings.decode(friend.encode(), cache) == friend
    assert len(verified) == 1
    root, certificate = (c.encoded for c in friend.chains[0].certificates)
    bad = cbor.encode([[root, certificate[:-1] + bytes([certificate[-1] ^ 1])]])
    for _ in range(2):
        with pytest.raises(DecodeError):
            Blessings.decode(bad, cache)
    assert len(verified) == 3
    for name in ("a", "b"):
        Blessings.decode((await alice.bless_self(name)).encode(), cache)
    Blessings.decode(friend.encode(), cache)
    assert len(verified) == 6
