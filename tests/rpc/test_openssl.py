"""OpenSSL's extra functions: what is read and offered is the same with and without them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
from OpenSSL import SSL
from rpc_parties import Clock, Parties, connected

from vanadium_node.errors import CallError, ErrorCode, ProtocolError
from vanadium_node.rpc import Call, Client, Service, Tag, connect, method, openssl, serve, tls
from vanadium_node.rpc.tls import ALPN, TlsChannel, client_context, server_context
from vanadium_node.security.authorization import everyone

ITEM_BYTES = 1 << 16
ITEMS = 40
"""More than a stream's window."""


@pytest.fixture(params=["with both", "without pending", "without groups", "without both"])
def functions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What OpenSSL can do; the context that clients share is made anew."""
    assert openssl.HAS_PENDING, "there is another way to test where it is not there"
    assert openssl.HAS_GROUPS
    monkeypatch.setattr(openssl, "HAS_PENDING", request.param in {"with both", "without groups"})
    monkeypatch.setattr(openssl, "HAS_GROUPS", request.param in {"with both", "without pending"})
    client_context.cache_clear()
    yield request.param
    client_context.cache_clear()


class Blobs(Service):
    """Blobs go both ways."""

    @method(tag=Tag.READ)
    async def back(self, call: Call, items: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Streams each blob back."""
        async for item in items:
            yield item


async def test_calls(functions: str, family: Parties) -> None:
    """Small and large ones, alone and at once, and errors."""
    async with connected(family) as client:
        for size in (0, 1, ITEM_BYTES, 500_000):
            assert await client.call("Quick", "x" * size) == "x" * size
        async with trio.open_nursery() as nursery:
            for size in range(0, 100_000, 7_000):
                nursery.start_soon(echo, client, "y" * size)
        with pytest.raises(CallError) as caught:
            await client.call("Fail", "exists")
        assert caught.value.code is ErrorCode.EXISTS


async def echo(client: Client, text: str) -> None:
    """Expect a text back."""
    assert await client.call("Echo", text) == text


async def test_a_stream_of_large_items(functions: str, family: Parties) -> None:
    """Each way, many records at once, in order."""
    sent = [bytes([number]) * ITEM_BYTES for number in range(ITEMS)]
    async with (
        serve(Blobs(), family.server, listen=["127.0.0.1:0"], authorizer=everyone, now=family.clock) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):
        with trio.fail_after(20):
            async with client.stream("Back", has_items=True, returns=bytes) as stream, trio.open_nursery() as nursery:

                async def send() -> None:
                    for each in sent:
                        await stream.send(each)
                    stream.end()

                nursery.start_soon(send)
                assert [item async for item in stream] == sent


# Channels without sockets


def meet(client: TlsChannel, server: TlsChannel) -> None:
    """Shake hands."""
    client.shake_hands(b"")
    while not (client.is_done and server.is_done):
        server.shake_hands(client.take_pending())
        client.shake_hands(server.take_pending())


def channels() -> tuple[TlsChannel, TlsChannel]:
    """Return both ends of a channel that is up."""
    ends = TlsChannel.connect(client_context()), TlsChannel.accept(server_context(Clock()()))
    meet(*ends)
    return ends


def test_records_however_they_come(functions: str) -> None:
    """Several at once, and one in pieces: what is whole is read, and nothing is kept back."""
    client, server = channels()
    records = [client.encrypt(bytes([number]) * 1000) for number in range(5)]
    assert server.decrypt(b"".join(records[:4])) == b"".join(bytes([number]) * 1000 for number in range(4))
    assert server.decrypt(records[4][:500]) == b""
    assert server.decrypt(records[4][500:]) == b"\x04" * 1000
    data = bytes(range(256)) * 1024
    assert server.decrypt(client.encrypt(data)) == data


def test_goodbyes_and_garbage(functions: str) -> None:
    """A goodbye after data is heard after it; what is no record is a fault."""
    client, server = channels()
    assert server.decrypt(client.encrypt(b"last words") + client.close()) == b"last words"
    assert server.decrypt(b"") is None
    client, server = channels()
    with pytest.raises(ProtocolError, match="is not TLS"):
        server.decrypt(b"GET / HTTP/1.1\r\n\r\n")


def hello_of(channel: TlsChannel) -> bytes:
    """Return a client's hello."""
    channel.shake_hands(b"")
    return channel.take_pending()


def test_one_share_is_offered_where_it_can_be_chosen(functions: str) -> None:
    """A hello with a share of the first group alone is smaller; the channel is the same."""
    chosen = hello_of(TlsChannel.connect(client_context()))
    own = SSL.Context(SSL.TLS_CLIENT_METHOD)
    own.set_min_proto_version(SSL.TLS1_3_VERSION)
    own.set_alpn_protos([ALPN])
    default = hello_of(TlsChannel.connect(own))
    x25519_share = b"\x00\x1d\x00\x20"
    assert x25519_share in default
    assert (x25519_share in chosen) == (functions in {"without groups", "without both"})
    client, server = channels()
    assert client.binding == server.binding


def test_groups_that_openssl_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its own, says nothing of it later, and the channel comes about."""
    context: Any = SSL.Context(SSL.TLS_CLIENT_METHOD)
    assert not openssl.choose_groups(context, b"X25519:NoSuchGroup")
    monkeypatch.setattr(tls, "_GROUPS", b"NoSuchGroup")
    client_context.cache_clear()
    try:
        client, server = channels()
        assert server.decrypt(client.encrypt(b"x")) == b"x"
    finally:
        client_context.cache_clear()
