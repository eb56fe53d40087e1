"""The pool: shared connections, reconnecting, and what is tried again. Real servers, a real gate in between."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
from rpc_parties import Parties, Playground, blessed, parties, served
from tcp_gate import Gate, gate_to
from trio.testing import MockClock
from until import eventually

from vanadium_node.errors import CallError, ErrorCode, InputError, NotTrustedError, UnreachableError
from vanadium_node.rpc import Call, ClientPool, Server, Service, Tag, method, open_pool, serve
from vanadium_node.rpc.intercepting import OutgoingCall
from vanadium_node.rpc.retrying import MAX_RETRY_AFTER_SECONDS, Attempts, Retrying, retry_after
from vanadium_node.security.access import Permissions
from vanadium_node.security.authorization import permissions_authorizer
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.pattern import Pattern
from vanadium_node.wire.limits import Limits

QUICK = Retrying(first_delay=0.01)


@asynccontextmanager
async def pooled(family: Parties, **options: object) -> AsyncIterator[tuple[ClientPool, Gate, Server]]:
    """A pool of the family's client, a gate and the family's server behind it."""
    async with (
        served(family) as server,
        gate_to(server.addresses[0]) as gate,
        open_pool(family.client, now=family.clock, retrying=QUICK, **options) as pool,  # type: ignore[arg-type]
    ):
        yield pool, gate, server


async def test_calls_at_once_share_one_connection(family: Parties) -> None:
    """The first ones too, while it is being made; for all objects of the server and all names for the same."""
    async with pooled(family) as (pool, gate, _server):
        assert pool.connections == 0
        clients = [pool.client(f"/{gate.address}") for _ in range(3)]
        answers: list[str] = []

        async def ask(number: int) -> None:
            answers.append(await clients[number % 3].call("Echo", str(number), returns=str))

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(ask, number)
        with pytest.raises(CallError, match="no object 'elsewhere'"):
            await pool.client(f"/{gate.address}/elsewhere").call("Echo", "x")
        assert sorted(answers, key=int) == [str(number) for number in range(30)]
        assert (pool.connections, gate.accepted) == (1, 1)


async def test_patterns_and_principals_have_connections_of_their_own(family: Parties) -> None:
    """Trust in one is not trust in the other."""
    other = await blessed(family.root, "server:other")
    async with pooled(family) as (pool, gate, _server):
        await pool.client(f"/{gate.address}").call("Echo", "x")
        await pool.client(f"/(root:server)@{gate.address}").call("Echo", "x")
        await pool.client(f"/{gate.address}", principal=other).call("Echo", "x")
        with pytest.raises(NotTrustedError):
            await pool.client(f"/(root:nobody)@{gate.address}").call("Echo", "x")
        assert pool.connections == 3
        names = [call.peer.names for call in family.service.calls]
        assert names == [("root:server:client",), ("root:server:client",), ("root:server:other",)]


async def test_new_blessings_are_shown_before_the_next_call(family: Parties) -> None:
    """On the connection that is open: nobody connects again for them, and no call is made under the old name."""
    async with pooled(family) as (pool, gate, _server):
        client = pool.client(f"/{gate.address}")
        await client.call("Echo", "x")
        own = family.server.store.default
        assert own is not None
        for name in ("newer", "newest"):
            given = await family.server.bless(family.client.public_key, own, name, [Caveat.unconstrained()])
            await family.client.set_for_peer(given, Pattern.parse("..."))
            await client.call("Echo", "x")
            assert family.service.calls[-1].peer.names == (f"root:server:{name}",)
        assert gate.accepted == 1


async def test_a_cut_connection_is_made_again(family: Parties) -> None:
    """One that broke while nobody called is not noticed by the next caller, whatever the method."""
    async with pooled(family) as (pool, gate, _server):
        client = pool.client(f"/{gate.address}")
        for number in range(3):
            assert await client.call("Echo", str(number), idempotent=False) == str(number)
            gate.cut()
            await eventually(lambda: pool.connections == 0)
        assert gate.accepted == 3


class Counting(Service):
    """Counts how often its methods run, and never answers the first call."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.began = trio.Event()

    async def _run(self, name: str) -> int:
        self.runs.append(name)
        if len(self.runs) == 1:
            self.began.set()
            await trio.sleep_forever()
        return len(self.runs)

    @method(tag=Tag.READ)
    async def look(self, call: Call) -> int:
        """Reads only, and may so run twice."""
        return await self._run("look")

    @method(tag=Tag.WRITE, idempotent=True)
    async def put(self, call: Call) -> int:
        """Writes the same when it runs twice."""
        return await self._run("put")

    @method(tag=Tag.WRITE)
    async def add(self, call: Call) -> int:
        """Must not run twice."""
        return await self._run("add")

    @method(tag=Tag.READ, idempotent=False)
    async def pop(self, call: Call) -> int:
        """Must not either, although it only needs the right to read."""
        return await self._run("pop")


@pytest.mark.parametrize(
    ("name", "given", "is_repeated"),
    [
        ("Look", None, True),
        ("Put", None, True),
        ("Add", None, False),
        ("Pop", None, False),
        ("Add", True, True),
        ("Look", False, False),
    ],
)
async def test_what_runs_twice(family: Parties, name: str, given: bool | None, is_repeated: bool) -> None:
    """A call whose connection broke while it ran is repeated when the method, or the caller, says that it may be."""
    service = Counting()
    async with (
        serve(service, family.server, listen=["127.0.0.1:0"], now=family.clock, drain_timeout=timedelta(0)) as server,
        gate_to(server.addresses[0]) as gate,
        open_pool(family.client, now=family.clock, retrying=QUICK) as pool,
    ):
        client = pool.client(f"/{gate.address}")
        results: list[object] = []

        async def ask() -> None:
            try:
                results.append(await client.call(name, idempotent=given))
            except UnreachableError as error:
                results.append(str(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await service.began.wait()
            gate.cut()
        assert len(service.runs) == (2 if is_repeated else 1)
        if is_repeated:
            assert results == [2]
        else:
            assert f"while {name} ran; it may have run, and was not tried again" in str(results[0])


async def test_a_server_that_does_not_tell_is_not_called_twice(family: Parties) -> None:
    """Without the right to ask for the signature, nothing is assumed."""
    service = Counting()
    readers = permissions_authorizer(Permissions.parse('{"Read": {"In": ["root:server:client"]}}'))
    async with (
        serve(
            service, family.server, listen=["127.0.0.1:0"], now=family.clock, authorizer=readers,
            drain_timeout=timedelta(0),
        ) as server,
        gate_to(server.addresses[0]) as gate,
        open_pool(family.client, now=family.clock, retrying=QUICK) as pool,
    ):  # fmt: skip
        client = pool.client(f"/{gate.address}")

        async def cut() -> None:
            await service.began.wait()
            gate.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            with pytest.raises(UnreachableError, match="may have run"):
                await client.call("Look")
    assert service.runs == ["look"]


async def test_a_server_that_comes_back_is_called_again(family: Parties) -> None:
    """The address answers nobody for a while: connecting is tried again, for methods of every kind."""
    async with pooled(family) as (pool, gate, _server):
        client = pool.client(f"/{gate.address}")
        gate.is_closed = True

        async def come_back() -> None:
            await eventually(lambda: gate.accepted >= 2)
            gate.is_closed = False

        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back)
            assert await client.call("Echo", "x", idempotent=False) == "x"
        assert gate.accepted >= 3


async def test_an_error_says_what_was_tried(family: Parties) -> None:
    """Attempts, time and reasons; a stranger at the address is named at once and never asked again."""
    async with pooled(family) as (pool, gate, server):
        gate.is_closed = True
        with pytest.raises(
            UnreachableError, match=r"Echo of /127\.0\.0\.1:\d+ failed after 5 attempts in \d\.\d s: .*(closed|broke)"
        ):
            await pool.client(f"/{gate.address}").call("Echo", "x")
        assert gate.accepted == 5
        with pytest.raises(
            UnreachableError, match=r"failed after 5 attempts.*nobody answers at 127\.0\.0\.1:1: Connection"
        ):
            await pool.client("/127.0.0.1:1").call("Echo", "x")
        with pytest.raises(UnreachableError, match="failed after 5 attempts"):
            async with pool.client("/127.0.0.1:1").stream("Count", 3):
                pytest.fail("nobody is there")
        with pytest.raises(InputError, match="not the name of a server"):
            pool.client("127.0.0.1:1")
        stranger = await blessed((await parties()).root, "server")
        async with serve(Playground(), stranger, listen=["127.0.0.1:0"]) as another:
            with pytest.raises(NotTrustedError, match="is not trusted"):
                await pool.client(f"/{another.addresses[0]}").call("Echo", "x")
        assert server.connections == 0


async def test_the_timeout_is_for_all_attempts_together(family: Parties) -> None:
    """Neither waiting for others who connect, nor connecting, nor a silent server, takes longer."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        async with pooled(family) as (pool, gate, _server):
            await _time_out(pool, gate, deaf)


async def _time_out(pool: ClientPool, gate: Gate, deaf: socket.socket) -> None:
    gate.target = f"127.0.0.1:{deaf.getsockname()[1]}"
    client = pool.client(f"/{gate.address}")
    errors: list[str] = []

    async def ask() -> None:
        try:
            await client.call("Echo", "x", timeout=0.3)
        except UnreachableError as error:
            errors.append(str(error))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    assert len(errors) == 4
    assert trio.current_time() - began < 2


class Turning(Service):
    """Turns callers away until the third time."""

    def __init__(self, fields: dict[str, int]) -> None:
        self.fields = fields
        self.times: list[float] = []

    @method(tag=Tag.WRITE)
    def ask(self, call: Call) -> str:
        """Answers the third time."""
        self.times.append(trio.current_time())
        if len(self.times) < 3:
            raise CallError(ErrorCode.OVERLOADED, "too many at once", fields=self.fields)
        return "at last"


async def test_a_server_says_when_to_come_again(family: Parties) -> None:
    """`overloaded` with a time is tried again after it, also what must not run twice: it has not run."""
    service = Turning({"retry_after_ms": 80})
    async with (
        serve(service, family.server, listen=["127.0.0.1:0"], now=family.clock) as server,
        open_pool(family.client, now=family.clock, retrying=QUICK) as pool,
    ):
        assert await pool.client(f"/{server.addresses[0]}").call("Ask") == "at last"
    gaps = [later - earlier for earlier, later in zip(service.times, service.times[1:], strict=False)]
    assert all(gap >= 0.08 for gap in gaps)


async def test_overloaded_without_a_time_is_an_answer(family: Parties) -> None:
    """Such as a full box: coming again would help nobody. And patience ends: the code and the fields stay."""
    service = Turning({})
    async with (
        serve(service, family.server, listen=["127.0.0.1:0"], now=family.clock) as server,
        open_pool(family.client, now=family.clock, retrying=Retrying(attempts=2, first_delay=0.01)) as pool,
    ):
        client = pool.client(f"/{server.addresses[0]}")
        with pytest.raises(CallError, match=r"^too many at once$"):
            await client.call("Ask")
        assert len(service.times) == 1
        service.times.clear()
        service.fields = {"retry_after_ms": 1}
        with pytest.raises(CallError, match=r"failed after 2 attempts in .* too many at once") as caught:
            await client.call("Ask")
        assert (caught.value.code, dict(caught.value.fields)) == (ErrorCode.OVERLOADED, {"retry_after_ms": 1})


async def test_a_draining_server_is_left_for_its_successor(family: Parties) -> None:
    """Running calls end on the old connection, which closes then; new ones go to whoever is there now."""
    successor = Playground()
    async with pooled(family) as (pool, gate, server):
        client = pool.client(f"/{gate.address}")
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await client.call("Wait", idempotent=False))

        async with (
            serve(successor, family.server, listen=["127.0.0.1:0"], now=family.clock) as newer,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(ask)
            await family.service.is_busy.wait()
            gate.target = newer.addresses[0]
            nursery.start_soon(server.drain)
            for _ in range(3):
                assert await client.call("Echo", "x", idempotent=False) == "x"
            assert (len(successor.calls), answers, pool.connections) == (3, [], 2)
            family.service.may_go.set()
            await eventually(lambda: answers == ["done"] and pool.connections == 1)


async def test_streams(family: Parties) -> None:
    """Both ways; one that breaks is not begun again, but the next one finds a new connection."""
    async with pooled(family) as (pool, gate, _server):
        client = pool.client(f"/{gate.address}")
        async with client.stream("Double", has_items=True, returns=int) as items:
            await items.send(4)
            assert await anext(items) == 8
            items.end()
            assert [item async for item in items] == []
        with pytest.raises(UnreachableError, match="ended"):  # noqa: PT012 - the error comes out of the block
            async with client.stream("Count", 10**9, returns=int) as numbers:
                async for number in numbers:
                    if number == 100:
                        gate.cut()
        async with client.stream("Count", 2, returns=int) as numbers:
            assert [number async for number in numbers] == [0, 1]
        assert gate.accepted == 2


async def test_a_pool_is_bounded(family: Parties) -> None:
    """The connection that was not used for longest makes room; while all are in use, the next one waits."""
    async with (
        pooled(family, max_connections=2) as (pool, gate, server),
        gate_to(server.addresses[0]) as second,
        gate_to(server.addresses[0]) as third,
    ):
        for each in (gate, second, third):
            await pool.client(f"/{each.address}").call("Echo", "x")
        await eventually(lambda: (gate.connections, second.connections, third.connections) == (0, 1, 1))
        async with trio.open_nursery() as nursery:
            for each in (second, third):
                nursery.start_soon(pool.client(f"/{each.address}").call, "Wait")
            await eventually(lambda: len([call for call in family.service.calls if call.method == "Wait"]) == 2)
            with pytest.raises(UnreachableError, match="no connection to"):
                await pool.client(f"/{gate.address}").call("Echo", "x", timeout=0.2)
            family.service.may_go.set()
            assert await pool.client(f"/{gate.address}").call("Echo", "x") == "x"
        assert pool.connections == 2


async def test_idle_connections_are_closed(family: Parties) -> None:
    """And made again when they are needed."""
    async with pooled(family, idle_timeout=timedelta(seconds=0.2)) as (pool, gate, server):
        client = pool.client(f"/{gate.address}")
        assert await client.call("Echo", "x") == "x"
        await eventually(lambda: pool.connections == server.connections == 0)
        assert await client.call("Echo", "x") == "x"
        assert gate.accepted == 2


async def test_a_half_open_connection_is_noticed(family: Parties) -> None:
    """A server that falls silent in the middle of a call is pinged and given up, and the call goes to a new connection."""
    async with pooled(family, limits=Limits(idle_timeout=timedelta(seconds=0.2))) as (pool, gate, _server):
        client = pool.client(f"/{gate.address}")

        async def fall_silent() -> None:
            await family.service.is_busy.wait()
            await trio.sleep(0.5)  # longer than a silence that is not followed by an answer to a ping
            assert gate.accepted == 1
            gate.silence()
            family.service.may_go.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fall_silent)
            assert await client.call("Wait", timeout=10) == "done"
        assert gate.accepted == 2


async def test_leaving_the_pool_ends_everything(family: Parties) -> None:
    """No connection stays, and errors of the block come out as they are."""
    async with served(family) as server:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the error comes out of the block
            async with open_pool(family.client, now=family.clock) as pool:
                await pool.client(f"/{server.addresses[0]}").call("Echo", "x")
                assert server.connections == 1
                raise ZeroDivisionError
        await eventually(lambda: server.connections == 0)


async def test_interceptors_of_a_client(family: Parties) -> None:
    """They surround each call and stream, know the server, and see its errors."""
    seen: list[tuple[str, bool, tuple[str, ...]]] = []
    codes: list[ErrorCode] = []

    @asynccontextmanager
    async def noting(call: OutgoingCall) -> AsyncIterator[None]:
        seen.append((call.method, call.is_stream, call.server.names))
        try:
            yield
        except CallError as error:
            codes.append(error.code)
            raise

    async with pooled(family, interceptors=[noting]) as (pool, gate, _server):
        client = pool.client(f"/{gate.address}")
        await client.call("Echo", "x")
        async with client.stream("Count", 1) as items:
            assert [item async for item in items] == [0]
        with pytest.raises(CallError):
            await client.call("Fail", "exists")
    names = ("root:server",)
    assert seen == [("Echo", False, names), ("Count", True, names), ("Fail", False, names)]
    assert codes == [ErrorCode.EXISTS]


def test_waits_grow_and_differ() -> None:
    """By a factor, up to a limit, from the upper half of each."""
    shortest, longest = Retrying(draw=lambda: 0.0), Retrying(draw=lambda: 1.0)
    assert [longest.delay(number) for number in (1, 2, 3)] == pytest.approx([0.1, 0.2, 0.4])
    assert [shortest.delay(number) for number in (1, 2, 3)] == pytest.approx([0.05, 0.1, 0.2])
    assert longest.delay(10_000) == 10.0
    assert len({Retrying().delay(3) for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [({}, 0.0), ({"retry_after_ms": 250}, 0.25), ({"retry_after_ms": -5}, 0.0), ({"retry_after_ms": "soon"}, 0.0),
     ({"retry_after_ms": 10**12}, MAX_RETRY_AFTER_SECONDS)],
)  # fmt: skip
def test_a_server_may_ask_for_some_patience(fields: dict[str, str | int], seconds: float) -> None:
    """Not for any amount of it."""
    assert retry_after(CallError(ErrorCode.OVERLOADED, "later", fields=fields)) == seconds


async def test_attempts_end_with_the_deadline(autojump_clock: MockClock) -> None:
    """No wait goes beyond it."""
    attempts = Attempts(Retrying(attempts=100, draw=lambda: 1.0), "Get of /host:1", trio.current_time() + 1)
    for reason in "aab":
        await attempts.failed(UnreachableError(reason))
    with pytest.raises(UnreachableError, match=r"failed after 4 attempts in 0\.7 s: c \(before: a; b\)"):
        await attempts.failed(UnreachableError("c"))
