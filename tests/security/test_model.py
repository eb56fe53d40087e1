"""Random chains under random calls, against a reference model; mutations of valid encodings; names that want to be nasty."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError
from vanadium_node.security.blessing import Blessings, ChainCache
from vanadium_node.security.caveat import Caveat, CaveatId
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.keys import KeyType, PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.validation import CallContext, validate

START = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
KEYS = [PrivateKey.generate(KeyType.ECDSA_P256 if n % 2 else KeyType.ED25519) for n in range(4)]
DISCHARGER = trio.run(Principal.create, PrivateKey.generate(), "discharger")

WORDS = st.sampled_from(["a", "b", "a:b", "c"])
PATTERNS = st.lists(WORDS | st.sampled_from(["a:$", "a:b:$", "...", "$", ""]), max_size=3)
TIMES = st.integers(-2, 2).map(lambda seconds: START + timedelta(seconds=seconds))
METHODS = st.sampled_from(["Get", "Add"])
TAGS = st.sampled_from(["Read", "Write"])
NETWORKS = st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"]), max_size=2)
NONCES = st.sampled_from([b"1" * 16, b"2" * 16])


def third_party(nonce: bytes) -> ThirdParty:
    """Return a third-party caveat's content."""
    return ThirdParty(nonce=nonce, discharger_key=DISCHARGER.public_key, location="/d:1", caveats=())


CAVEATS = st.one_of(
    st.just(Caveat.unconstrained()),
    st.just(Caveat.unconstrained()),
    st.booleans().map(Caveat.const),
    TIMES.map(Caveat.expiry),
    TIMES.map(Caveat.not_before),
    st.lists(METHODS, max_size=2).map(lambda names: Caveat.method(*names)),
    PATTERNS.map(lambda patterns: Caveat.peer_blessings(*patterns)),
    st.lists(TAGS, max_size=2).map(lambda tags: Caveat.access_tag(*tags)),
    NETWORKS.map(lambda networks: Caveat.peer_address(*networks)),
    NONCES.map(lambda nonce: third_party(nonce).to_caveat()),
    st.sampled_from([8, 1023, 1024, 1025]).map(lambda id_: Caveat.of(id_, 3)),
)
CHAINS = st.lists(st.tuples(WORDS, st.lists(CAVEATS, min_size=1, max_size=2)), min_size=1, max_size=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A chain, roots and a call, and the discharges that came with it: nonce and caveats of each."""

    links: list[tuple[str, list[Caveat]]]
    root_patterns: list[str]
    is_root_known: bool
    now: datetime
    method: str
    tags: frozenset[str]
    local_names: tuple[str, ...]
    address: str | None
    discharges: list[tuple[bytes, list[Caveat]]]


CASES = st.builds(
    Case,
    links=CHAINS,
    root_patterns=st.lists(WORDS | st.just("a:$"), min_size=1, max_size=2) | st.just(["a", "b", "c"]),
    is_root_known=st.sampled_from([True, True, True, False]),
    now=TIMES,
    method=METHODS,
    tags=st.frozensets(TAGS, max_size=2),
    local_names=st.lists(WORDS, max_size=2).map(tuple),
    address=st.sampled_from(["10.1.2.3", "fd00::1", "192.0.2.1", "::ffff:10.1.2.3", None]),
    discharges=st.lists(st.tuples(NONCES, st.lists(CAVEATS, max_size=1)), max_size=2),
)


# -- the reference model: what the words of the rules say, in as few words, sharing nothing with the code ------------------


def matches(pattern: str, name: str) -> bool:
    """`a:b` is a:b and below, `a:b:$` only a:b, `...` all, `$` and nothing none."""
    wanted, got = pattern.split(":"), name.split(":")
    if pattern == "...":
        return True
    if wanted[-1] == "$":
        return got == wanted[:-1]
    return pattern != "" and got[: len(wanted)] == wanted


def holds(caveat: Caveat, case: Case, depth: int = 0) -> bool:
    """One rule per id; what has no rule never holds."""
    value = caveat.parameter
    seconds = (case.now - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000
    rules: dict[int, Callable[[], bool]] = {
        0: lambda: value is True,
        1: lambda: seconds <= value,
        2: lambda: case.method in value,
        3: lambda: "..." in value or any(matches(p, n) for p in value for n in case.local_names),
        4: lambda: any(tag in value for tag in case.tags),
        5: lambda: any(
            nonce == value[0] and depth < 4 and all(holds(c, case, depth + 1) for c in caveats)
            for nonce, caveats in case.discharges
        ),
        6: lambda: seconds >= value,
        7: lambda: case.address is not None and any(inside(case.address, network) for network in value),
        1024: lambda: value == 3,
    }
    return caveat.id in rules and rules[caveat.id]()


def inside(address: str, network: str) -> bool:
    """An IPv4 address in IPv6 clothes is the IPv4 address."""
    return ip_address(address.removeprefix("::ffff:")) in ip_network(network)


def is_accepted(case: Case) -> bool:
    """A name counts when its root is recognized for it and every caveat of every certificate holds."""
    name = ":".join(extension for extension, _ in case.links)
    recognized = case.is_root_known and any(matches(p, name) for p in case.root_patterns)
    return recognized and all(holds(c, case) for _, caveats in case.links for c in caveats)


# -------------------------------------------------------------------------------------------------------------------------


async def blessings_of(links: Sequence[tuple[str, Sequence[Caveat]]]) -> Blessings:
    """Return the chain of these links: the first blesses itself, each next one is blessed by the one before."""
    from vanadium_node.security.cose import LocalSigner

    holder = Principal(LocalSigner(KEYS[0]))
    blessings = await holder.bless_self(links[0][0], links[0][1])
    for number, (extension, caveats) in enumerate(links[1:], 1):
        key = KEYS[number]
        blessings = await holder.bless(key.public_key, blessings, extension, caveats)
        holder = Principal(LocalSigner(key))
    return blessings


async def judged(case: Case) -> bool:
    """Return what the code says, after the blessings and discharges went over the wire."""
    blessings = Blessings.decode((await blessings_of(case.links)).encode(), ChainCache())
    roots = BlessingRoots()
    root_key = KEYS[0] if case.is_root_known else KEYS[3]
    for pattern in case.root_patterns:
        roots = roots.with_root(root_key.public_key, Pattern.parse(pattern))
    words = [
        await DISCHARGER.mint_discharge(third_party(nonce).to_caveat(), caveats) for nonce, caveats in case.discharges
    ]
    context = CallContext(
        now=case.now,
        method=case.method,
        tags=case.tags,
        local_names=case.local_names,
        peer_address=case.address,
        discharges=tuple(Discharge.decode(word.encoded) for word in words),
        validators={1024: lambda _, parameter: "" if parameter == 3 else "another number"},
    )
    verdict = validate(blessings, BlessingRoots.decode(roots.encode()), context)
    assert len(verdict.accepted) + len(verdict.rejected) == 1
    assert all(rejected.reason for rejected in verdict.rejected)
    return bool(verdict.accepted)


@settings(deadline=None, max_examples=300)
@given(CASES)
def test_a_chain_is_accepted_exactly_when_the_model_accepts_it(case: Case) -> None:
    """The model knows nothing of signatures or encodings; the code must not accept or refuse anything more for them."""
    assert trio.run(judged, case) == is_accepted(case)


def test_the_model_sees_both_outcomes() -> None:
    """Each kind of caveat decides some call both ways, so that agreement means something."""
    base = Case(
        links=[("a", [Caveat.unconstrained()])],
        root_patterns=["a"],
        is_root_known=True,
        now=START,
        method="Get",
        tags=frozenset({"Read"}),
        local_names=("a:b",),
        address="10.1.2.3",
        discharges=[(b"1" * 16, [])],
    )
    decided = {
        CaveatId.CONST: (Caveat.const(True), Caveat.const(False)),
        CaveatId.EXPIRY: (Caveat.expiry(START), Caveat.expiry(START - timedelta(seconds=1))),
        CaveatId.NOT_BEFORE: (Caveat.not_before(START), Caveat.not_before(START + timedelta(seconds=1))),
        CaveatId.METHOD: (Caveat.method("Get"), Caveat.method()),
        CaveatId.PEER_BLESSINGS: (Caveat.peer_blessings("a"), Caveat.peer_blessings("a:$")),
        CaveatId.ACCESS_TAG: (Caveat.access_tag("Read"), Caveat.access_tag("Write")),
        CaveatId.PEER_ADDRESS: (Caveat.peer_address("10.0.0.0/8"), Caveat.peer_address("fd00::/8")),
        CaveatId.THIRD_PARTY: (third_party(b"1" * 16).to_caveat(), third_party(b"2" * 16).to_caveat()),
    }
    assert set(decided) == set(CaveatId)
    for good, bad in decided.values():
        for caveat, expected in ((good, True), (bad, False)):
            case = Case(**{**{f: getattr(base, f) for f in Case.__dataclass_fields__}, "links": [("a", [caveat])]})
            assert trio.run(judged, case) is is_accepted(case) is expected


def test_discharges_hang_on_one_another_only_so_deep() -> None:
    """A discharge that wants itself ends: it never holds."""
    caveat = third_party(b"1" * 16).to_caveat()
    word = trio.run(DISCHARGER.mint_discharge, caveat, [caveat])
    blessings = trio.run(blessings_of, [("a", [caveat])])
    roots = BlessingRoots().with_roots_of(blessings)
    verdict = validate(blessings, roots, CallContext(now=START, discharges=(word,)))
    assert "deep" in verdict.rejected[0].reason


SAMPLE = trio.run(
    blessings_of,
    [
        ("root", [Caveat.unconstrained()]),
        ("shop", [Caveat.expiry(START), Caveat.method("Get")]),
        ("cart:10.64.0.4:54945", [third_party(b"1" * 16).to_caveat()]),
    ],
).encode()


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_no_mutation_of_a_valid_encoding_is_accepted(data: st.DataObject) -> None:
    """Bytes changed, put in, taken out, or repeated: refused with the declared error, and nothing is remembered of it."""
    start = data.draw(st.integers(0, len(SAMPLE) - 1))
    end = data.draw(st.integers(start, min(len(SAMPLE), start + 80)))
    instead = data.draw(st.binary(max_size=4) | st.just(SAMPLE[start:end] * 2) | st.just(SAMPLE[start:end][::-1]))
    mutated = SAMPLE[:start] + instead + SAMPLE[end:]
    cache = ChainCache()
    if mutated == SAMPLE:
        return
    with pytest.raises(DecodeError):
        Blessings.decode(mutated, cache)
    assert len(cache) == 0


def test_no_single_bit_can_be_changed() -> None:
    """Every bit of the encoding matters, with a cache that knows the original."""
    cache = ChainCache()
    Blessings.decode(SAMPLE, cache)
    for at in range(len(SAMPLE)):
        for bit in range(0, 8, 3):
            with pytest.raises(DecodeError):
                Blessings.decode(SAMPLE[:at] + bytes([SAMPLE[at] ^ 1 << bit]) + SAMPLE[at + 1 :], cache)
    assert len(cache) == 1


NASTY = {
    "NUL": "ro\0ot",
    "newline": "root\n",
    "carriage return": "root\r",
    "escape": "\x1b[31mroot",
    "delete": "root\x7f",
    "right-to-left override": "root\u202etoor",
    "zero width space": "ro\u200bot",
    "byte order mark": "\ufeffroot",
    "line separator": "root\u2028",
    "no-break space": "ro\u00a0ot",
    "lone surrogate": "ro\ud800ot",
    "unassigned": "ro\U000e0080ot",
    "64 KiB": "r" * 65536,
    "64 KiB of parts": "r:" * 32767 + "r",
    "a path up": "../root",
}


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY.keys())
def test_names_that_cannot_be(name: str) -> None:
    """Not as an extension, not as a pattern, and the sentence that says so fits one line."""
    for refuse in (lambda: trio.run(blessings_of, [(name, [])]), lambda: Pattern.parse(name)):
        with pytest.raises(InputError) as caught:
            refuse()
        assert len(str(caught.value)) < 600
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["..", ".", "-rf", "a b", "Ω", "müller", "名前", "e\u0301", "a" * 1024, "x@y.org", "%s{0}"]
)
def test_names_that_look_odd_but_can_be(name: str) -> None:
    """A name is text: nothing is read into it, and it survives the wire unchanged."""
    blessings = trio.run(blessings_of, [(name, []), ("below", [Caveat.unconstrained()])])
    read = Blessings.decode(blessings.encode())
    assert read.names == (f"{name}:below",)
    assert Pattern.parse(name).is_matched_by(read.names[0])


def test_letters_that_look_the_same_are_not() -> None:
    """A composed letter and the same one with a combining character are two names: bytes decide, never looks."""
    composed, combined = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert composed != combined
    assert not Pattern.parse(composed).is_matched_by(combined)
    assert not Pattern.parse("e").is_matched_by(combined)


def test_the_cache_knows_chains_by_every_byte() -> None:
    """A chain whose last certificate another's replaces is verified anew, whatever is remembered of the rest."""
    cache = ChainCache()
    one = trio.run(blessings_of, [("a", []), ("b", [Caveat.const(False)])])
    two = trio.run(blessings_of, [("a", [Caveat.method("Get")]), ("b", [Caveat.unconstrained()])])
    for blessings in (one, two):
        assert Blessings.decode(blessings.encode(), cache) == blessings
    roots, free = one.chains[0].certificates[0].encoded, two.chains[0].certificates[1].encoded
    with pytest.raises(DecodeError):
        Blessings.decode(cbor.encode([[roots, free]]), cache)
    assert len(cache) == 2


def test_the_cache_stays_within_its_bounds() -> None:
    """However many chains strangers show."""
    cache = ChainCache(max_bytes=8000)
    for number in range(30):
        Blessings.decode(trio.run(blessings_of, [(f"name{number}", [])]).encode(), cache)
    assert 0 < len(cache) < 8
