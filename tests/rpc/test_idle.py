"""Silence on an open connection, by a clock that jumps: honest ends ask and answer, others are given up."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
import trio
from attacker import introduced
from hanging import Hanging
from rpc_parties import Parties, served
from tcp_gate import gate_to
from trio.testing import MockClock, wait_all_tasks_blocked
from until import eventually

from vanadium_node.errors import CallError, ErrorCode, UnreachableError
from vanadium_node.rpc import connect
from vanadium_node.security.caveat import Caveat
from vanadium_node.wire.limits import Limits

ALWAYS = [Caveat.unconstrained()]

IDLE = 4.0
"""Not more: a server looks at its blessings every second, and each jump of the clock takes a moment."""
LIMITS = Limits(idle_timeout=timedelta(seconds=IDLE))


@pytest.fixture
def clock() -> MockClock:
    """A clock that jumps to what is due next when everybody has waited for a moment."""
    return MockClock(autojump_threshold=0.01)


async def test_two_honest_ends_stay_connected(clock: MockClock, family: Parties) -> None:
    """With nothing to say for many times the idle time, and with a call that takes as long."""
    async with (
        served(family, LIMITS) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock, limits=LIMITS) as client,
    ):
        await trio.sleep(12 * IDLE)
        assert server.connections == 1
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                assert await client.call("Wait", timeout=None) == "done"

            nursery.start_soon(wait)
            await trio.sleep(12 * IDLE)
            family.service.may_go.set()
        assert await client.call("Quick", "x") == "x"
        assert client.is_open


@pytest.mark.parametrize("is_calling", [False, True])
async def test_a_server_that_falls_silent(clock: MockClock, family: Parties, is_calling: bool) -> None:
    """It is asked after the idle time and given up after twice that; a call that waits is told, and so are later ones."""
    async with (
        served(family, LIMITS) as server,
        gate_to(server.addresses[0]) as gate,
        connect(f"/{gate.address}", family.client, now=family.clock, limits=LIMITS) as client,
    ):
        assert await client.call("Quick", "x") == "x"
        gate.silence()
        since = trio.current_time()
        if is_calling:
            with pytest.raises(UnreachableError, match=r"nothing came for \d+ s, not even an answer to a ping"):
                await client.call("Wait", timeout=None)
            assert 2 * IDLE <= trio.current_time() - since <= 3 * IDLE
        else:
            await trio.sleep(3 * IDLE)
            assert not client.is_open
        with pytest.raises(UnreachableError, match="not even an answer to a ping"):
            await client.call("Quick", "x")


async def test_a_deadline_ends_a_call_before_its_silent_server_is_given_up(clock: MockClock, family: Parties) -> None:
    """The call's own time is the caller's to choose."""
    async with (
        served(family, LIMITS) as server,
        gate_to(server.addresses[0]) as gate,
        connect(f"/{gate.address}", family.client, now=family.clock, limits=LIMITS) as client,
    ):
        assert await client.call("Quick", "x") == "x"
        gate.silence()
        with pytest.raises(CallError) as caught:
            await client.call("Quick", "x", timeout=IDLE / 2)
        assert caught.value.code is ErrorCode.TIMEOUT
        assert client.is_open


async def test_a_client_that_falls_silent(clock: MockClock, family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """Its calls are cancelled, and the log says why; one that answers stays."""
    caplog.set_level(logging.INFO)
    async with (
        served(family, LIMITS) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock, limits=LIMITS) as honest,
        introduced(server.addresses[0], family.client) as silent,
    ):
        assert await honest.call("Quick", "x") == "x"
        silent.wire.send_request("Wait", "", [])
        await silent.send(silent.wire.take_outgoing())
        await family.service.is_busy.wait()
        since = trio.current_time()
        while server.connections == 2:  # noqa: ASYNC110 - the server's state has no event
            await trio.sleep(IDLE / 10)
        assert 2 * IDLE <= trio.current_time() - since <= 3 * IDLE
        await wait_all_tasks_blocked()
        assert family.service.events == ["cancelled"]
        assert "not even an answer to a ping" in caplog.text
        assert await honest.call("Quick", "x") == "x"


async def test_an_agent_that_hangs_keeps_no_peer_alive(clock: MockClock, family: Parties) -> None:
    """The server's blessings are renewed, its agent does not sign, and a silent client is given up all the same."""
    async with (
        served(family, LIMITS) as server,
        introduced(server.addresses[0], family.client),
    ):
        await eventually(lambda: server.strangers == 0)
        behind = family.server
        behind._signer = Hanging(behind.public_key)
        own = family.root.store.default
        assert own is not None
        behind.store = behind.store.with_default(await family.root.bless(behind.public_key, own, "server:new", ALWAYS))
        with trio.fail_after(4 * IDLE):
            while server.connections:  # noqa: ASYNC110 - the server's state has no event
                await trio.sleep(IDLE / 10)
