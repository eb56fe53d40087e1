"""Everything a peer can do wrong, done to a server that is a process of its own.

Each time the connection is closed, the log says why, a client that was there all along goes on calling, a new one gets in,
and in the end the server is as large as before.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import cbor2
import pytest
import trio
from attacker import Attacker, dial, dial_socket, introduced, until_closed
from OpenSSL import SSL
from rpc_parties import principal
from target_server import Target, target

from vanadium_node import cbor
from vanadium_node.errors import CallError, ProtocolError
from vanadium_node.rpc import Client, connect
from vanadium_node.rpc.authentication import sign_auth
from vanadium_node.rpc.tls import ALPN, TlsChannel, client_context
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import SignatureType
from vanadium_node.security.principal import Principal
from vanadium_node.wire.frames import (
    Auth,
    Cancel,
    Credit,
    End,
    Frame,
    Goaway,
    Item,
    Ping,
    Request,
    Response,
    encode_frame,
    frame_header,
)
from vanadium_node.wire.handshake import Role, session_payload
from vanadium_node.wire.limits import CONNECTION_WINDOW_BYTES

IDLE_CONNECTIONS = 5000
MAX_IDLE_BYTES = 4096
"""That one of them may cost the server, on average."""
MAX_QUEUED = 48 << 20
"""What the server may hold for a peer that does not read: its limit of 4 MiB, encrypted, and what comes on top of it."""
MAX_PEER_BYTES = 160 << 10
"""That an authenticated peer may cost the server: most of it is OpenSSL's."""
FREE = Caveat.unconstrained()
MAX_GROWTH = 1.05
"""Of the server's memory, by hundreds of attacks after the first few."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server that waits for nobody longer than a second."""
    with target(tmp_path_factory.mktemp("target"), handshake_timeout=1, idle_timeout=1) as running:
        yield running


@pytest.fixture
async def mallory() -> Principal:
    """Whoever attacks: anybody can make a principal."""
    return await principal("mallory")


@asynccontextmanager
async def honest(server: Target) -> AsyncIterator[Client]:
    """Yield a client that means well."""
    async with connect(f"/{server.address}", await principal("honest"), insecure=True, timeout=10) as client:
        yield client


@asynccontextmanager
async def nobody_else_notices(server: Target, reason: str) -> AsyncIterator[None]:
    """Expect that the block has the server log a reason, and that clients before, during and after it are served."""
    start = server.log.stat().st_size
    async with honest(server) as witness:
        assert await witness.call("Quick", "before") == "before"
        yield
        assert await witness.call("Quick", "after") == "after"
    await eventually(lambda: bool(re.search(reason, server.logged(start))))
    async with honest(server) as newcomer:
        assert await newcomer.call("Quick", "new") == "new"


# Peers that have authenticated, and then break the protocol


def call(number: int, method: str = "Quick", *, has_items: bool = False) -> bytes:
    """Return the bytes of a call."""
    arguments: list[object] = ["x"] if method == "Quick" else []
    return encode_frame(Request(number, method, "", arguments, None, has_items, None, [], ""))


def raw(content: bytes) -> bytes:
    """Return a frame with any content."""
    return frame_header(len(content)) + content


def item(value: bytes) -> bytes:
    """Return an item of a stream that is open, with any value."""
    return call(1, "Hold", has_items=True) + raw(b"\x83\x03\x01" + value)


BROKEN = {
    "a length of 2^32": (b"\x5b\x00\x00\x00\x01\x00\x00\x00\x00", "larger than the limit"),
    "a length of 2^32 - 1": (b"\x5a\xff\xff\xff\xff", "4294967295 bytes is larger than the limit"),
    "a length of 2^64 - 1": (b"\x5b" + b"\xff" * 8, "larger than the limit"),
    "a length that is not the shortest": (b"\x58\x05hello", "shortest form"),
    "a length that is none": (b"\x5f\x41a\xff", "does not speak this protocol"),
    "noise": (b"\xfe\xed" * 500, "does not speak this protocol"),
    "deep nesting": (item(b"\x81" * 17 + b"\x00"), "a frame is not valid"),
    "a tower of brackets": (item(b"\x81" * 1_000_000), "a frame is not valid"),
    "a map of 2^32 entries": (item(b"\xbb\x00\x00\x00\x01\x00\x00\x00\x00"), "a frame is not valid"),
    "an array of 2^64 - 1 elements": (item(b"\x9b" + b"\xff" * 8), "a frame is not valid"),
    "a text of 2^32 bytes": (item(b"\x7b\x00\x00\x00\x01\x00\x00\x00\x00x"), "a frame is not valid"),
    "duplicate keys": (item(b"\xa2\x61a\x01\x61a\x02"), "a frame is not valid"),
    "an integer that is not the shortest": (item(b"\x18\x01"), "a frame is not valid"),
    "a kind that is not the shortest": (raw(b"\x82\x18\x04\x01"), "a frame is not valid"),
    "an array of no definite length": (raw(b"\x9f\x04\x01\xff"), "a frame is not valid"),
    "a tag": (item(cbor2.dumps(cbor2.CBORTag(35, "("))), "a frame is not valid"),
    "text that is not UTF-8": (item(b"\x62\xff\xfe"), "a frame is not valid"),
    "bytes after the frame's value": (raw(b"\x82\x04\x01\x00"), "a frame is not valid"),
    "an unknown frame": (raw(cbor2.dumps([31, 0])), "critical kind 31"),
    "a frame of wrong fields": (raw(cbor2.dumps([6, 1, "x"])), "fields of a frame of kind CREDIT"),
    "a frame that is a map": (raw(cbor2.dumps({1: 2})), "a frame is not an array"),
    "a number that is too large": (raw(cbor2.dumps([4, 1 << 60])), "out of range"),
    "a stream of the other end": (call(2), "opened stream 2, which is not its next one"),
    "a stream opened twice": (call(1) * 2, "opened stream 1, which is not its next one"),
    "an item of no stream": (encode_frame(Item(7, 1)), "an item on stream 7, which never was open"),
    "an end of no stream": (encode_frame(End(1)), "ended or cancelled stream 1, which it never opened"),
    "a cancel of no stream": (encode_frame(Cancel(2)), "ended or cancelled stream 2, which it never opened"),
    "an answer to no call": (encode_frame(Response(2, 1, None)), "answered stream 2, which this end never opened"),
    "credit for no stream": (encode_frame(Credit(9, 1)), "credit to stream 9, which never was open"),
    "an item of a call that has none": (call(1, "Wait") + encode_frame(Item(1, 1)), "CALLER_ITEM is not possible"),
    "an item after the end": (item(b"\x00") + encode_frame(End(1)) + encode_frame(Item(1, 1)), "CALLER_ITEM is not possible"),
    "an overflow of the connection's credit": (encode_frame(Credit(0, 1 << 31)), "none, or an overflow"),
    "an overflow of a stream's credit": (call(1, "Wait") + encode_frame(Credit(1, 1 << 31)), "none, or an overflow"),
    "credit of nothing": (encode_frame(Credit(0, 0)), "none, or an overflow"),
    "more items than a stream's credit": (item(b"\x00") + encode_frame(Item(1, bytes(1_000_000))) * 3, "its stream's credit allows"),
    "more items than the connection's credit": (
        b"".join(call(n, "Hold", has_items=True) + encode_frame(Item(n, bytes(1_000_000))) for n in range(1, 13, 2)),
        "the connection's credit allows",
    ),
    "a flood of pings": (encode_frame(Ping(0, 1)) * 5000, "more than 16 pings at once"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
async def test_a_peer_that_breaks_the_protocol(server: Target, mallory: Principal, what: str) -> None:
    """It is told why, its connection is closed, and nobody else is disturbed."""
    data, reason = BROKEN[what]
    async with nobody_else_notices(server, reason), introduced(server.address, mallory) as attacker:
        await attacker.send(data)
        await attacker.until_closed()
        goodbyes = [event for event in attacker.heard if isinstance(event, Goaway)]
        assert not goodbyes or re.search(reason, goodbyes[-1].reason)


async def test_a_peer_that_leaves_in_the_middle_of_a_frame(server: Target, mallory: Principal) -> None:
    """Half a frame is not acted upon."""
    async with nobody_else_notices(server, "in the middle of a frame"), introduced(server.address, mallory) as attacker:
        await attacker.send(call(1)[:-1])
        attacker.socket.close()


async def test_frames_of_dead_streams_are_dropped(server: Target, mallory: Principal) -> None:
    """They may have crossed an answer, so the connection goes on; those of a stream that never was end it."""
    async with nobody_else_notices(server, "stream 99, which never was open"):  # noqa: SIM117 - one line more than fits
        async with introduced(server.address, mallory) as attacker:
            late: list[Frame] = [Item(1, 1), Credit(1, 5), End(1), Cancel(1), Item(1, bytes(100_000))]
            dead = b"".join(encode_frame(each) for each in late)
            await attacker.send(call(1, "Hold", has_items=True) + encode_frame(Cancel(1)))
            for _ in range(100):
                await attacker.send(dead)
            attacker.wire.send_request("Hold", "", [])
            attacker.wire.take_outgoing()
            assert await attacker.ask("Quick", "still here") == "still here"
            await attacker.send(encode_frame(Item(99, 1)))
            await attacker.until_closed()


async def test_frames_of_later_versions_are_ignored(server: Target, mallory: Principal) -> None:
    """Unknown kinds from 32 on do nothing; so does any number of them."""
    async with nobody_else_notices(server, "critical kind 30"), introduced(server.address, mallory) as attacker:
        await attacker.send(raw(cbor2.dumps([32, 0, "new"])) * 1000)
        assert await attacker.ask("Quick", "x") == "x"
        await attacker.send(raw(cbor2.dumps([30, 0])))
        await attacker.until_closed()


async def test_a_huge_map_is_refused_by_the_method_alone(server: Target, mallory: Principal) -> None:
    """What is right for the protocol and wrong for the method is answered, and costs no more than its size."""
    before = server.resident_bytes
    async with nobody_else_notices(server, "refused Quick"), introduced(server.address, mallory) as attacker:
        for _ in range(10):
            with pytest.raises(CallError, match="string is expected, not dict"):
                await attacker.ask("Quick", {str(n): n for n in range(50_000)})
    assert server.resident_bytes < before + (32 << 20)


async def test_a_peer_that_shows_itself_for_ever(server: Target, mallory: Principal) -> None:
    """Renewing is allowed; making the server verify chains in a loop is not."""
    async with nobody_else_notices(server, "showed itself too often"):  # noqa: SIM117 - one line more than fits
        async with introduced(server.address, mallory) as attacker:
            auth = encode_frame(await sign_auth(mallory, Role.CLIENT, attacker.channel.binding, mallory.store.default))
            await attacker.send(auth * 100)
            await attacker.until_closed()


async def test_a_half_open_peer_is_asked_and_then_cut_off(server: Target, mallory: Principal) -> None:
    """A peer whose machine is gone says nothing, and does not close either; one that is well answers the ping."""
    async with nobody_else_notices(server, r"nothing came for \d+ s, not even an answer to a ping"):  # noqa: SIM117 - one line more than fits
        async with introduced(server.address, mallory) as attacker:
            await attacker.until_closed()


async def test_a_slow_loris_that_has_authenticated(server: Target, mallory: Principal) -> None:
    """A large frame that comes byte by byte is held for a while, and not for ever."""
    async with nobody_else_notices(server, r"a frame that it began \d+ s ago is still not whole"):  # noqa: SIM117 - one line more than fits
        async with introduced(server.address, mallory) as attacker:
            await attacker.send(frame_header(1_000_000))
            async with trio.open_nursery() as nursery:

                async def drip() -> None:
                    while True:
                        await attacker.send(b"x")
                        await trio.sleep(0.2)

                nursery.start_soon(drip)
                await attacker.until_closed(is_kept=True)
                nursery.cancel_scope.cancel()


async def test_a_half_closed_peer(server: Target, mallory: Principal) -> None:
    """A peer that says it sends no more has left; the call that it made is cancelled."""
    before = server.open_files
    async with introduced(server.address, mallory) as attacker:
        await attacker.send(call(1, "Wait"))
        attacker.socket.shutdown(1)
        await attacker.until_closed()
    await eventually(lambda: server.open_files <= before)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds that the server brings about."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the server is another process
            await trio.sleep(0.01)


# Strangers


async def _false_auth(attacker: Attacker, mallory: Principal) -> Auth:
    return Auth(0, [1], b"key", None, [], b"signature")


async def _reflected(attacker: Attacker, mallory: Principal) -> Auth:
    return await attacker.server_auth()


async def _of_another_binding(attacker: Attacker, mallory: Principal) -> Auth:
    return await sign_auth(mallory, Role.CLIENT, bytes(32), mallory.store.default)


async def _as_a_server(attacker: Attacker, mallory: Principal) -> Auth:
    return await sign_auth(mallory, Role.SERVER, attacker.channel.binding, mallory.store.default)


async def _of_another_version(attacker: Attacker, mallory: Principal) -> Auth:
    auth = await sign_auth(mallory, Role.CLIENT, attacker.channel.binding, None)
    return auth._replace(versions=[2, 3])


async def _of_an_added_version(attacker: Attacker, mallory: Principal) -> Auth:
    auth = await sign_auth(mallory, Role.CLIENT, attacker.channel.binding, None)
    return auth._replace(versions=[1, 2])


async def _with_stolen_blessings(attacker: Attacker, mallory: Principal) -> Auth:
    stolen = (await principal("rich")).store.default
    assert stolen is not None
    return await _signed(attacker, mallory, stolen.encoded)


async def _signed(attacker: Attacker, mallory: Principal, blessings: bytes) -> Auth:
    """Return an `auth` for blessings of any bytes, signed as it must be."""
    payload = session_payload(Role.CLIENT, attacker.channel.binding, mallory.public_key.der, blessings, ())
    signature = await mallory.sign(SignatureType.SESSION, payload)
    return Auth(0, [1], mallory.public_key.der, blessings, [], signature)


def _with_chains(
    change: Callable[[list[bytes]], list[list[bytes]]],
) -> Callable[[Attacker, Principal], Awaitable[Auth]]:
    """Return an attack with blessings whose certificates, those of root:a:b for mallory's key, are changed."""

    async def attack(attacker: Attacker, mallory: Principal) -> Auth:
        root, middle = await principal("root"), await principal("middle")
        assert root.store.default is not None
        first = await root.bless(middle.public_key, root.store.default, "a", (FREE,))
        second = await middle.bless(mallory.public_key, first, "b", (FREE,))
        assert isinstance(second, Blessings)
        ((chain),) = cbor.decode(second.encoded, max_bytes=100_000)
        assert len(chain) == 3
        return await _signed(attacker, mallory, cbor.encode(change(chain)))

    return attack


STRANGERS: dict[str, tuple[Callable[[Attacker, Principal], Awaitable[Auth]], str]] = {
    "false credentials": (_false_auth, "credentials cannot be read"),
    "a reflected auth": (_reflected, "of another connection, role or content"),
    "an auth for another binding": (_of_another_binding, "of another connection, role or content"),
    "an auth of the other role": (_as_a_server, "of another connection, role or content"),
    "versions that are not spoken here": (_of_another_version, r"speaks versions \[2, 3\]"),
    "versions that were not signed": (_of_an_added_version, "of another connection, role or content"),
    "blessings of somebody else": (_with_stolen_blessings, "showed blessings of another key"),
    "a chain without its root": (_with_chains(lambda c: [c[1:]]), "credentials cannot be read"),
    "a chain without its middle": (_with_chains(lambda c: [[c[0], c[2]]]), "credentials cannot be read"),
    "a chain without its end": (_with_chains(lambda c: [c[:-1]]), "showed blessings of another key"),
    "a chain in another order": (_with_chains(lambda c: [[c[0], c[2], c[1]]]), "credentials cannot be read"),
    "a chain backwards": (_with_chains(lambda c: [c[::-1]]), "credentials cannot be read"),
    "a chain with a link twice": (_with_chains(lambda c: [[c[0], c[1], c[1], c[2]]]), "credentials cannot be read"),
    "an empty chain": (_with_chains(lambda c: [[]]), "credentials cannot be read"),
    "no chains": (_with_chains(lambda c: []), "credentials cannot be read"),
    "a chain twice": (_with_chains(lambda c: [c, c]), "credentials cannot be read"),
    "a thousand chains": (_with_chains(lambda c: [c] * 100), "credentials cannot be read"),
}


@pytest.mark.parametrize("what", STRANGERS)
async def test_a_stranger_with_false_credentials(server: Target, mallory: Principal, what: str) -> None:
    """It is told what is wrong, and is no peer."""
    make, reason = STRANGERS[what]
    async with nobody_else_notices(server, reason):
        attacker = await Attacker.meet(server.address)
        auth = await make(attacker, mallory)
        await attacker.send(encode_frame(auth) + call(1))
        await attacker.until_closed()
        assert not [event for event in attacker.heard if isinstance(event, Response)]


async def test_a_replayed_auth(server: Target, mallory: Principal) -> None:
    """What somebody signed for one connection is worth nothing on another, neither at first nor as a renewal."""
    async with introduced(server.address, mallory) as first:
        stolen = encode_frame(await sign_auth(mallory, Role.CLIENT, first.channel.binding, mallory.store.default))
        for is_known in (False, True):
            async with nobody_else_notices(server, "of another connection, role or content"):
                second = await Attacker.meet(server.address)
                await second.server_auth()
                if is_known:
                    await second.show(mallory)
                await second.send(stolen)
                await second.until_closed()


EARLY = {
    "a ping": (encode_frame(Ping(0, 1)), "before it had shown its credentials"),
    "a call": (call(1), "before it had shown its credentials"),
    "credentials of 128 KiB": (b"\x5a" + ((1 << 17) + 1).to_bytes(4), "131073 bytes is larger than the limit"),
    "a length of 2^32": (b"\x5b\x00\x00\x00\x01\x00\x00\x00\x00", "larger than the limit"),
    "HTTP inside TLS": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a frame is not valid"),
    "a tower of brackets": (raw(b"\x81" * 100_000), "a frame is not valid"),
    "an unknown frame": (raw(cbor2.dumps([12, 0])), "critical kind 12"),
}


@pytest.mark.parametrize("what", EARLY)
async def test_a_stranger_that_does_not_show_itself(server: Target, what: str) -> None:
    """Strangers say `auth` or nothing."""
    data, reason = EARLY[what]
    async with nobody_else_notices(server, reason):
        attacker = await Attacker.meet(server.address)
        await attacker.send(data)
        await attacker.until_closed()


# Other protocols

HELLO = bytes.fromhex("16030100c8010000c40303")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "TLS handshake failed: http request"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "TLS handshake failed"),
        (bytes(100), "TLS handshake failed"),
        (call(1), "TLS handshake failed"),
        (b"\x16\x03\x01\xff\xff" + bytes(20), "TLS handshake failed"),
        (b"".join(b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + bytes(0x3FFC) for _ in range(8)), "TLS handshake"),
    ],
    ids=["HTTP", "SSH", "zeros", "frames without TLS", "an endless record", "an endless hello"],
)
async def test_another_protocol_on_the_port(server: Target, data: bytes, reason: str) -> None:
    """It is closed at once, and the log says what was wrong with it."""
    async with nobody_else_notices(server, reason), await dial(server.address) as stream:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(data)
        await until_closed(stream)


def context_of(*protocols: bytes, tls: int = SSL.TLS1_3_VERSION) -> SSL.Context:
    """Return a client that speaks something else."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(tls)
    if protocols:
        context.set_alpn_protos(list(protocols))
    return context


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (context_of(ALPN, tls=SSL.TLS1_2_VERSION), "TLS handshake failed: (unsupported protocol|wrong version)"),
        (context_of(b"h2", b"http/1.1"), "does not speak vanadium/1"),
        (context_of(b"vanadium/2"), "does not speak vanadium/1"),
        (context_of(), "does not speak vanadium/1"),
    ],
    ids=["TLS 1.2", "gRPC", "a later version", "no ALPN"],
)
async def test_another_kind_of_tls(server: Target, context: SSL.Context, reason: str) -> None:
    """The versions of TLS and of the protocol are those that are spoken here, or none."""
    async with nobody_else_notices(server, reason):
        with suppress(ProtocolError):  # where the client finds out first
            attacker = await Attacker.meet(server.address, context)
            await attacker.until_closed()


# Slow ones


async def _nothing(send: Callable[[bytes], Awaitable[None]]) -> None:
    """Say nothing at all."""


async def _a_hello_in_drops(send: Callable[[bytes], Awaitable[None]]) -> None:
    channel = TlsChannel.connect(client_context())
    channel.shake_hands(b"")
    for byte in channel.take_pending():
        await send(bytes([byte]))
        await trio.sleep(0.05)


@pytest.mark.parametrize("drip", [_nothing, _a_hello_in_drops], ids=["silent", "in drops"])
async def test_a_slow_loris_before_tls(
    server: Target, drip: Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]
) -> None:
    """Neither silence nor trickling bytes buy more than the handshake's time."""
    async with nobody_else_notices(server, "has not authenticated in time"), await dial(server.address) as stream:
        with suppress(trio.BrokenResourceError):
            await drip(stream.send_all)
        await until_closed(stream)


@pytest.mark.parametrize("drops", [0, 150], ids=["silent", "in drops"])
async def test_a_slow_loris_inside_tls(server: Target, mallory: Principal, drops: int) -> None:
    """An `auth` that comes byte by byte, or not at all, is not waited for either."""
    async with nobody_else_notices(server, "has not authenticated in time"):
        attacker = await Attacker.meet(server.address)
        auth = encode_frame(await sign_auth(mallory, Role.CLIENT, attacker.channel.binding, mallory.store.default))
        for byte in auth[:drops]:
            await attacker.send(bytes([byte]))
            await trio.sleep(0.01)
        await attacker.until_closed()


# What is left of them


async def test_hundreds_of_attacks_leave_nothing(server: Target, mallory: Principal) -> None:
    """The server's memory is flat, and no descriptor is left open."""

    async def attack(times: int) -> None:
        for _ in range(times):
            for data, _ in BROKEN.values():
                async with introduced(server.address, mallory) as known:
                    await known.send(data)
                    await known.until_closed()
            for data, _ in EARLY.values():
                stranger = await Attacker.meet(server.address)
                await stranger.send(data)
                await stranger.until_closed()

    before: list[int] = []
    after: list[int] = []
    await attack(4)
    files = server.open_files
    for sizes in (before, after):
        for _ in range(4):
            await attack(2)
            sizes.append(server.resident_bytes)
    assert min(after) < max(before) * MAX_GROWTH, (before, after)
    await eventually(lambda: server.open_files <= files)


async def test_a_peer_that_never_reads(server: Target, mallory: Principal) -> None:
    """Answers that nobody takes are bounded: the server stops reading from such a peer, and serves the others."""
    before = server.resident_bytes
    async with introduced(server.address, mallory) as attacker, honest(server) as client:
        asks_much = ["ten bytes ", 90_000]
        requests = [
            encode_frame(Request(n, "Quick", "", asks_much, None, False, None, [], "")) for n in range(1, 8000, 2)
        ]
        await attacker.send(b"".join(requests))
        assert await client.call("Quick", "x") == "x"
        assert server.resident_bytes < before + MAX_QUEUED


async def test_a_peer_that_grants_much_and_never_reads(server: Target, mallory: Principal) -> None:
    """Credit is the peer's to give; what waits for it is bounded all the same."""
    before = server.resident_bytes
    async with introduced(server.address, mallory) as attacker, honest(server) as client:
        blobs = Request(1, "Blobs", "", [2000, 500_000], None, False, None, [], "")
        much = (1 << 31) - CONNECTION_WINDOW_BYTES
        await attacker.send(b"".join(encode_frame(each) for each in (blobs, Credit(0, much), Credit(1, much))))
        for _ in range(20):
            assert await client.call("Echo", "x") == "x"
            await trio.sleep(0.1)
        assert server.resident_bytes < before + MAX_QUEUED


async def test_five_thousand_idle_connections(tmp_path: Path) -> None:
    """They are closed with a reason; whoever is there, and whoever comes while they do, is served, and memory is flat."""
    with target(tmp_path, handshake_timeout=2) as server:
        before = server.resident_bytes
        idle: list[socket.socket] = []
        try:
            async with honest(server) as witness:
                for number in range(IDLE_CONNECTIONS):
                    idle.append(await dial_socket(server.address))
                    if number % 500 == 0:
                        assert await witness.call("Quick", "x") == "x"
                async with honest(server) as newcomer:
                    assert await newcomer.call("Quick", "new") == "new"
                assert await witness.call("Quick", "x") == "x"
                assert server.resident_bytes < before + IDLE_CONNECTIONS * MAX_IDLE_BYTES
                await eventually(lambda: "others waited for its place" in server.logged())
        finally:
            for each in idle:
                each.close()
        async with honest(server) as client:
            assert await client.call("Quick", "x") == "x"
        await eventually(lambda: server.open_files < 20)


async def test_idle_peers_beyond_the_limit(tmp_path: Path, mallory: Principal) -> None:
    """Authenticated ones that do nothing make room, the idlest first; whoever calls now and then is never among them.

    With VANADIUM_TEST_IDLE_PEERS=5000 as many as a server with its usual limit has to cope with (a minute).
    """
    number = int(os.environ.get("VANADIUM_TEST_IDLE_PEERS", "200"))
    most = number * 4 // 5
    with target(tmp_path, max_connections=most) as server:
        async with AsyncExitStack() as idle, honest(server) as witness:
            before, files = server.resident_bytes, server.open_files
            peers = []
            for count in range(number):
                peers.append(await idle.enter_async_context(introduced(server.address, mallory)))
                if count % (most // 4) == 0:
                    assert await witness.call("Quick", "x") == "x"
            await peers[0].until_closed()
            await eventually(lambda: server.open_files <= files + most)
            assert server.resident_bytes < before + most * MAX_PEER_BYTES
            assert "it was the idlest of too many connections" in server.logged()
            assert await witness.call("Quick", "x") == "x"
