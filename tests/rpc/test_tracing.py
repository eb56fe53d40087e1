"""W3C trace context: what is read and refused, and how a trace goes from call to call."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from rpc_parties import Parties, Relaying, connected, relayed

from vanadium_node.rpc import Call, Tag, method
from vanadium_node.rpc.tracing import TraceContext, current_trace, traced

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", TraceContext(TRACE, SPAN, 1)),
        (f"00-{TRACE}-{SPAN}-00", TraceContext(TRACE, SPAN, 0)),
        (f"00-{TRACE}-{SPAN}-ff", TraceContext(TRACE, SPAN, 1)),  # flags of version 00 that nobody knows are dropped
        (f"cc-{TRACE}-{SPAN}-01", TraceContext(TRACE, SPAN, 1)),  # a later version with the same fields
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-holds", TraceContext(TRACE, SPAN, 1)),
        (f"cc-{TRACE}-{SPAN}-01.what", None),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"00-{TRACE}-{SPAN}-01-", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f" 00-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_traceparents(text: str, expected: TraceContext | None) -> None:
    """The recommendation's rules for versions, lengths, zeros and letters."""
    assert TraceContext.parse(text) == expected


@given(st.text(max_size=60))
def test_no_text_of_a_peer_raises(text: str) -> None:
    """Whatever it is, it is a context or none."""
    parsed = TraceContext.parse(text)
    assert parsed is None or TraceContext.parse(str(parsed)) == parsed


def test_what_is_generated_can_be_read() -> None:
    """A new trace and a child of it: the same trace, another span."""
    trace = TraceContext.start()
    child = trace.child()
    assert TraceContext.parse(str(trace)) == trace
    assert (child.trace_id, child.flags) == (trace.trace_id, trace.flags)
    assert child.span_id != trace.span_id


class Relay(Relaying):
    """Calls on, while it serves a call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[TraceContext | None] = []

    @method(tag=Tag.READ)
    async def relay(self, call: Call) -> str:
        """Calls Echo of the next server, from a task of its own, as handlers do."""
        self.seen.append(call.trace)
        assert self.next is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.next.call, "Echo", "x")
        return "" if current_trace() is None else str(current_trace())


async def test_a_trace_goes_on_through_a_handler(family: Parties) -> None:
    """Each call has a span of its own, of the same trace; the next request on the same worker knows nothing of it."""
    relay = Relay()
    async with relayed(family, relay) as client:
        with traced() as begun:
            assert current_trace() == begun
            continued = await client.call("Relay")
        assert current_trace() is None
        assert await client.call("Relay") == ""
        broken = await client.call("Relay", trace_id="not a traceparent")
    first, without, odd = relay.seen
    assert first is not None
    assert continued == str(first)
    last = family.service.calls[0].trace
    assert last is not None
    assert begun.trace_id == first.trace_id == last.trace_id
    assert len({begun.span_id, first.span_id, last.span_id}) == 3
    assert without is odd is None
    assert broken == ""
    assert [call.trace_id for call in family.service.calls[1:]] == ["", ""]


async def test_streams_belong_to_traces_too(family: Parties) -> None:
    """And a trace that came from elsewhere, such as an HTTP request, is continued by name."""
    async with connected(family) as client:
        with traced(TraceContext(TRACE, SPAN)):
            async with client.stream("Count", 2, returns=int) as items:
                assert [item async for item in items] == [0, 1]
            await client.call("Echo", "x")
    trace = family.service.calls[-1].trace
    assert trace is not None
    assert trace.trace_id == TRACE
    assert trace.span_id != SPAN
