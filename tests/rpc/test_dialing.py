"""Names with several addresses: who is tried when, who wins, what the error says. Real sockets; only the resolver is a fake."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trio
from rpc_parties import Parties, served

from vanadium_node.errors import ConfigurationError, UnreachableError
from vanadium_node.rpc import TcpAddress, connect
from vanadium_node.rpc.dialing import ATTEMPT_DELAY_SECONDS, dial
from vanadium_node.rpc.sockets import listen

NAME = "shop.test"


class Resolver(trio.abc.HostnameResolver):
    """Knows one name."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - trio's name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Return the name's addresses, in their order."""
        assert host == NAME.encode()
        return [
            info
            for each in self.addresses
            for info in socket.getaddrinfo(each, port, type=type, flags=socket.AI_NUMERICHOST)
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """Nobody asks for it."""
        raise NotImplementedError


@pytest.fixture
def full() -> Iterator[socket.socket]:
    """A listener on 127.0.0.1 whose queue is full: attempts to connect get no answer, as from behind a firewall."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener


def port_of(listener: socket.socket) -> int:
    """Return the port that a socket listens on."""
    return int(listener.getsockname()[1])


@pytest.mark.parametrize("addresses", [("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("127.0.0.9", "127.0.0.8", "::1")])
async def test_one_of_several_addresses_answers(family: Parties, addresses: tuple[str, ...]) -> None:
    """The others refuse, and are not waited for; whichever family the server speaks."""
    for place in ("127.0.0.1:0", "[::1]:0"):
        if place.rpartition(":")[0].strip("[]") not in addresses:
            continue
        trio.socket.set_custom_hostname_resolver(Resolver(*addresses))
        async with served(family, listen=place) as server:
            port = server.addresses[0].rpartition(":")[2]
            began = trio.current_time()
            async with connect(f"/{NAME}:{port}", family.client, now=family.clock) as client:
                assert await client.call("Quick", "x") == "x"
                assert client.name.address == TcpAddress(NAME, int(port))
            assert trio.current_time() - began < 10 * ATTEMPT_DELAY_SECONDS


async def test_an_address_that_says_nothing_is_not_waited_for(full: socket.socket) -> None:
    """The next one starts after 250 ms, and wins; the silent attempt is closed."""
    trio.socket.set_custom_hostname_resolver(Resolver("127.0.0.1", "::1"))
    with socket.create_server(("::1", port_of(full)), family=socket.AF_INET6) as listener:
        began = trio.current_time()
        with await dial(TcpAddress(NAME, port_of(full)), {}) as connected:
            assert connected.family == socket.AF_INET6
            assert connected.getpeername()[:2] == listener.getsockname()[:2]
        assert 0.9 * ATTEMPT_DELAY_SECONDS <= trio.current_time() - began < 10 * ATTEMPT_DELAY_SECONDS


async def test_families_take_turns(full: socket.socket) -> None:
    """Of four silent addresses of one family and one of the other, the other one is second (RFC 8305 §4)."""
    trio.socket.set_custom_hostname_resolver(Resolver("127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3", "::1"))
    with (
        socket.create_server(("::1", port_of(full)), family=socket.AF_INET6),
        socket.create_server(("127.0.0.2", port_of(full))),
        await dial(TcpAddress(NAME, port_of(full)), {}) as connected,
    ):
        assert connected.family == socket.AF_INET6


async def test_the_slower_first_address_may_still_win(full: socket.socket) -> None:
    """An attempt goes on beside the later ones, and is the one when it comes about first."""
    trio.socket.set_custom_hostname_resolver(Resolver("127.0.0.1", "::1"))
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def make_room() -> None:
            await trio.sleep(2 * ATTEMPT_DELAY_SECONDS)
            full.setblocking(False)
            for _ in range(8):
                try:
                    full.accept()[0].close()
                except BlockingIOError:
                    break

        nursery.start_soon(make_room)
        with trio.fail_after(10):
            connected = await dial(TcpAddress(NAME, port_of(full)), {})
        with connected:
            assert connected.family == socket.AF_INET
            assert trio.current_time() - began >= 2 * ATTEMPT_DELAY_SECONDS


async def test_the_error_names_each_address() -> None:
    """With the system's reason; the same reason is said once."""
    trio.socket.set_custom_hostname_resolver(Resolver("127.0.0.1", "::1", "255.255.255.255"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = port_of(free)
    with pytest.raises(UnreachableError) as caught:
        await dial(TcpAddress(NAME, port), {})
    sentence = str(caught.value)
    assert f"nobody answers at {NAME}:{port}: Connection refused (127.0.0.1, ::1); " in sentence
    assert "(255.255.255.255)" in sentence


async def test_a_name_with_two_addresses_is_listened_on_at_both() -> None:
    """On the same port, also where the system chooses it; an address that this machine has not is left out."""
    trio.socket.set_custom_hostname_resolver(Resolver("::1", "127.0.0.1", "203.0.113.7"))
    listeners = await listen(TcpAddress(NAME, 0))
    try:
        assert [listener.getsockname()[0] for listener in listeners] == ["::1", "127.0.0.1"]
        assert len({port_of(listener) for listener in listeners}) == 1
        with pytest.raises(ConfigurationError, match="in use"):
            await listen(TcpAddress(NAME, port_of(listeners[0])))
    finally:
        for listener in listeners:
            listener.close()
    trio.socket.set_custom_hostname_resolver(Resolver("203.0.113.7"))
    with pytest.raises(ConfigurationError, match="choose an address of this machine"):
        await listen(TcpAddress(NAME, 0))
