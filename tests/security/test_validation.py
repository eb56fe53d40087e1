"""Which names count for a call, and the reasons given for those that do not."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from vanadium_node.errors import InputError
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.validation import CallContext, validate

SECOND = timedelta(seconds=1)


async def blessed(alice: Principal, bob: Principal, *caveats: Caveat) -> Blessings:
    """Return bob's blessings as alice's friend."""
    assert alice.store.default is not None
    return await alice.bless(bob.public_key, alice.store.default, "friend", caveats)


@pytest.fixture
def context(now: datetime) -> CallContext:
    """A call of Get, tagged Read, to root:server, from 10.1.2.3."""
    return CallContext(
        now=now, method="Get", tags=frozenset({"Read"}), local_names=("root:server",), peer_address="10.1.2.3"
    )


HOLDS = [
    Caveat.unconstrained(),
    Caveat.method("Add", "Get"),
    Caveat.peer_blessings("root"),
    Caveat.peer_blessings("other", "root:server:$"),
    Caveat.access_tag("Read", "Write"),
    Caveat.peer_address("192.168.0.0/16", "10.0.0.0/8"),
]
FAILS = [
    (Caveat.const(False), "never valid"),
    (Caveat.method("Add"), r"restricted to methods \[Add\]"),
    (Caveat.method(), r"restricted to methods \[\]"),
    (Caveat.peer_blessings("root:$"), r"restricted to peers with blessings \[root:\$\]"),
    (Caveat.peer_blessings(), "restricted to peers"),
    (Caveat.access_tag("Admin"), r"restricted to methods tagged \[Admin\]"),
    (Caveat.peer_address("10.1.2.4/32"), "restricted to peers at"),
    (Caveat.of(999, None), "caveat 999 is unknown"),
    (Caveat.of(5000, "x"), "caveat 5000 is unknown"),
]


@pytest.mark.parametrize("caveat", HOLDS, ids=str)
async def test_caveats_that_hold(alice: Principal, bob: Principal, context: CallContext, caveat: Caveat) -> None:
    """The name counts."""
    verdict = validate(await blessed(alice, bob, caveat), alice.roots, context)
    assert verdict.accepted == ("alice:friend",)
    assert not verdict.rejected


@pytest.mark.parametrize(("caveat", "reason"), FAILS, ids=[str(c) for c, _ in FAILS])
async def test_caveats_that_do_not(
    alice: Principal, bob: Principal, context: CallContext, caveat: Caveat, reason: str
) -> None:
    """The name is rejected, with the reason; one caveat that fails is enough."""
    import re

    verdict = validate(await blessed(alice, bob, Caveat.unconstrained(), caveat), alice.roots, context)
    assert not verdict.accepted
    assert verdict.rejected[0].name == "alice:friend"
    assert re.search(reason, verdict.rejected[0].reason)


async def test_expiry_is_inclusive(alice: Principal, bob: Principal, context: CallContext, now: datetime) -> None:
    """Valid up to and including the time; not-before from the time on. The reason has both times."""
    until, since = await blessed(alice, bob, Caveat.expiry(now)), await blessed(alice, bob, Caveat.not_before(now))
    assert validate(until, alice.roots, context).accepted
    assert validate(since, alice.roots, context).accepted
    later, earlier = replace(context, now=now + SECOND), replace(context, now=now - SECOND)
    expected = "expired at 2026-11-23 10:00:00 UTC; it is 2026-11-23 10:00:01 UTC"
    assert validate(until, alice.roots, later).rejected[0].reason == expected
    assert "not valid before" in validate(since, alice.roots, earlier).rejected[0].reason


async def test_without_an_address_an_address_caveat_fails(
    alice: Principal, bob: Principal, context: CallContext
) -> None:
    """Fail closed; an IPv4 address in IPv6 clothes is the same address."""
    limited = await blessed(alice, bob, Caveat.peer_address("10.0.0.0/8"))
    assert not validate(limited, alice.roots, replace(context, peer_address=None)).accepted
    assert not validate(limited, alice.roots, replace(context, peer_address="nonsense")).accepted
    assert validate(limited, alice.roots, replace(context, peer_address="::ffff:10.1.2.3")).accepted


async def test_the_root_must_be_recognized_for_the_name(alice: Principal, bob: Principal, context: CallContext) -> None:
    """A key is a root only for the names it is recognized for."""
    friend = await blessed(alice, bob, Caveat.unconstrained())
    verdict = validate(friend, bob.roots, context)
    assert "is not recognized" in verdict.rejected[0].reason
    assert alice.public_key.fingerprint in verdict.rejected[0].reason
    other = BlessingRoots().with_root(alice.public_key, Pattern.parse("alice:foe"))
    assert not validate(friend, other, context).accepted
    assert validate(friend, other.with_root(alice.public_key, Pattern.parse("alice:friend")), context).accepted


async def test_each_chain_is_judged_by_itself(alice: Principal, bob: Principal, context: CallContext) -> None:
    """Names that count and names that do not stand side by side; nobody has neither."""
    both = Blessings.union(
        await blessed(alice, bob, Caveat.const(False)), await blessed(alice, bob, Caveat.method("Get"))
    )
    verdict = validate(both, alice.roots, context)
    assert verdict.accepted == ("alice:friend",)
    assert len(verdict.rejected) == 1
    assert validate(None, alice.roots, context).presented == ()


async def test_application_caveats(alice: Principal, bob: Principal, context: CallContext) -> None:
    """Ids from 1024 on are checked by whoever the application hands in, and by nobody else."""
    friend = await blessed(alice, bob, Caveat.of(1024, 5))
    checked = replace(context, validators={1024: lambda _, limit: "" if limit > 3 else "too little"})
    assert validate(friend, alice.roots, checked).accepted
    strict = replace(context, validators={1024: lambda _, limit: "too little"})
    assert validate(friend, alice.roots, strict).rejected[0].reason == "too little"


class TestThirdParty:
    """Caveats that somebody else must confirm."""

    @pytest.fixture
    async def discharger(self) -> Principal:
        """Whoever confirms."""
        return await Principal.create(PrivateKey.generate(), "discharger")

    @pytest.fixture
    def caveat(self, discharger: Principal) -> Caveat:
        """A caveat that wants the discharger's word."""
        third_party = ThirdParty(
            nonce=b"n" * 16, discharger_key=discharger.public_key, location="/discharger:1", caveats=()
        )
        return third_party.to_caveat()

    async def test_a_discharge_satisfies_it(
        self, alice: Principal, bob: Principal, discharger: Principal, caveat: Caveat, context: CallContext
    ) -> None:
        """No word, no name; with the word, until the word's own caveats fail."""
        friend = await blessed(alice, bob, caveat)
        assert "no discharge from /discharger:1" in validate(friend, alice.roots, context).rejected[0].reason
        word = await discharger.mint_discharge(caveat, [Caveat.expiry(context.now)])
        with_word = replace(context, discharges=(Discharge.decode(word.encoded),))
        assert validate(friend, alice.roots, with_word).accepted
        late = replace(with_word, now=context.now + SECOND)
        assert "its discharge from /discharger:1: expired" in validate(friend, alice.roots, late).rejected[0].reason

    async def test_nobody_elses_word_counts(
        self, alice: Principal, bob: Principal, caveat: Caveat, context: CallContext
    ) -> None:
        """A discharge signed by another key, or for another caveat, does not count."""
        friend = await blessed(alice, bob, caveat)
        with pytest.raises(InputError, match="wants a discharge by the key"):
            await bob.mint_discharge(caveat, [])
        own = ThirdParty(nonce=b"m" * 16, discharger_key=bob.public_key, location="/x:1", caveats=()).to_caveat()
        word = await bob.mint_discharge(own, [])
        assert not validate(friend, alice.roots, replace(context, discharges=(word,))).accepted
        forged = replace(word, caveat_id=ThirdParty.from_caveat(caveat).id)
        verdict = validate(friend, alice.roots, replace(context, discharges=(forged,)))
        assert "not signed by its discharger" in verdict.rejected[0].reason


@pytest.mark.parametrize(
    ("id_", "parameter"),
    [
        (0, 1),
        (1, "x"),
        (1, -1),
        (1, True),
        (2, "Get"),
        (3, ["a::b"]),
        (4, [1]),
        (5, []),
        (7, ["10.0.0.1/8"]),
        (-1, 0),
        (2**32, 0),
    ],
)
def test_a_known_caveat_takes_what_it_takes(id_: int, parameter: object) -> None:
    """A parameter of the wrong kind is refused when the caveat is made."""
    with pytest.raises(InputError):
        Caveat.of(id_, parameter)


def test_a_time_needs_a_zone() -> None:
    """A naive time would mean another one elsewhere."""
    with pytest.raises(InputError, match="time zone"):
        Caveat.expiry(datetime(2026, 1, 1))
