"""Everything a server can do wrong to its client: the connection ends with the reason, its calls fail, and others go on.

What it can do wrong in showing itself is in `test_mutual`; what a client can do to a server, in `test_bad_input`.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress

import cbor2
import pytest
import trio
import trio.lowlevel
from acting_server import Actor, acted
from OpenSSL import SSL
from rpc_parties import Clock, Parties
from until import eventually

from vanadium_node.errors import CallError, DecodeError, PeerError, UnreachableError, VanadiumError
from vanadium_node.rpc import Client, connect
from vanadium_node.rpc.authentication import shake_hands
from vanadium_node.rpc.tls import ALPN, TlsChannel, server_context
from vanadium_node.wire.frames import (
    Cancel,
    Credit,
    End,
    Goaway,
    Item,
    Ping,
    Request,
    Response,
    encode_frame,
    frame_header,
)


def raw(content: bytes) -> bytes:
    """Return a frame with any content."""
    return frame_header(len(content)) + content


def item(value: bytes) -> bytes:
    """Return an item of the call, with any value."""
    return raw(b"\x83\x03\x01" + value)


BROKEN = {
    "a length of 2^32": (b"\x5b\x00\x00\x00\x01\x00\x00\x00\x00", "larger than the limit"),
    "a length that is not the shortest": (b"\x58\x05hello", "shortest form"),
    "noise": (b"\xfe\xed" * 500, "does not speak this protocol"),
    "deep nesting": (item(b"\x81" * 17 + b"\x00"), "a frame is not valid"),
    "a tower of brackets": (item(b"\x81" * 10_000), "a frame is not valid"),
    "a map of 2^32 entries": (item(b"\xbb\x00\x00\x00\x01\x00\x00\x00\x00"), "a frame is not valid"),
    "duplicate keys": (item(b"\xa2\x61a\x01\x61a\x02"), "a frame is not valid"),
    "an integer that is not the shortest": (item(b"\x18\x01"), "a frame is not valid"),
    "an unknown frame": (raw(cbor2.dumps([31, 0])), "critical kind 31"),
    "an answer to no call": (encode_frame(Response(3, 1, None)), "answered stream 3, which this end never opened"),
    "an answer to its own call": (encode_frame(Response(2, 1, None)), "answered stream 2, which this end never opened"),
    "an error that is a text": (raw(cbor2.dumps([2, 1, None, "x"])), "fields of a frame of kind RESPONSE"),
    "an item of no stream": (encode_frame(Item(7, 1)), "an item on stream 7, which never was open"),
    "an end of the caller's": (encode_frame(End(1)), "ended or cancelled stream 1"),
    "a cancel of the caller's": (encode_frame(Cancel(1)), "ended or cancelled stream 1"),
    "credit for no stream": (encode_frame(Credit(9, 1)), "credit to stream 9, which never was open"),
    "an overflow of credit": (encode_frame(Credit(1, 1 << 31)), "none, or an overflow"),
    "credit of nothing": (encode_frame(Credit(0, 0)), "none, or an overflow"),
    "a call with the client's number": (
        encode_frame(Request(3, "M", "", [], None, False, None, [], "")),
        "opened stream 3, which is not its next one",
    ),
    "a flood of pings": (encode_frame(Ping(0, 1)) * 100, "more than 16 pings at once"),
    "a goaway with a reason": (
        encode_frame(Goaway(0, "bad-arg", "far too\nmuch")),
        r"takes no more calls: far too\\nmuch",
    ),
    "half a frame, and the end": (encode_frame(Response(1, "x" * 100, None))[:-1] + b"END", "the connection .* ended"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_server_that_breaks_the_protocol(family: Parties, caplog: pytest.LogCaptureFixture, what: str) -> None:
    """The call, and those at the same time, fail with the reason; another connection to it goes on."""
    data, reason = BROKEN[what]
    actors: list[Actor] = []
    async with (
        acted(family, actors) as name,
        connect(name, family.client, now=family.clock) as other,
        connect(name, family.client, now=family.clock) as client,
    ):
        assert await other.call("Any") == "answer"
        await eventually(lambda: len(actors) == 2)
        bad = actors[1]

        def misbehave(_request: Request) -> bytes:
            if data.endswith(b"END"):
                bad.say(data[:-3])
                bad.connection.shutdown(socket.SHUT_WR)
                return b""
            return data

        bad.reply = misbehave
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(1 if "no call" in what or "number" in what else 2):
                    nursery.start_soon(fails, client, name, reason)
        assert not client.is_open
        assert await other.call("Any") == "answer"
    assert caplog.text == ""


async def fails(client: Client, name: str, reason: str) -> None:
    """Expect that a call fails, naming the server and the reason."""
    with pytest.raises(UnreachableError) as caught:
        await client.call("Any")
    assert name in caught.value.message
    assert re.search(reason, caught.value.message)


ODD: dict[str, tuple[bytes, object]] = {
    "an unknown frame that may be ignored": (raw(cbor2.dumps([32, 0, "new"])), "answer"),
    "items of a call that streams none": (encode_frame(Item(1, "x")) * 3, "answer"),
    "a ping": (encode_frame(Ping(0, 1)), "answer"),
    "credit that nobody asked for": (encode_frame(Credit(0, 1)), "answer"),
}


@pytest.mark.parametrize("what", ODD)
async def test_what_is_odd_and_allowed(family: Parties, what: str) -> None:
    """The call has its answer, and the next one too."""
    data, expected = ODD[what]
    actors: list[Actor] = []
    async with acted(family, actors) as name, connect(name, family.client, now=family.clock) as client:
        assert await client.call("Any") == "answer"
        data = data.replace(encode_frame(Item(1, "x")), encode_frame(Item(3, "x")))
        actors[0].reply = lambda request: data + encode_frame(Response(request.stream, expected, None))
        assert await client.call("Any") == expected
        actors[0].reply = None
        assert await client.call("Any") == "answer"


async def test_a_call_of_a_method_of_the_clients(family: Parties) -> None:
    """A client has none, and says so."""
    actors: list[Actor] = []
    async with acted(family, actors) as name, connect(name, family.client, now=family.clock) as client:
        assert await client.call("Any") == "answer"
        bad = actors[0]
        number = bad.wire.send_request("Steal", "", [])
        bad.say(bad.wire.take_outgoing())
        assert await client.call("Any") == "answer"
        await eventually(lambda: number not in bad.wire.own)
        assert await client.call("Any") == "answer"


async def test_frames_of_calls_that_were_given_up(family: Parties) -> None:
    """They crossed the cancel, and are dropped; the connection and its credit stay."""
    late = encode_frame(Item(1, bytes(60_000))) * 10 + encode_frame(Response(1, "late", None))
    actors: list[Actor] = []
    async with acted(family, actors) as name, connect(name, family.client, now=family.clock) as client:
        with trio.move_on_after(0.01):
            await trio.lowlevel.checkpoint()
            while not actors:
                await trio.lowlevel.checkpoint()
            actors[0].reply = lambda _request: b""
            await client.call("Any")
        for _ in range(20):
            actors[0].reply = lambda request: late + encode_frame(Response(request.stream, "x", None))
            assert await client.call("Any") == "x"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (["not-found", "gone", {}], "not-found"),
        (["made-up", "what\x1b[2J", {}], "internal"),
        (["", "", {}], "internal"),
    ],
)
async def test_errors_of_any_code(family: Parties, error: list[object], code: str) -> None:
    """A code that this end does not know is one all the same; what it says cannot write on a terminal."""
    actors: list[Actor] = []
    async with acted(family, actors) as name, connect(name, family.client, now=family.clock) as client:
        assert await client.call("Any") == "answer"
        actors[0].reply = lambda request: encode_frame(Response(request.stream, None, error))
        with pytest.raises(CallError) as caught:
            await client.call("Any")
        assert caught.value.code.value == code
        assert "\x1b" not in str(caught.value)


async def test_a_result_of_another_type(family: Parties) -> None:
    """It is the call's affair alone."""
    actors: list[Actor] = []
    async with acted(family, actors) as name, connect(name, family.client, now=family.clock) as client:
        with pytest.raises(DecodeError, match="the result of Any is wrong"):
            await client.call("Any", returns=int)
        assert await client.call("Any", returns=str) == "answer"


# Servers of something else


def context_of(*, tls: int = SSL.TLS1_3_VERSION, protocol: bytes | None = ALPN) -> SSL.Context:
    """Return the context of a server that speaks something else."""
    context = server_context(Clock()())
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(tls)
    if protocol != ALPN:
        context.set_alpn_select_callback(
            lambda _connection, _offered: SSL.NO_OVERLAPPING_PROTOCOLS if protocol is None else protocol
        )
    return context


@pytest.mark.parametrize(
    "context",
    [context_of(tls=SSL.TLS1_2_VERSION), context_of(protocol=None), context_of(protocol=b"h2")],
    ids=["TLS 1.2", "no ALPN", "a protocol that was not offered"],
)
async def test_a_server_of_another_kind(family: Parties, context: SSL.Context) -> None:
    """It is named, and nothing was shown to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        name = f"/127.0.0.1:{listener.getsockname()[1]}"

        async def answer() -> None:
            await trio.lowlevel.wait_readable(listener)
            with listener.accept()[0] as connection:
                connection.setblocking(False)
                channel = TlsChannel.accept(context)
                with suppress(VanadiumError):
                    await shake_hands(connection, channel)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.fail_after(5), pytest.raises(PeerError, match=f"{name}: "):
                await connect(name, family.client, now=family.clock).__aenter__()
