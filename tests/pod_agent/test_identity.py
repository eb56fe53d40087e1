"""A replica's identity in time, on a clock that is turned by the test: waiting, renewing, expiring."""

import logging
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest
import trio
import trio.testing
from agent_parties import START, bless, default_of, mock_now, new_root
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.errors import CallError, ErrorCode, UnreachableError, VanadiumError
from vanadium_node.pod_agent.identity import (
    ATTEMPT_SECONDS,
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    LOOK_SECONDS,
    RENEWAL_SHARE,
    ReplicaIdentity,
    renewal_time,
)
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.principal import Principal


class ClusterAgent:
    """Gives blessings with a lifetime, or fails as told; remembers when it was asked."""

    def __init__(self, root: Principal, replica: Principal, ttl_seconds: float | None) -> None:
        self.root, self.replica, self.ttl_seconds = root, replica, ttl_seconds
        self.asked: list[float] = []
        self.trouble: VanadiumError | None = None
        self.hangs = False

    async def __call__(self) -> Blessings:
        self.asked.append(trio.current_time())
        if self.hangs:
            await trio.sleep_forever()
        if self.trouble is not None:
            raise self.trouble
        caveat = Caveat.unconstrained()
        if self.ttl_seconds is not None:
            caveat = Caveat.expiry(mock_now() + timedelta(seconds=self.ttl_seconds))
        return await bless(self.root, self.replica, f"r{len(self.asked)}", caveat)


class Shown:
    """Remembers when there was an identity, and which one it is about."""

    identity: ReplicaIdentity

    def __init__(self) -> None:
        self.changes: list[tuple[float, bool]] = []

    def __call__(self, is_valid: bool) -> None:
        self.changes.append((trio.current_time(), is_valid))

    def is_valid(self) -> bool:
        """Tell whether there is one."""
        return bool(self.changes) and self.changes[-1][1]


async def started(
    nursery: trio.Nursery, ttl_seconds: float | None, *, now: Callable[..., object] = mock_now
) -> tuple[ClusterAgent, Shown, Principal]:
    """Start keeping an identity."""
    root = await new_root()
    replica = Principal((await new_root()).signer, roots=root.roots)
    agent, shown = ClusterAgent(root, replica, ttl_seconds), Shown()
    shown.identity = ReplicaIdentity(replica, agent, on_change=shown, now=now)  # type: ignore[arg-type]
    nursery.start_soon(shown.identity.keep)
    return agent, shown, replica


async def test_renewal_at_half_of_life_with_jitter(autojump_clock: trio.testing.MockClock) -> None:
    """Over many lives the identity never lapses, and no two renewals are in step."""
    with trio.move_on_after(100 * 3600) as scope:
        async with trio.open_nursery() as nursery:
            agent, shown, replica = await started(nursery, 3600)
    assert scope.cancelled_caught
    gaps = [later - earlier for earlier, later in pairwise(agent.asked)]
    low, high = RENEWAL_SHARE
    assert all(3600 * low <= gap <= 3600 * high + 1 for gap in gaps)
    assert len(gaps) > 150
    assert len({round(gap) for gap in gaps}) > 20
    assert all(valid for _, valid in shown.changes)
    assert default_of(replica).names == (f"root:r{len(agent.asked)}",)


async def test_without_an_end_nothing_is_renewed(autojump_clock: trio.testing.MockClock) -> None:
    """Blessings that never expire are asked for once."""
    with trio.move_on_after(10**5):
        async with trio.open_nursery() as nursery:
            agent, _, _ = await started(nursery, None)
    assert len(agent.asked) == 1


async def test_it_waits_for_the_cluster_agent(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it takes: tries are spread and bounded, and each kind of trouble is said once."""
    caplog.set_level(logging.WARNING)
    async with trio.open_nursery() as nursery:
        agent, shown, _ = await started(nursery, 3600)
        agent.trouble = UnreachableError("nobody answers at cluster-agent:8193")
        await trio.sleep(3600)
        agent.trouble = CallError(ErrorCode.NOT_FOUND, "the secret is unknown here")
        await trio.sleep(3600)
        assert shown.changes == []
        agent.trouble = None
        await trio.sleep(LAST_RETRY_SECONDS)
        assert shown.is_valid()
        gaps = [later - earlier for earlier, later in pairwise(agent.asked)]
        agent.asked.clear()
        agent.trouble = UnreachableError("for a moment")
        await trio.sleep(3600 * 0.6)
        assert agent.asked[1] - agent.asked[0] < 2 * FIRST_RETRY_SECONDS, "patience grows anew with each trouble"
        nursery.cancel_scope.cancel()
    assert max(gaps) <= LAST_RETRY_SECONDS + 1
    assert sum(gaps) / len(gaps) > LAST_RETRY_SECONDS / 2 - 0.2
    assert [record.getMessage() for record in caplog.records] == [
        "no identity yet, trying on: nobody answers at cluster-agent:8193",
        "no identity yet, trying on: the secret is unknown here",
        "no new blessings yet, trying on: for a moment",
    ]


async def test_a_cluster_agent_that_never_answers(autojump_clock: trio.testing.MockClock) -> None:
    """A try ends after a while, and the next one may find it well."""
    async with trio.open_nursery() as nursery:
        agent, shown, _ = await started(nursery, 3600)
        agent.hangs = True
        await trio.sleep(ATTEMPT_SECONDS / 2)
        agent.hangs = False
        assert not shown.is_valid()
        await trio.sleep(ATTEMPT_SECONDS)
        assert shown.is_valid()
        nursery.cancel_scope.cancel()


async def test_a_try_that_hangs_leaves_time_for_others(autojump_clock: trio.testing.MockClock) -> None:
    """While there is an identity, whatever is left of its life."""
    async with trio.open_nursery() as nursery:
        agent, shown, _ = await started(nursery, 100)
        await trio.sleep(1)
        agent.hangs = True
        await trio.sleep(98)
        assert 4 <= len(agent.asked) - 1 <= 20
        assert shown.is_valid()
        nursery.cancel_scope.cancel()


async def test_an_overloaded_cluster_agent_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    """When it says after how long to come again, nobody comes earlier, and not all at that moment."""
    async with trio.open_nursery() as nursery:
        agent, _, _ = await started(nursery, 3600)
        agent.trouble = CallError(ErrorCode.OVERLOADED, "too many", fields={"retry_after_ms": 15000})
        await trio.sleep(300)
        nursery.cancel_scope.cancel()
    gaps = [later - earlier for earlier, later in pairwise(agent.asked)]
    assert all(15 <= gap <= 19 for gap in gaps)
    assert len({round(gap, 1) for gap in gaps}) > 5


async def test_the_identity_ends_and_comes_back(autojump_clock: trio.testing.MockClock) -> None:
    """While the cluster agent is away the old blessings serve until their end; then there is no identity until it is back."""
    async with trio.open_nursery() as nursery:
        agent, shown, _ = await started(nursery, 600)
        await trio.sleep(1)
        agent.trouble = UnreachableError("away")
        await trio.sleep(598)
        assert shown.is_valid()
        await trio.sleep(2)
        assert not shown.is_valid()
        ((begin, _), (end, _)) = shown.changes
        assert 600 <= end - begin < 600.1
        await trio.sleep(3600)
        agent.trouble = None
        await trio.sleep(LAST_RETRY_SECONDS)
        assert shown.is_valid()
        nursery.cancel_scope.cancel()


async def test_an_outage_shorter_than_what_is_left_is_never_noticed(autojump_clock: trio.testing.MockClock) -> None:
    """With lives of 3 s, an outage that ends 0.2 s before the end of the identity does not interrupt it."""
    async with trio.open_nursery() as nursery:
        agent, shown, _ = await started(nursery, 3)
        for _ in range(200):
            before = len(agent.asked)
            while len(agent.asked) == before:  # noqa: ASYNC110 - turning a clock, nothing to wait for
                await trio.sleep(0.01)
            agent.trouble = UnreachableError("away")
            await trio.sleep(2.75)
            agent.trouble = None
            await trio.sleep(0.25)
        assert all(valid for _, valid in shown.changes)
        nursery.cancel_scope.cancel()


async def test_an_outage_is_told_before_it_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    """The identity is good and the agent ready; whoever looks sees that it will not be renewed, until it was."""
    async with trio.open_nursery() as nursery:
        agent, shown, _ = await started(nursery, 1000)
        await trio.sleep(1)
        assert shown.identity.worries() == ()
        agent.trouble = UnreachableError("away", hint="start it")
        await trio.sleep(700)
        assert shown.identity.not_ready() == ()
        assert shown.identity.worries() == ("the last renewal failed: away; start it",)
        agent.trouble = None
        await trio.sleep(200)
        assert shown.identity.worries() == ()
        agent.trouble = UnreachableError("away")
        await trio.sleep(2000)
        assert shown.identity.worries() == ()
        assert shown.identity.not_ready() == ("the identity has expired", "away")
        nursery.cancel_scope.cancel()


async def test_after_a_suspend_the_wall_clock_counts(autojump_clock: trio.testing.MockClock) -> None:
    """A night asleep passes no time on trio's clock; within half a minute the identity is found expired and renewed."""
    asleep = [timedelta(0)]
    async with trio.open_nursery() as nursery:
        root = await new_root()
        replica = Principal((await new_root()).signer, roots=root.roots)
        shown, asked = Shown(), []

        async def seek() -> Blessings:
            asked.append(trio.current_time())
            end = mock_now() + asleep[0] + timedelta(hours=1)
            return await bless(root, replica, "r", Caveat.expiry(end))

        identity = ReplicaIdentity(replica, seek, on_change=shown, now=lambda: mock_now() + asleep[0])
        nursery.start_soon(identity.keep)
        await trio.sleep(60)
        asleep[0] = timedelta(hours=8)
        await trio.sleep(LOOK_SECONDS + 1)
        assert shown.is_valid()
        assert len(asked) == 2
        nursery.cancel_scope.cancel()


async def test_a_clock_that_is_set_back_brings_the_identity_back(autojump_clock: trio.testing.MockClock) -> None:
    """A clock that ran ahead for a while hides the identity for as long, no longer."""
    ahead = [timedelta(0)]
    async with trio.open_nursery() as nursery:
        agent, shown, _ = await started(nursery, 3600, now=lambda: mock_now() + ahead[0])
        await trio.sleep(1)
        agent.trouble = UnreachableError("away")
        ahead[0] = timedelta(hours=2)
        await trio.sleep(LOOK_SECONDS + 1)
        assert not shown.is_valid()
        ahead[0] = timedelta(0)
        await trio.sleep(LOOK_SECONDS + 1)
        assert shown.is_valid()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("back", [timedelta(minutes=10), timedelta(hours=10), timedelta(days=3650)])
async def test_a_clock_that_is_set_back_delays_no_renewal(
    autojump_clock: trio.testing.MockClock, back: timedelta
) -> None:
    """Half of the life has passed when it has, whatever the wall clock shows then."""
    behind = [timedelta(0)]
    async with trio.open_nursery() as nursery:
        agent, shown, _ = await started(nursery, 3600, now=lambda: mock_now() - behind[0])
        await trio.sleep(60)
        behind[0] = back
        await trio.sleep(3600 * RENEWAL_SHARE[1])
        assert len(agent.asked) == 2
        assert all(valid for _, valid in shown.changes)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("ttl_seconds", [-1, 0, 0.001])
async def test_blessings_that_end_as_they_are_taken(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, ttl_seconds: float
) -> None:
    """A machine that slept between looking at them and taking them asks again, and hammers nobody."""
    async with trio.open_nursery() as nursery:
        agent, shown, _ = await started(nursery, ttl_seconds)
        await trio.sleep(60)
        assert 5 < len(agent.asked) <= 60 / FIRST_RETRY_SECONDS + 1
        agent.ttl_seconds = 3600
        await trio.sleep(LAST_RETRY_SECONDS)
        assert shown.is_valid()
        nursery.cancel_scope.cancel()


async def test_the_first_end_of_several_chains_counts() -> None:
    """Blessings of several chains are renewed before the first of them ends."""
    root, replica = await new_root(), await new_root()
    chains = [
        await bless(root, replica, "short", Caveat.expiry(START + timedelta(hours=1))),
        await bless(root, replica, "long", Caveat.expiry(START + timedelta(hours=9))),
        await bless(root, replica, "for-ever"),
    ]
    renewal = renewal_time(Blessings.union(*chains), START)
    assert renewal is not None
    assert renewal < START + timedelta(hours=1)


async def test_a_clock_that_is_behind_renews_in_time_all_the_same(autojump_clock: trio.testing.MockClock) -> None:
    """Blessings that seem to live an hour longer than they do are renewed before they end for everybody else."""
    async with trio.open_nursery() as nursery:
        root = await new_root()
        replica = Principal((await new_root()).signer, roots=root.roots)
        agent, shown, hour = ClusterAgent(root, replica, 600), Shown(), timedelta(hours=1)
        identity = ReplicaIdentity(replica, agent, on_change=shown, now=lambda: mock_now() - hour, behind=lambda: hour)
        nursery.start_soon(identity.keep)
        await trio.sleep(6000)
        nursery.cancel_scope.cancel()
    gaps = [later - earlier for earlier, later in pairwise(agent.asked)]
    assert all(600 * RENEWAL_SHARE[0] <= gap <= 600 * RENEWAL_SHARE[1] + 1 for gap in gaps)


@pytest.mark.parametrize("days", [1, 365])
async def test_a_clock_that_is_behind_by_more_than_a_life_hammers_nobody(days: int) -> None:
    """What cannot be, the cluster agent giving blessings that are over, is not believed."""
    root, replica = await new_root(), await new_root()
    blessings = await bless(root, replica, "r", Caveat.expiry(START + timedelta(hours=1)))
    renewal = renewal_time(blessings, START, timedelta(days=days))
    assert renewal is not None
    assert renewal > START + timedelta(minutes=25)


@given(st.floats(min_value=0.01, max_value=10**9))
def test_there_is_always_time_left_after_a_renewal_is_due(seconds: float) -> None:
    """Whatever the lifetime, the renewal lies about half-way."""

    async def check() -> None:
        root, replica = await new_root(), await new_root()
        end = START + timedelta(milliseconds=round(seconds * 1000))
        renewal = renewal_time(await bless(root, replica, "r", Caveat.expiry(end)), START)
        assert renewal is not None
        assert 0.44 < (renewal - START) / (end - START) < 0.56

    trio.run(check)
