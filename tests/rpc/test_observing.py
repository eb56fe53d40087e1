"""Interceptors, observers, metrics and the log of calls, on a server with real sockets."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest
from rpc_parties import Parties, blessed, principal

from vanadium_node.errors import CallError, ErrorCode, VanadiumError
from vanadium_node.rpc import Call, Client, Server, connect, serve
from vanadium_node.rpc.intercepting import Interceptor
from vanadium_node.rpc.metrics import RpcMetrics
from vanadium_node.rpc.observing import EndedCall, Handshake, Observer, RefusedCall
from vanadium_node.rpc.tracing import TraceContext, traced
from vanadium_node.wire.limits import Limits


class Notes(Observer):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.refused: list[tuple[str, ErrorCode]] = []
        self.handshakes: list[Handshake] = []
        self.connections = 0

    def call_ended(self, ended: EndedCall) -> None:
        """Note method and code."""
        assert ended.seconds >= 0
        self.ended.append((ended.call.method, ended.code))

    def call_refused(self, refused: RefusedCall) -> None:
        """Note method and code."""
        self.refused.append((refused.method, refused.code))

    def connection_opened(self) -> None:
        """Count."""
        self.connections += 1

    def connection_closed(self) -> None:
        """Count."""
        self.connections -= 1

    def handshake_ended(self, outcome: Handshake, seconds: float) -> None:
        """Note the outcome."""
        self.handshakes.append(outcome)


@asynccontextmanager
async def observed(
    family: Parties, *observers: Observer, interceptors: tuple[Interceptor, ...] = (), limits: Limits | None = None
) -> AsyncIterator[tuple[Client, Server]]:
    """The family's client at its server, with somebody watching."""
    async with (
        serve(
            family.service, family.server, listen=["127.0.0.1:0"], now=family.clock, observers=observers,
            interceptors=interceptors, limits=limits or Limits(), drain_timeout=timedelta(seconds=0.05),
        ) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):  # fmt: skip
        yield client, server


async def test_observers_hear_how_calls_end(family: Parties) -> None:
    """Of every kind of method: with a result, an error, a deadline, a cancellation; and of what never ran."""
    notes = Notes()
    async with observed(family, notes) as (client, _server):
        await client.call("Quick", "x")
        await client.call("Echo", "x")
        async with client.stream("Count", 2) as items:
            assert [item async for item in items] == [0, 1]
        for code in ("not-found", "bug"):
            with pytest.raises(CallError):
                await client.call("Fail", code)
        with pytest.raises(CallError):
            await client.call("Wait", timeout=0.05)
        family.service.is_busy = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.call, "Wait", timeout=None))
            await family.service.is_busy.wait()
            nursery.cancel_scope.cancel()
        async with client.stream("Count", 10**9) as items:
            await anext(items)
        for wrong in ("Nothing", "Quick", "Quick"):
            with pytest.raises(CallError):
                await client.call(wrong, 1, 2, 3, 4)
        family.service.may_go.set()
        await client.call("Wait")
    assert notes.ended[:5] == [
        ("Quick", "ok"),
        ("Echo", "ok"),
        ("Count", "ok"),
        ("Fail", "not-found"),
        ("Fail", "internal"),
    ]
    assert notes.ended[5] in {("Wait", "timeout"), ("Wait", "cancelled")}, "both ends look at the deadline"
    assert sorted(notes.ended[6:]) == [("Count", "cancelled"), ("Wait", "cancelled"), ("Wait", "ok")]
    assert notes.refused == [
        ("", ErrorCode.UNKNOWN_METHOD),
        ("Quick", ErrorCode.BAD_ARG),
        ("Quick", ErrorCode.BAD_ARG),
    ]
    assert (notes.handshakes, notes.connections) == ([Handshake.DONE], 0)


async def test_an_observer_that_fails_harms_nobody(family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """Its mistake is in the log."""

    class Broken(Observer):
        def call_ended(self, ended: EndedCall) -> None:
            raise ZeroDivisionError

    notes = Notes()
    async with observed(family, Broken(), notes) as (client, _server):
        assert await client.call("Quick", "x") == "x"
    assert notes.ended == [("Quick", "ok")]
    assert "an observer of calls failed" in caplog.text


async def test_interceptors_surround_every_kind_of_method(family: Parties) -> None:
    """The first one outermost; they see the call and the method's error, and end after a stream's last item."""
    order: list[str] = []

    def noting(name: str) -> Interceptor:
        @asynccontextmanager
        async def intercept(call: Call) -> AsyncIterator[None]:
            order.append(f"{name} {call.method}")
            try:
                yield
            except CallError as error:
                order.append(f"{name} {error.code}")
                raise
            finally:
                order.append(f"{name} end")

        return intercept

    async with observed(family, interceptors=(noting("outer"), noting("inner"))) as (client, _server):
        assert await client.call("Quick", "x") == "x"
        assert order == ["outer Quick", "inner Quick", "inner end", "outer end"]
        order.clear()
        with pytest.raises(CallError):
            await client.call("Fail", "exists")
        assert order == ["outer Fail", "inner Fail", "inner exists", "inner end", "outer exists", "outer end"]
        order.clear()
        async with client.stream("Count", 1) as items:
            assert [item async for item in items] == [0]
        assert order[-1] == "outer end"


async def test_an_interceptor_can_refuse_and_translate(family: Parties) -> None:
    """What it raises is the answer, and the method has not run; a bug of a method can become an error with a code."""

    @asynccontextmanager
    async def closed(call: Call) -> AsyncIterator[None]:
        if call.method == "Echo":
            raise CallError(ErrorCode.OVERLOADED, "closed for the night")
        try:
            yield
        except ZeroDivisionError:
            raise CallError(ErrorCode.NOT_FOUND, "nothing there") from None

    notes = Notes()
    async with observed(family, notes, interceptors=(closed,)) as (client, _server):
        with pytest.raises(CallError, match="closed for the night"):
            await client.call("Echo", "x")
        with pytest.raises(CallError, match="nothing there"):
            await client.call("Fail", "bug")
    assert not family.service.calls
    assert notes.ended == [("Echo", "overloaded"), ("Fail", "not-found")]


async def test_metrics(family: Parties) -> None:
    """Calls by method and code, durations, refusals, connections and handshakes; a peer cannot make labels."""
    registry = CollectorRegistry()
    metrics = RpcMetrics(registry)
    async with observed(family, metrics, limits=Limits(handshake_timeout=timedelta(seconds=0.2))) as (client, server):
        for _ in range(3):
            await client.call("Quick", "x")
        with pytest.raises(CallError):
            await client.call("Fail", "exists")
        for number in range(20):
            with pytest.raises(CallError):
                await client.call(f"Made{number}")
        stranger = await principal("stranger")
        await stranger.add_roots_of(family.root.store.default or pytest.fail("the root has a name"))
        async with connect(f"/{server.addresses[0]}", stranger, now=family.clock) as other:
            with pytest.raises(CallError):
                await other.call("Quick", "x")
        host, _, port = server.addresses[0].rpartition(":")
        silent = await trio.open_tcp_stream(host, int(port))
        assert await silent.receive_some() == b""
        await silent.aclose()
        noisy = await trio.open_tcp_stream(host, int(port))
        await noisy.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with trio.move_on_after(1):
            while await noisy.receive_some():
                pass
        await noisy.aclose()

        def value(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(f"vanadium_rpc_{name}", labels)

        assert value("calls_total", method="Quick", code="ok") == 3
        assert value("calls_total", method="Fail", code="exists") == 1
        assert value("call_seconds_count", method="Quick") == 3
        assert value("refused_calls_total", method="unknown", code="unknown-method") == 20
        assert value("refused_calls_total", method="Quick", code="no-access") == 1
        assert value("connections") == 1
        outcomes = {each.value: value("handshakes_total", outcome=each.value) for each in Handshake}
        assert outcomes == {"done": 2, "failed": 1, "left": 0, "timeout": 1, "overloaded": 0}
        assert value("handshake_seconds_count") == 2
    text = generate_latest(registry).decode()
    assert "Made" not in text
    assert "stranger" not in text


async def test_two_servers_share_metrics(family: Parties) -> None:
    """A program has one registry, and any number of servers."""
    registry = CollectorRegistry()
    metrics = RpcMetrics(registry)
    async with observed(family, metrics) as (one, _), observed(family, metrics) as (other, _):
        await one.call("Quick", "x")
        await other.call("Quick", "x")
    assert registry.get_sample_value("vanadium_rpc_calls_total", {"method": "Quick", "code": "ok"}) == 2


async def test_one_line_a_call_at_debug(family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """Method, code, duration, the peer's names and the trace, in the text and as fields."""
    caplog.set_level(logging.DEBUG, "vanadium_node.rpc.calls")
    async with observed(family) as (client, _server):
        with traced() as trace:
            await client.call("Echo", "x")
        with pytest.raises(CallError):
            await client.call("Fail", "exists")
    lines = [record for record in caplog.records if record.name == "vanadium_node.rpc.calls"]
    assert [record.getMessage().split(" ")[:2] for record in lines] == [["Echo", "ok"], ["Fail", "exists"]]
    first = vars(lines[0])
    assert (first["method"], first["code"], first["peer"]) == ("Echo", "ok", ["root:server:client"])
    assert first["duration_ms"] >= 0
    assert first["trace_id"] == trace.trace_id
    assert f"peer=root:server:client trace={trace.trace_id}" in lines[0].getMessage()


async def test_calls_are_not_logged_unless_asked_for(family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """At info there is no line a call."""
    caplog.set_level(logging.INFO)
    async with observed(family) as (client, _server):
        await client.call("Echo", "x")
    assert not [record for record in caplog.records if record.name == "vanadium_node.rpc.calls"]


async def test_refusals_name_both_ends(family: Parties, caplog: pytest.LogCaptureFixture) -> None:
    """At info: what was refused, of whom, to whom, why; and the trace as a field."""
    caplog.set_level(logging.INFO)
    guest = await blessed(family.root, "guest")
    trace = TraceContext.start()
    async with observed(family) as (client, server):
        async with connect(f"/{server.addresses[0]}", guest, now=family.clock) as other:
            with pytest.raises(VanadiumError):
                await other.call("Echo", "x", trace_id=str(trace))
        with pytest.raises(VanadiumError):
            await client.call("Nothing\nat all")
    refused = [record for record in caplog.records if record.getMessage().startswith("refused")]
    assert "refused Echo of root:server to root:guest at 127.0.0.1:" in refused[0].getMessage()
    assert vars(refused[0])["trace_id"] == trace.trace_id
    assert vars(refused[0])["local_names"] == ["root:server"]
    assert r"refused Nothing\nat all of root:server to root:server:client" in refused[1].getMessage()
