"""What a blessing store shows to whom, and that it never takes more than can be shown."""

from functools import cache

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.errors import InputError
from vanadium_node.security.blessing import MAX_CHAINS, Blessings
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.security.store import BlessingStore

CHAINS_EACH = 5
NAMES = ["a", "b", "a:a", "a:b", "b:a", "a:a:a", "a:a:b", "c"]
PATTERNS = [Pattern.parse(p) for p in ("...", "", "$", *NAMES[:6], *(f"{name}:$" for name in NAMES[:6]))]


@cache
def pieces() -> list[Blessings]:
    """Blessings of one key, of five chains each, no chain in two of them."""

    async def make() -> list[Blessings]:
        principal = await Principal.create(PrivateKey.generate(), "one")
        names = [[f"n{piece}-{number}" for number in range(CHAINS_EACH)] for piece in range(6)]
        return [Blessings.union(*[await principal.bless_self(name) for name in row]) for row in names]

    return trio.run(make)


@given(chosen=st.lists(st.tuples(st.sampled_from(PATTERNS), st.integers(0, 5)), max_size=8))
def test_what_is_stored_can_be_shown_to_every_name(chosen: list[tuple[Pattern, int]]) -> None:
    """A choice is refused exactly when it leaves a name with too many; then the store is what it was."""
    store = BlessingStore()
    for pattern, piece in chosen:
        wanted = {**store.peers, pattern: pieces()[piece]}
        worst = max(
            len({chain for p, b in wanted.items() if p.matches(names) for chain in b.chains})
            for names in ([], *([name] for name in NAMES))
        )
        if worst > MAX_CHAINS:
            with pytest.raises(InputError, match=r"are too many.*set forpeer"):
                store.with_peer(pattern, pieces()[piece])
        else:
            store = store.with_peer(pattern, pieces()[piece])
            assert store.peers[pattern] == pieces()[piece]
    for name in NAMES:
        store.for_peer([name])


async def test_a_refused_choice_changes_nothing() -> None:
    """The principal shows what it showed before."""
    principal = await Principal.create(PrivateKey.generate(), "one")
    many = Blessings.union(*[await principal.bless_self(f"n{number}") for number in range(MAX_CHAINS - 1)])
    await principal.set_for_peer(many, Pattern.parse("root:shop"))
    before = principal.store
    assert before.for_peer(["root:bank"]) == before.default, "what `...` chooses"
    with pytest.raises(InputError, match="the blessings to show to 'root:shop' are too many"):
        await principal.set_for_peer(await principal.bless_self("one-more"), Pattern.parse("root"))
    assert principal.store is before


def test_all_that_matches_is_shown() -> None:
    """A server with several names sees what is chosen for each, once."""
    one, two, three, *_ = pieces()
    store = BlessingStore().with_peer(Pattern.parse("a"), one).with_peer(Pattern.parse("b:$"), two)
    store = store.with_peer(Pattern.parse("a:b"), Blessings.union(one, two)).with_peer(Pattern.parse("c"), three)
    assert store.for_peer(["a:b:c"]) == store.for_peer(["a", "b"]) == Blessings.union(one, two)
    assert store.for_peer(["b:x"]) is None
    with pytest.raises(InputError, match=r"to show to 'a, b, c, d' are too many.*"):
        store.with_peer(Pattern.parse("d"), pieces()[3]).for_peer(["a", "b", "c", "d"])
