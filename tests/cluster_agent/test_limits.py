"""Rate limits: so many calls, no more; whoever is turned away is told a time of its own; tables do not grow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.cluster_agent.limits import BURST_SECONDS, MAX_WAIT_SECONDS, Limits, RateLimit, host_of
from vanadium_node.errors import CallError, ErrorCode


@given(st.integers(1, 50), st.lists(st.floats(0, 3), max_size=300))
def test_never_more_than_the_rate_and_a_burst(rate: int, pauses: list[float]) -> None:
    """In whatever rhythm calls come, those that pass are at most the burst and what the time allows."""
    limit: RateLimit[str] = RateLimit(rate)
    now, passed = 0.0, 0
    for pause in pauses:
        now += pause
        wait = limit.take("key", now)
        assert 0 <= wait <= MAX_WAIT_SECONDS + 1e-6
        passed += wait == 0
        assert passed <= rate * BURST_SECONDS + now * rate + 1e-6


def test_those_turned_away_come_back_one_after_the_other() -> None:
    """A thousand at once get times that the rate can serve, and are served when they come then."""
    limit: RateLimit[str] = RateLimit(100)
    waits = [limit.take("key", 0.0) for _ in range(2000)]
    assert waits.count(0.0) == 1000
    later = [wait for wait in waits if wait]
    assert later == sorted(later)
    assert later[0] == pytest.approx(0.01)
    assert later[-1] == pytest.approx(10)
    assert all(limit.take("key", wait + 1e-6) == 0 for wait in later)


def test_keys_are_apart_and_bounded() -> None:
    """One key's calls cost no other's; of too many keys, the one not heard of for longest is forgotten."""
    limit: RateLimit[int] = RateLimit(1, max_keys=10)
    for _ in range(BURST_SECONDS):
        assert limit.take(0, 0.0) == 0
    assert limit.take(0, 0.0) > 0
    for key in range(1, 100):
        assert limit.take(key, 0.0) == 0
    assert len(limit) == 10


def test_no_limit() -> None:
    """A rate of 0 is none, and remembers nothing."""
    limit: RateLimit[str] = RateLimit(0)
    assert all(limit.take("key", 0.0) == 0 for _ in range(10_000))
    assert len(limit) == 0


def test_work_in_flight_is_bounded() -> None:
    """Beyond the bound callers are told when to come again, spread over time; who ends makes room, also by an error."""
    limits = Limits(per_secret=0, per_address=0, in_flight=2, clock=lambda: 100.0)
    waits = []
    with limits.admitted(), limits.admitted():
        for _ in range(5):
            with pytest.raises(CallError) as refused, limits.admitted():
                pytest.fail("it was admitted")
            assert refused.value.code is ErrorCode.OVERLOADED
            waits.append(int(refused.value.fields["retry_after_ms"]))
    assert waits == sorted(waits)
    assert waits[0] >= 500
    with pytest.raises(ZeroDivisionError), limits.admitted():
        _ = 1 / 0
    with limits.admitted(), limits.admitted():
        assert limits.turned_away == 5


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("10.0.0.1:80", "10.0.0.1"),
        ("[2001:db8::1]:80", "2001:db8::/64"),
        ("[2001:db8::ffff:1]:80", "2001:db8::/64"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1"),
        ("", ""),
    ],
)
def test_who_is_counted(address: str, host: str) -> None:
    """The port does not count, nor which of a network's IPv6 addresses a host took."""
    assert host_of(address) == host
