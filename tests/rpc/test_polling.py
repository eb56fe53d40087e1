"""Polling a connection whose messages follow each other closely, and going to sleep in all other cases."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from vanadium_node.rpc import polling
from vanadium_node.rpc.background import Background
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.polling import BUSY_SECONDS, CLOSE_MESSAGES, CLOSE_SECONDS, TURNS, Polling
from vanadium_node.rpc.tls import PlainChannel
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.frames import Pong, encode_frame
from vanadium_node.wire.handshake import Role
from vanadium_node.wire.limits import DEFAULT_LIMITS


class Turns(trio.abc.Instrument):
    """Counts what the scheduler does between its looks at sockets."""

    def __init__(self) -> None:
        self.turns = self.sleeps = 0

    def before_io_wait(self, timeout: float) -> None:
        """Count a turn, and whether it sleeps."""
        self.turns += 1
        self.sleeps += timeout > 0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that do not block."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which polling is worth it."""
    monkeypatch.setattr(polling, "_may_poll", lambda: True)


@pytest.mark.parametrize(
    ("messages", "seconds", "is_due"),
    [
        (1, CLOSE_SECONDS / 2, True),
        (1, CLOSE_SECONDS, False),
        (0, CLOSE_SECONDS / 2, False),
        (2, CLOSE_SECONDS / 2, False),
    ],
)
@pytest.mark.usefixtures("two_processors")
def test_due_after_single_messages_close_together(messages: int, seconds: float, is_due: bool) -> None:
    """Batches say that many calls are under way, and pauses that nobody waits; each message decides anew."""
    polls = Polling()
    for _ in range(CLOSE_MESSAGES - 1):
        polls.received(1, 0.0)
        assert not polls.is_due
    polls.received(1, 0.0)
    assert polls.is_due
    polls.received(messages, seconds)
    assert polls.is_due is is_due
    polls.received(1, 0.0)
    assert polls.is_due is is_due


def test_never_due_on_a_single_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks there keeps the peer from answering."""
    may_poll = polling._may_poll.__wrapped__
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 3}, raising=False)
    assert may_poll()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3}, raising=False)
    assert not may_poll()
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert not may_poll()
    monkeypatch.setattr(polling, "_may_poll", may_poll)
    polls = Polling()
    for _ in range(2 * CLOSE_MESSAGES):
        polls.received(1, 0.0)
    assert not polls.is_due


async def test_asks_for_so_many_turns_and_no_more(pair: tuple[socket.socket, socket.socket]) -> None:
    """A peer that says nothing gets the usual sleep soon, whatever the clock says."""
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    assert await Polling().poll(pair[0], 100) is None
    trio.lowlevel.remove_instrument(turns)
    assert turns.turns <= TURNS + 1
    assert turns.sleeps == 0


async def test_returns_what_comes_without_a_sleep(
    pair: tuple[socket.socket, socket.socket], mock_clock: trio.testing.MockClock
) -> None:
    """The other tasks of the process run meanwhile, in no time: one of them is the peer."""
    near, far = pair

    async def answer_later() -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        far.send(b"answer")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_later)
        assert await Polling().poll(near, 100) == b"answer"
    far.close()
    assert await Polling().poll(near, 100) == b""


async def test_sees_a_socket_that_breaks(pair: tuple[socket.socket, socket.socket]) -> None:
    """Such as one that is closed by another task."""
    pair[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        await Polling().poll(pair[0], 100)


async def test_stops_when_others_have_work(pair: tuple[socket.socket, socket.socket]) -> None:
    """The process is awake anyway; the first turn, in which the last message is acted upon, does not count."""
    clock = trio.testing.MockClock()
    turns = 0

    async def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            clock.jump(2 * BUSY_SECONDS)
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            assert await Polling().poll(pair[0], 100) is None
            nursery.cancel_scope.cancel()

    await trio.to_thread.run_sync(lambda: trio.run(main, clock=clock))
    assert turns < TURNS / 2


async def test_can_be_cancelled(pair: tuple[socket.socket, socket.socket]) -> None:
    """At any turn, and nothing is taken from the socket."""
    with trio.CancelScope() as scope:
        scope.cancel()
        pair[1].send(b"kept")
        await Polling().poll(pair[0], 100)
    assert scope.cancelled_caught
    assert pair[0].recv(100) == b"kept"


@pytest.mark.usefixtures("two_processors")
async def test_a_link_stays_awake_only_between_close_messages(
    pair: tuple[socket.socket, socket.socket], mock_clock: trio.testing.MockClock
) -> None:
    """The first messages find it asleep, as do those after a pause; the one that comes late had been waited for awake."""
    near, far = pair
    pong = encode_frame(Pong(0, 1))
    slept: list[bool] = []

    async def answer_later() -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        far.send(pong)

    async with trio.open_nursery() as nursery:
        link = Link(
            near,
            PlainChannel(),
            Connection(Role.CLIENT, authenticates=False),
            DEFAULT_LIMITS,
            Background(nursery.start_soon),
        )
        for pause in (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0):
            mock_clock.jump(pause)
            turns = Turns()
            trio.lowlevel.add_instrument(turns)
            nursery.start_soon(answer_later)
            assert await link.receive() == [Pong(0, 1)]
            trio.lowlevel.remove_instrument(turns)
            slept.append(turns.sleeps > 0)
    assert slept == [True, True, True, True, False, False, True]
