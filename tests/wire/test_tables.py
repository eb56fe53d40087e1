"""The state tables, held against the machines: every pair of state and event, at both ends, with bytes split at random."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from itertools import product

import pytest
from connection_pair import pair_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vanadium_node.errors import InputError
from vanadium_node.wire import events, handshake
from vanadium_node.wire import stream as streams
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import ConnectionEvent, ConnectionState, Failed
from vanadium_node.wire.frames import (
    Auth,
    Cancel,
    Credit,
    End,
    Frame,
    Goaway,
    Item,
    Pong,
    Request,
    Response,
    encode_frame,
)
from vanadium_node.wire.handshake import HandshakeEvent, HandshakeState, Role
from vanadium_node.wire.limits import STREAM_WINDOW_BYTES
from vanadium_node.wire.stream import StreamEvent, StreamState

CALL = StreamEvent.REQUEST, StreamEvent.REQUEST_WITH_ITEMS
OF_CALLER = (*CALL, StreamEvent.CALLER_ITEM, StreamEvent.END, StreamEvent.CANCEL, StreamEvent.CREDIT)
OF_CALLEE = StreamEvent.CALLEE_ITEM, StreamEvent.RESPONSE, StreamEvent.CREDIT
AUTH = Auth(0, [1], b"key", None, [], b"signature")
cuts = st.lists(st.integers(1, 30), max_size=20)
"""How many bytes come at a time; the rest comes at once."""


def request(number: int, *, has_items: bool) -> Request:
    """Return a call."""
    return Request(number, "M", "", [], None, has_items, None, [], "")


def frame_of(event: StreamEvent, number: int) -> Frame:
    """Return the frame with which an event reaches the other end."""
    frames: dict[StreamEvent, Frame] = {
        StreamEvent.REQUEST: request(number, has_items=False),
        StreamEvent.REQUEST_WITH_ITEMS: request(number, has_items=True),
        StreamEvent.CALLER_ITEM: Item(number, "x"),
        StreamEvent.CALLEE_ITEM: Item(number, "x"),
        StreamEvent.END: End(number),
        StreamEvent.RESPONSE: Response(number, None, None),
        StreamEvent.CANCEL: Cancel(number),
        StreamEvent.CREDIT: Credit(number, 5),
    }
    return frames[event]


def feed(end: Connection, data: bytes, sizes: list[int]) -> bool:
    """Have an end receive bytes in pieces; tell whether it found a fault, after which it must stay silent."""
    happened: list[events.Event] = []
    for size in sizes:
        happened += end.receive(data[:size])
        data = data[size:]
    happened += end.receive(data)
    assert [type(each) for each in happened].count(Failed) == (end.state is ConnectionState.FAILED)
    assert end.state is not ConnectionState.FAILED or isinstance(happened[-1], Failed)
    return end.state is ConnectionState.FAILED


def stream_state(end: Connection, number: int, *, was_called: bool) -> StreamState:
    """Return the state that an end sees a stream in."""
    stream = end.own.get(number) or end.incoming.get(number)
    if stream is not None:
        return stream.state
    return StreamState.CLOSED if was_called else StreamState.IDLE


def callers_end(state: StreamState) -> Connection:
    """Return a client whose stream 1, its own, is in a state."""
    end = Connection(Role.CLIENT, authenticates=False)
    if state is not StreamState.IDLE:
        assert end.send_request("M", "", [], has_items=state is StreamState.OPEN) == 1
    if state is StreamState.CLOSED:
        end.receive(encode_frame(Response(1, None, None)))
    end.take_outgoing()
    return end


def callees_end(state: StreamState) -> Connection:
    """Return a server whose stream 1, the peer's, is in a state."""
    end = Connection(Role.SERVER, authenticates=False)
    if state is not StreamState.IDLE:
        end.receive(encode_frame(request(1, has_items=state is StreamState.OPEN)))
    if state is StreamState.CLOSED:
        end.send_response(1, None)
    end.take_outgoing()
    return end


@pytest.mark.parametrize(
    "table",
    [
        (streams.TRANSITIONS, set(product(StreamState, StreamEvent))),
        (events.TRANSITIONS, set(product(ConnectionState, ConnectionEvent))),
        (handshake.TRANSITIONS, set(product(Role, HandshakeState, HandshakeEvent))),
    ],
    ids=["stream", "connection", "handshake"],
)
def test_every_pair_has_a_row(table: tuple[dict[object, object], set[object]]) -> None:
    """No pair is left to chance: each leads to a state or is said to be an error."""
    rows, pairs = table
    assert set(rows) == pairs


@pytest.mark.parametrize(
    ("event", "state"),
    list(product(StreamEvent, StreamState)),
    ids=lambda each: each.name,
)
@settings(max_examples=20)
@given(sizes=cuts)
def test_an_event_of_the_peers(event: StreamEvent, state: StreamState, sizes: list[int]) -> None:
    """A frame leads an end to where the table says, or ends the connection."""
    ends = [callees_end(state)] * (event in OF_CALLER) + [callers_end(state)] * (event in OF_CALLEE)
    for end in ends:
        expected = streams.TRANSITIONS[state, event]
        assert feed(end, encode_frame(frame_of(event, 1)), sizes) == (expected is None)
        if expected is not None:
            was_called = expected is not StreamState.IDLE
            assert stream_state(end, 1, was_called=was_called) is expected
            assert end.outgoing == []


@pytest.mark.parametrize(("event", "state"), list(product(StreamEvent, StreamState)), ids=lambda each: each.name)
@settings(max_examples=20)
@given(sizes=cuts)
def test_an_event_of_the_wrong_end(event: StreamEvent, state: StreamState, sizes: list[int]) -> None:
    """A caller does not answer its own call, nor does a callee end, cancel or make it: a fault, however far the call is."""
    ends = [callees_end(state)] * (event is StreamEvent.RESPONSE)
    ends += [callers_end(state)] * (event in {StreamEvent.END, StreamEvent.CANCEL, *CALL})
    for end in ends:
        assert feed(end, encode_frame(frame_of(event, 1)), sizes)


def wish(end: Connection, event: StreamEvent, number: int = 1) -> None:
    """Have an end do something on a stream."""
    wishes: dict[StreamEvent, Callable[[], object]] = {
        StreamEvent.REQUEST: lambda: end.send_request("M", "", []),
        StreamEvent.REQUEST_WITH_ITEMS: lambda: end.send_request("M", "", [], has_items=True),
        StreamEvent.CALLER_ITEM: lambda: end.send_item(number, "x"),
        StreamEvent.CALLEE_ITEM: lambda: end.send_item(number, "x"),
        StreamEvent.END: lambda: end.send_end(number),
        StreamEvent.RESPONSE: lambda: end.send_response(number, None),
        StreamEvent.CANCEL: lambda: end.send_cancel(number),
        StreamEvent.CREDIT: lambda: end.item_read(number, STREAM_WINDOW_BYTES),
    }
    wishes[event]()


@pytest.mark.parametrize(
    ("is_caller", "event", "state"),
    [
        (is_caller, event, state)
        for is_caller, events_of in ((True, OF_CALLER), (False, OF_CALLEE))
        for event, state in product(events_of, StreamState)
        if event not in CALL or state is StreamState.IDLE  # each call has a number of its own
    ],
)
def test_a_wish_of_ours(is_caller: bool, event: StreamEvent, state: StreamState) -> None:
    """What the table allows is sent and changes the state; else, and on a closed stream, nothing leaves this end."""
    end = (callers_end if is_caller else callees_end)(state)
    expected = streams.TRANSITIONS[state, event]
    is_sent = expected is not None and state is not StreamState.CLOSED
    try:
        wish(end, event)
    except InputError:
        assert not is_sent
    sent = end.take_outgoing()
    assert bool(sent) == is_sent
    after = expected if expected is not None and is_sent else state
    assert stream_state(end, 1, was_called=after is not StreamState.IDLE) is after
    assert end.state is ConnectionState.ACTIVE


# The connection


def connection_in(state: ConnectionState, role: Role) -> Connection:
    """Return an end in a state."""
    end = Connection(role, authenticates=False)
    if state is ConnectionState.DRAINING:
        end.send_goaway("", "")
    if state is ConnectionState.FAILED:
        end.receive(b"\xff")
    end.take_outgoing()
    return end


@pytest.mark.parametrize(
    ("role", "state", "event"), list(product(Role, ConnectionState, ConnectionEvent)), ids=lambda each: each.name
)
@settings(max_examples=20)
@given(sizes=cuts)
def test_every_event_of_a_connection(
    role: Role, state: ConnectionState, event: ConnectionEvent, sizes: list[int]
) -> None:
    """Where the table has no state there is an error of our own caller's; after a fault nothing is heard or said."""
    end, expected = connection_in(state, role), events.TRANSITIONS[state, event]
    if event is ConnectionEvent.SENT_REQUEST:
        if expected is None:
            with pytest.raises(InputError):
                end.send_request("M", "", [])
        else:
            end.send_request("M", "", [])
    else:
        data = {
            ConnectionEvent.RECEIVED_REQUEST: encode_frame(request(1 + (role is Role.CLIENT), has_items=False)),
            ConnectionEvent.GOAWAY: encode_frame(Goaway(0, "", "")),
            ConnectionEvent.FAULT: b"\xff",
        }[event]
        if state is ConnectionState.FAILED:
            assert end.receive(data) == []
        else:
            feed(end, data, sizes)
    assert end.state is (expected or state)
    if state is ConnectionState.FAILED:
        assert end.outgoing == []


@given(
    st.sampled_from(Role),
    st.lists(st.sampled_from(["send", "item", "end", "cancel", "answer", "ping", "leave", "auth"])),
)
def test_a_failed_connection_says_its_reason_and_then_nothing(role: Role, wishes: list[str]) -> None:
    """Whatever runs on behalf of calls that were open is not sent any more, so that nothing piles up for a dead peer."""
    end = Connection(role, authenticates=False)
    number = end.send_request("M", "", [], has_items=True)
    end.receive(encode_frame(request(2 - (role is Role.SERVER), has_items=True)))
    end.take_outgoing()
    end.receive(b"\xff")
    assert len(end.outgoing) == 1
    does: dict[str, Callable[[], object]] = {
        "send": lambda: end.send_request("M", "", []),
        "item": lambda: end.send_item(number, 1),
        "end": lambda: end.send_end(number),
        "cancel": lambda: end.send_cancel(number),
        "answer": lambda: end.send_response(2 - (role is Role.SERVER), None),
        "ping": lambda: end.send_ping(1),
        "leave": lambda: end.send_goaway("", ""),
        "auth": lambda: end.send_auth(AUTH),
    }
    for each in wishes:
        with suppress(InputError):
            does[each]()
    assert len(end.outgoing) == 1


# The handshake


def shaking(role: Role, state: HandshakeState) -> Connection | None:
    """Return an end in a state of the handshake; None where its role is never in it."""
    end = Connection(role)
    steps = {
        Role.SERVER: [HandshakeState.START, HandshakeState.SHOWN, HandshakeState.OPEN],
        Role.CLIENT: [HandshakeState.START, HandshakeState.SEEN, HandshakeState.OPEN],
    }[role]
    if state not in steps:
        return None
    sends = role is Role.SERVER
    while end.handshake is not state:
        if sends:
            end.send_auth(AUTH)
        else:
            assert end.receive(encode_frame(AUTH)) == [AUTH]
        sends = not sends
    end.take_outgoing()
    return end


@pytest.mark.parametrize(
    ("role", "state", "event"), list(product(Role, HandshakeState, HandshakeEvent)), ids=lambda each: each.name
)
@settings(max_examples=20)
@given(sizes=cuts)
def test_every_event_of_a_handshake(role: Role, state: HandshakeState, event: HandshakeEvent, sizes: list[int]) -> None:
    """A server shows itself first; nobody says anything else, or hears it, before both are known."""
    expected, end = handshake.TRANSITIONS[role, state, event], shaking(role, state)
    if end is None:
        assert expected is None
        return
    match event:
        case HandshakeEvent.RECEIVED_AUTH | HandshakeEvent.RECEIVED_OTHER:
            frame = AUTH if event is HandshakeEvent.RECEIVED_AUTH else Pong(0, 1)
            assert feed(end, encode_frame(frame), sizes) == (expected is None)
        case HandshakeEvent.SENT_AUTH:
            with nullcontext() if expected is not None else pytest.raises(InputError):
                end.send_auth(AUTH)
            assert bool(end.outgoing) == (expected is not None)
        case HandshakeEvent.SENT_OTHER:
            end.send_ping(1)
            with nullcontext() if expected is not None else pytest.raises(InputError):
                end.send_request("M", "", [])
            assert bool(end.outgoing) == (expected is not None)
    assert end.handshake is (expected or state)


@pytest.mark.parametrize(("role", "state"), list(product(Role, HandshakeState)), ids=lambda each: each.name)
def test_either_end_may_leave_at_any_time(role: Role, state: HandshakeState) -> None:
    """A goaway says why, also to somebody who is not known yet."""
    end = shaking(role, state)
    if end is not None:
        assert end.receive(encode_frame(Goaway(0, "overloaded", "later"))) == [Goaway(0, "overloaded", "later")]
        assert end.state is ConnectionState.DRAINING


# Both ends together

walks = st.lists(st.tuples(st.sampled_from(Role), st.integers(0, 3), st.sampled_from(StreamEvent)), max_size=40)


@given(walks, st.integers(1, 40))
def test_two_ends_that_wish_what_the_table_allows_agree(walk: list[tuple[Role, int, StreamEvent]], step: int) -> None:
    """Random calls both ways: both ends see each stream in the state that the table leads to, and neither finds a fault."""
    pair = pair_of(step=step)
    states: dict[int, StreamState] = {}
    for role, which, event in walk:
        end = pair.client if role is Role.CLIENT else pair.server
        if event in CALL:
            number = end.send_request("M", "", [], has_items=event is StreamEvent.REQUEST_WITH_ITEMS)
        elif not states:
            continue
        else:
            number = list(states)[which % len(states)]
        allowed = OF_CALLER if number % 2 == (role is Role.CLIENT) else OF_CALLEE
        state = states.get(number, StreamState.IDLE)
        to = streams.TRANSITIONS[state, event]
        if event not in allowed or to is None or (state is StreamState.CLOSED and event not in CALL):
            continue
        if event not in CALL:
            wish(end, event, number)
        states[number] = to
        pair.carry()
        for each in (pair.client, pair.server):
            assert each.state is ConnectionState.ACTIVE
            for stream, known in states.items():
                assert stream_state(each, stream, was_called=True) is known
