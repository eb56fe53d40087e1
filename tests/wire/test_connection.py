"""A connection's calls, streams, credit, cancellation and end, with bytes carried in pieces; and peers that break it."""

from collections.abc import Callable

import pytest
from connection_pair import ConnectionPair, pair_of
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.errors import ErrorCode, InputError
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import ConnectionState, Failed, ReceivedItem, Refused
from vanadium_node.wire.frames import (
    Cancel,
    Credit,
    End,
    Frame,
    Goaway,
    Item,
    Ping,
    Pong,
    Request,
    Response,
    decode_frame,
    encode_frame,
)
from vanadium_node.wire.handshake import Role
from vanadium_node.wire.limits import MAX_CREDIT, STREAM_WINDOW_BYTES, Limits
from vanadium_node.wire.splitter import FrameSplitter


def server_of(limits: Limits | None = None) -> Connection:
    """Return a server's end that needs no handshake."""
    return Connection(Role.SERVER, limits or Limits(), authenticates=False)


def request(number: int, has_items: bool = False) -> bytes:
    """Return the bytes of a call."""
    return encode_frame(Request(number, "M", "", [], None, has_items, None, [], ""))


def sent(connection: Connection) -> list[Frame | None]:
    """Return the frames that an end wants to send."""
    return [decode_frame(content) for content in FrameSplitter(1 << 20).split(b"".join(connection.outgoing))]


def test_a_call_and_its_answer(pair: ConnectionPair) -> None:
    """A request arrives with all it carries, and its answer ends the stream at both ends."""
    number = pair.client.send_request("Get", "obj", ["a", 1], deadline_ms=500, granted=b"g", trace_id="t")
    pair.carry()
    assert pair.taken(Role.SERVER) == [Request(1, "Get", "obj", ["a", 1], 500, False, b"g", [], "t")]
    pair.server.send_response(number, {"k": [1.5]})
    pair.carry()
    assert pair.taken(Role.CLIENT) == [Response(1, {"k": [1.5]}, None)]
    assert not pair.client.own
    assert not pair.server.incoming


def test_an_error_is_an_answer(pair: ConnectionPair) -> None:
    """Code, sentence and fields arrive."""
    number = pair.client.send_request("Get", "", [])
    pair.carry()
    pair.server.send_error(number, ErrorCode.NOT_FOUND, "no such thing", {"n": 1})
    pair.carry()
    assert pair.taken(Role.CLIENT) == [Response(1, None, ["not-found", "no such thing", {"n": 1}])]


def test_items_flow_both_ways_until_their_ends(pair: ConnectionPair) -> None:
    """The caller sends items and an end; the callee items, and the answer as its end."""
    number = pair.client.send_request("Chat", "", [], has_items=True)
    pair.client.send_item(number, "one")
    pair.client.send_end(number)
    pair.carry()
    assert [type(e) for e in pair.taken(Role.SERVER)] == [Request, ReceivedItem, End]
    pair.server.send_item(number, "two")
    pair.server.send_response(number, None)
    pair.carry()
    assert [type(e) for e in pair.taken(Role.CLIENT)] == [ReceivedItem, Response]
    with pytest.raises(InputError):
        pair.client.send_item(number, "three")


def test_a_cancel_and_an_answer_may_cross(pair: ConnectionPair) -> None:
    """The answer to a call that has been given up, and items of it, are dropped; credit comes back."""
    number = pair.client.send_request("Slow", "", [], has_items=True)
    pair.carry()
    pair.client.send_cancel(number)
    pair.server.send_item(number, "late")
    pair.server.send_response(number, "late")
    pair.carry()
    assert pair.taken(Role.CLIENT) == []
    assert pair.client.state is ConnectionState.ACTIVE
    assert pair.server.state is ConnectionState.ACTIVE


def test_both_ends_may_call(pair: ConnectionPair) -> None:
    """Client streams are odd, server streams even."""
    assert [pair.client.send_request("A", "", []) for _ in range(2)] == [1, 3]
    assert [pair.server.send_request("B", "", []) for _ in range(2)] == [2, 4]
    pair.carry()
    assert [e.stream for e in pair.taken(Role.SERVER) if isinstance(e, Request)] == [1, 3]
    assert [e.stream for e in pair.taken(Role.CLIENT) if isinstance(e, Request)] == [2, 4]


def test_credit_stops_a_sender_and_reading_frees_it() -> None:
    """At most a window and a frame is under way unread; half a window of reading gives credit back."""
    pair = pair_of()
    number = pair.client.send_request("Up", "", [], has_items=True)
    client, server = pair.client, pair.server
    while client.may_send_item(number):
        client.send_item(number, bytes(STREAM_WINDOW_BYTES * 3 // 10))
    pair.carry()
    items = [e for e in pair.taken(Role.SERVER) if isinstance(e, ReceivedItem)]
    assert len(items) == 4
    for item in items[:2]:
        server.item_read(number, item.size)
    pair.carry()
    assert [type(e) for e in pair.taken(Role.CLIENT)] == [Credit]
    assert client.may_send_item(number)


def test_goaway_lets_running_calls_finish(pair: ConnectionPair) -> None:
    """After a goaway, running calls are answered, and new ones are refused on either side."""
    number = pair.client.send_request("Slow", "", [])
    pair.carry()
    pair.server.send_goaway("", "stopping")
    crossing = pair.client.send_request("Late", "", [])
    pair.carry()
    pair.server.send_response(number, "done")
    pair.carry()
    answers = {e.stream: e.error and e.error[0] for e in pair.taken(Role.CLIENT) if isinstance(e, Response)}
    assert answers == {number: None, crossing: "overloaded"}
    with pytest.raises(InputError):
        pair.client.send_request("More", "", [])


def test_pings_are_answered_and_floods_are_not() -> None:
    """One ping, one pong; more than the limit at once end the connection."""
    server = server_of()
    server.receive(encode_frame(Ping(0, 7)))
    assert sent(server) == [Pong(0, 7)]
    assert isinstance(server.receive(encode_frame(Ping(0, 1)) * 17)[-1], Failed)


def test_too_many_calls_at_once_are_answered_overloaded() -> None:
    """The connection goes on; each call beyond the limit has an answer of its own."""
    server = server_of(Limits(max_streams=2))
    events = server.receive(request(1) + request(3) + request(5))
    assert [type(event) for event in events] == [Request, Request, Refused]
    refused = events[2]
    assert isinstance(refused, Refused)
    (answer,) = sent(server)
    assert isinstance(answer, Response)
    assert answer.error is not None
    assert answer.error[:2] == ["overloaded", refused.reason]
    assert (answer.stream, refused.request.stream) == (5, 5)
    server.send_response(1, None)
    assert len(server.receive(request(7))) == 1


@pytest.mark.parametrize(
    "data",
    [
        request(2),
        request(0),
        request(3) + request(1),
        request(1) + request(1),
        encode_frame(Response(2, None, None)),
        encode_frame(Response(1, None, None)),
        encode_frame(Item(1, 1)),
        encode_frame(Item(2, 1)),
        encode_frame(End(1)),
        encode_frame(End(2)),
        encode_frame(Cancel(1)),
        encode_frame(Credit(1, 1)),
        encode_frame(Credit(0, 0)),
        encode_frame(Credit(0, MAX_CREDIT)),
        request(1) + encode_frame(Credit(1, MAX_CREDIT)),
        request(1) + encode_frame(Item(1, 1)),
        request(1, has_items=True) + encode_frame(End(1)) + encode_frame(Item(1, 1)),
        request(1, has_items=True) + encode_frame(End(1)) * 2,
        request(1, has_items=True) + encode_frame(Item(1, bytes(900_000))) * 3,
        b"\x5a\xff\xff\xff\xff",
    ],
    ids=range(20),
)
def test_a_peer_that_breaks_the_protocol(data: bytes) -> None:
    """The connection fails, says why once, and stays silent, whatever comes then."""
    server = server_of()
    events = server.receive(data)
    assert isinstance(events[-1], Failed)
    assert server.state is ConnectionState.FAILED
    goodbye = sent(server)[-1]
    assert isinstance(goodbye, Goaway)
    assert goodbye.reason == events[-1].reason
    assert server.receive(request(101)) == []


def test_a_stream_that_ends_in_a_frame_is_a_fault() -> None:
    """Closing between frames is fine; closing within one is not."""
    server = server_of()
    assert server.receive_end() is None
    server.receive(request(1)[:-1])
    assert isinstance(server.receive_end(), Failed)


def test_a_message_too_large_is_the_senders_mistake() -> None:
    """It is refused before anything is sent, and the connection goes on."""
    client = Connection(Role.CLIENT, Limits(max_frame_bytes=1000), authenticates=False)
    with pytest.raises(InputError, match="larger than the limit"):
        client.send_request("Put", "", [bytes(2000)])
    assert client.outgoing == []
    assert client.send_request("Put", "", []) == 1


small = st.integers(0, 8)
anything = st.one_of(
    st.builds(lambda n, more: Request(n, "M", "", [], None, more, None, [], ""), small, st.booleans()),
    st.builds(Response, small, st.none(), st.none()),
    st.builds(Item, small, st.binary(max_size=30)),
    st.builds(End, small),
    st.builds(Cancel, small),
    st.builds(Credit, small, st.integers(0, 2**31)),
    st.builds(Ping, st.just(0), small),
    st.builds(Goaway, st.just(0), st.just(""), st.just("")),
)
steps = st.lists(
    st.one_of(anything, st.sampled_from(["request", "stream", "answer", "end", "cancel", "item", "goaway"])),
    max_size=25,
)


@given(steps, st.sampled_from(Role))
def test_no_sequence_of_frames_and_wishes_does_anything_unforeseen(taken: list[Frame | str], role: Role) -> None:
    """Whatever the peer sends and we wish, there are events, or one fault and then silence; our mistakes are InputErrors."""
    end = Connection(role, Limits(max_streams=3), authenticates=False)
    for step in taken:
        if not isinstance(step, str):
            was_failed = end.state is ConnectionState.FAILED
            events = end.receive(encode_frame(step))
            assert not (was_failed and events)
            assert [type(e) for e in events].count(Failed) == (end.state is ConnectionState.FAILED and not was_failed)
            continue
        try:
            match step:
                case "request" | "stream":
                    end.send_request("M", "", [], has_items=step == "stream")
                case "goaway":
                    end.send_goaway("", "")
                case "answer":
                    end.send_response(next(iter(end.incoming), 99), None)
                case _:
                    number = next(iter([*end.own, *end.incoming]), 99)
                    wishes: dict[str, Callable[[int], None]] = {
                        "end": end.send_end,
                        "cancel": end.send_cancel,
                        "item": lambda n: end.send_item(n, 1),
                    }
                    wishes[step](number)
        except InputError:
            pass
    assert len(end.incoming) <= 3
