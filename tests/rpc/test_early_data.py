"""A server that shows itself in the flight of its TLS handshake, and one that cannot; calls that read their own answers."""

from __future__ import annotations

import logging

import pytest
import trio
from attacker import dial_socket
from rpc_parties import Parties, served
from until import eventually

from vanadium_node.errors import CallError, ErrorCode, UnreachableError
from vanadium_node.rpc import connect, early_data
from vanadium_node.rpc.conversation import UNREAD_SECONDS
from vanadium_node.rpc.tls import TlsChannel, client_context
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.frames import Auth
from vanadium_node.wire.handshake import Role, verify_auth


async def test_the_servers_auth_comes_before_the_clients_finished(family: Parties) -> None:
    """A client that has sent its hello and nothing else sees who the server is, bound to this channel."""
    async with served(family) as server:
        connection = await dial_socket(server.addresses[0])
        with connection, trio.fail_after(5):
            connection.setblocking(False)
            channel, wire = TlsChannel.connect(client_context()), Connection(Role.CLIENT)
            channel.shake_hands(b"")
            connection.send(channel.take_pending())
            while not channel.has_heard:
                await trio.lowlevel.wait_readable(connection)
                channel.shake_hands(connection.recv(65536))
            heard = channel.decrypt(b"")
            assert heard is not None
            [auth] = wire.receive(heard)
            assert isinstance(auth, Auth)
            shown = verify_auth(auth, Role.SERVER, channel.binding).blessings
            assert shown == family.server.store.default
            assert server.connections == 0
            assert server.strangers == 1


@pytest.mark.parametrize("is_early", [True, False])
async def test_both_orders_are_the_same_to_a_client(
    family: Parties, monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    """A server whose OpenSSL cannot be asked for it shows itself after the handshake."""
    assert early_data.IS_AVAILABLE
    monkeypatch.setattr(early_data, "IS_AVAILABLE", is_early)
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):
        assert await client.call("Quick", "x" * 100_000) == "x" * 100_000
        assert client.server.presented == family.server.store.default.names if family.server.store.default else ()


@pytest.mark.parametrize("garbage", [b"\x17\x03\x03\x00\x10" + bytes(16), b"GET / HTTP/1.1\r\n\r\n"])
async def test_garbage_after_the_hello(family: Parties, caplog: pytest.LogCaptureFixture, garbage: bytes) -> None:
    """The connection ends with the reason in the log, and others are served."""
    caplog.set_level(logging.INFO)
    async with served(family) as server:
        connection = await dial_socket(server.addresses[0])
        with connection, trio.fail_after(5):
            connection.setblocking(False)
            channel = TlsChannel.connect(client_context())
            channel.shake_hands(b"")
            connection.send(channel.take_pending())
            await trio.lowlevel.wait_readable(connection)
            connection.send(garbage)
            await eventually(lambda: server.strangers == 0)
        assert "the TLS handshake failed" in caplog.text
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
            assert await client.call("Quick", "x") == "x"


async def test_one_call_needs_no_task(family: Parties) -> None:
    """A connection that comes and goes for a call adds none, and one that stays is read by one."""
    async with served(family) as server:
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
            before = trio.lowlevel.current_statistics().tasks_living
            assert await client.call("Quick", "x") == "x"
            assert trio.lowlevel.current_statistics().tasks_living <= before + 1  # the server's
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:
            await trio.sleep(2 * UNREAD_SECONDS)
            await server.drain()
            await eventually(lambda: not client.is_open)


async def test_a_call_that_reads_leaves_that_to_others(family: Parties) -> None:
    """When it is cancelled, or its time is over, while others wait on the connection."""
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
        trio.open_nursery() as nursery,
    ):

        async def hurry() -> None:
            with pytest.raises(CallError) as caught:
                await client.call("Wait", timeout=0.05)
            assert caught.value.code is ErrorCode.TIMEOUT

        nursery.start_soon(hurry)
        await family.service.is_busy.wait()
        with trio.move_on_after(0.02):
            await client.call("Wait")
        assert await client.call("Quick", "x") == "x"


async def test_closing_wakes_a_call_that_reads(family: Parties) -> None:
    """Also one of a task that the connection does not know."""
    failed = trio.Event()
    async with served(family) as server, trio.open_nursery() as nursery:
        async with connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client:

            async def wait() -> None:
                with pytest.raises(UnreachableError, match="is closed"):
                    await client.call("Wait")
                failed.set()

            nursery.start_soon(wait)
            await family.service.is_busy.wait()
        with trio.fail_after(5):
            await failed.wait()
