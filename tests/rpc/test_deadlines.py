"""Deadlines of many calls with one task: each is told when it is due, whatever becomes of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from vanadium_node.rpc.deadlines import Deadlines


@pytest.fixture
def clock() -> MockClock:
    """A clock that a test moves."""
    return MockClock()


class Noting:
    """Deadlines whose keys note when they were due; some fail."""

    def __init__(self) -> None:
        self.due: list[tuple[str, float]] = []
        self.deadlines = Deadlines[str](self.expire)

    def expire(self, key: str) -> None:
        """Note it."""
        self.due.append((key, trio.current_time()))
        if key == "a bug":
            raise ZeroDivisionError(key)
        if key == "again":
            self.deadlines.add("later", trio.current_time() + 5)


@pytest.fixture
async def noting(clock: MockClock, nursery: trio.Nursery) -> AsyncIterator[Noting]:
    """Deadlines that are watched."""
    watched = Noting()
    nursery.start_soon(watched.deadlines.run)
    await wait_all_tasks_blocked()
    yield watched
    nursery.cancel_scope.cancel()


async def move(clock: MockClock, seconds: float) -> None:
    """Let time pass, and what is due be done."""
    clock.jump(seconds)
    await wait_all_tasks_blocked()


async def test_each_is_due_in_its_time(clock: MockClock, noting: Noting) -> None:
    """In whatever order they were added, also an earlier one than the one that is waited for."""
    start = trio.current_time()
    for key, seconds in (("third", 30), ("first", 10), ("second", 20)):
        noting.deadlines.add(key, start + seconds)
    for _ in range(7):
        await move(clock, 5)
    assert noting.due == [("first", start + 10), ("second", start + 20), ("third", start + 30)]


async def test_discarded_ones_are_never_due(clock: MockClock, noting: Noting) -> None:
    """Nor are those that were moved due at the old time."""
    start = trio.current_time()
    noting.deadlines.add("gone", start + 10)
    noting.deadlines.add("moved", start + 10)
    noting.deadlines.discard("gone")
    noting.deadlines.discard("never there")
    noting.deadlines.add("moved", start + 20)
    await move(clock, 15)
    assert noting.due == []
    await move(clock, 5)
    assert noting.due == [("moved", start + 20)]


async def test_what_is_due_may_add_another(clock: MockClock, noting: Noting) -> None:
    """As a connection does that is looked at now and then."""
    start = trio.current_time()
    noting.deadlines.add("again", start + 10)
    await move(clock, 10)
    await move(clock, 5)
    assert noting.due == [("again", start + 10), ("later", start + 15)]


async def test_a_bug_in_one_is_logged_and_the_others_are_told(
    clock: MockClock, noting: Noting, caplog: pytest.LogCaptureFixture
) -> None:
    """All clients of a program have these in common: one that fails must not end the program, nor the others' deadlines."""
    start = trio.current_time()
    for key, seconds in (("before", 10), ("a bug", 10), ("with it", 10), ("after", 20)):
        noting.deadlines.add(key, start + seconds)
    await move(clock, 10)
    await move(clock, 10)
    assert [key for key, _ in noting.due] == ["before", "a bug", "with it", "after"]
    assert "ZeroDivisionError: a bug" in caplog.text
