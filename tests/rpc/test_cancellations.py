"""Cancelling either end at any point: the other end learns of it, nothing is left, and the connection goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from rpc_parties import Parties, connected, served
from trio.testing import wait_all_tasks_blocked

from vanadium_node.errors import CallError, ErrorCode, UnreachableError
from vanadium_node.rpc import Client, connect, serve
from vanadium_node.security.authorization import everyone
from vanadium_node.wire.limits import Limits


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds that the other end brings about."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the condition is the server's, which has no event for it
            await trio.sleep(0.01)


async def until(happened: list[str], event: str) -> None:
    """Wait until a method has reported an event."""
    await eventually(lambda: event in happened)


async def test_cancelling_the_caller_cancels_the_method(client: Client, family: Parties) -> None:
    """Leaving the scope of a call ends the method at its next checkpoint; the connection goes on."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.call, "Wait")
        await family.service.is_busy.wait()
        nursery.cancel_scope.cancel()
    await until(family.service.events, "cancelled")
    assert await client.call("Echo", "on it goes") == "on it goes"


async def test_a_call_that_was_cancelled_before_it_was_sent(client: Client, family: Parties) -> None:
    """Nothing hangs, whichever of request and cancel goes first."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.call("Wait")
    assert scope.cancelled_caught
    assert await client.call("Echo", "x") == "x"


async def test_one_scope_around_a_connection_and_its_first_call(family: Parties, tmp_path: Path) -> None:
    """A time limit of both ends both, and the method learns of it, though nothing but the call was sent before."""
    place = f"unix:{tmp_path}/sock"
    async with serve(family.service, None, listen=[place], authorizer=everyone, now=family.clock):
        for _ in range(3):
            with trio.CancelScope() as scope:
                async with connect(place, None, now=family.clock) as client:
                    scope.deadline = trio.current_time() + 0.02
                    await client.call("Wait")
            assert scope.cancelled_caught
            await until(family.service.events, "cancelled")


async def test_a_deadline_of_the_call(client: Client, family: Parties) -> None:
    """The caller gets `timeout`, the method is cancelled, and knew how long it had."""
    with pytest.raises(CallError) as caught:
        await client.call("Wait", timeout=0.2)
    assert caught.value.code is ErrorCode.TIMEOUT
    await until(family.service.events, "cancelled")
    assert family.service.calls[0].deadline - trio.current_time() < 0.5


async def test_a_deadline_of_the_scope_travels_to_the_server(client: Client, family: Parties) -> None:
    """The caller's own scope bounds the method too."""
    with trio.move_on_after(0.2) as scope:
        await client.call("Wait", timeout=100)
    assert scope.cancelled_caught
    await until(family.service.events, "cancelled")
    assert family.service.calls[0].deadline - trio.current_time() < 1


async def test_a_server_keeps_deadlines_by_itself(client: Client, family: Parties) -> None:
    """A call whose time is over is answered by the server even if the caller would wait."""
    number = client._link.connection.send_request("Wait", "", [], deadline_ms=100)
    answers: list[object] = []

    async def wait() -> None:
        client.conversation.waiting[number] = trio.lowlevel.current_task()
        answers.append(await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            client._link.flush()
    assert "timeout" in str(answers[0])
    await until(family.service.events, "cancelled")


async def test_leaving_a_stream_closes_the_generator(client: Client, family: Parties) -> None:
    """Items under way are dropped, the method's `finally` runs, and credit is not lost: streams go on for long."""
    for _ in range(30):
        async with client.stream("Blobs", 1000, 60_000, returns=bytes) as blobs:
            await anext(blobs)
    async with client.stream("Count", 100_000_000, returns=int) as numbers:
        await anext(numbers)
    await until(family.service.events, "closed")
    async with client.stream("Blobs", 50, 60_000, returns=bytes) as blobs:
        assert len([blob async for blob in blobs]) == 50


async def test_a_client_that_disappears_cancels_its_calls(family: Parties) -> None:
    """A closed connection means that nobody waits."""
    async with served(family) as server:
        with trio.CancelScope() as scope:
            async with (
                connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(client.call, "Wait")
                await family.service.is_busy.wait()
                scope.cancel()
        await until(family.service.events, "cancelled")
        await eventually(lambda: server.connections == 0)


async def test_a_server_that_disappears_fails_its_calls(family: Parties) -> None:
    """Each waiting caller is told, and none waits for ever."""
    failures: list[UnreachableError] = []

    async def ask(client: Client) -> None:
        with pytest.raises(UnreachableError) as caught:
            await client.call("Wait")
        failures.append(caught.value)

    serving = trio.CancelScope()

    async def serve_it(task_status: trio.TaskStatus[str]) -> None:
        with serving:
            async with served(family) as server:
                task_status.started(server.addresses[0])
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        address = await nursery.start(serve_it)
        async with connect(f"/{address}", family.client, now=family.clock) as client:
            async with trio.open_nursery() as asking:
                for _ in range(3):
                    asking.start_soon(ask, client)
                await family.service.is_busy.wait()
                serving.cancel()
            with pytest.raises(UnreachableError):
                await client.call("Echo", "x")
    assert len(failures) == 3
    assert len(set(map(id, failures))) == 3


async def test_draining_lets_calls_finish_and_takes_no_new_ones(family: Parties) -> None:
    """A graceful end: running calls are answered, new ones and new connections refused."""
    async with served(family) as server, connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
        async with trio.open_nursery() as nursery:
            answers: list[str] = []

            async def ask() -> None:
                answers.append(await client.call("Wait"))

            nursery.start_soon(ask)
            await family.service.is_busy.wait()
            nursery.start_soon(server.drain)
            await trio.sleep(0.1)
            with pytest.raises((UnreachableError, CallError), match="stop"):
                await client.call("Echo", "x")
            family.service.may_go.set()
        assert answers == ["done"]
        with pytest.raises(UnreachableError):
            async with connect(f"/{server.addresses[0]}", family.client, now=family.clock):
                pass


async def test_workers_are_fresh_after_cancellations(family: Parties) -> None:
    """A worker whose call was cancelled serves the next ones undisturbed, many times over."""
    async with connected(family, Limits(max_streams=50)) as client:
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(client.call, "Wait")
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert await client.call("Echo", "x") == "x"
    assert "done" not in family.service.events


@pytest.mark.parametrize("seconds", [1e12, 1e300])
async def test_patience_beyond_all_measure(client: Client, family: Parties, seconds: float) -> None:
    """A timeout of more milliseconds than are sent is none."""
    assert await client.call("Quick", "x", timeout=seconds) == "x"
