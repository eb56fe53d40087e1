"""The health endpoint, asked over real sockets, and what it does about peers that are no kubelets."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from http_get import exchanged, get
from rpc_parties import Parties, parties

from vanadium_node.errors import ConfigurationError
from vanadium_node.health import Health, health_endpoint
from vanadium_node.health.http import MAX_CONNECTIONS, REQUEST_SECONDS
from vanadium_node.rpc import connect, serve


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    """An endpoint on a free port."""
    async with health_endpoint("127.0.0.1:0") as endpoint:
        yield endpoint


async def test_what_it_says(health: Health) -> None:
    """Alive while it starts, ready when it says so, and the reasons when it is not."""
    [address] = health.addresses
    assert await get(address, "/livez") == (200, "ok\n")
    assert await get(address, "/readyz") == (503, "it is starting\n")
    assert "vanadium_ready 0.0" in (await get(address, "/metrics"))[1]
    health.not_ready = tuple
    assert await get(address, "/readyz?verbose") == (200, "ok\n")
    health.worries = lambda: ("the last renewal failed",)
    assert await get(address, "/readyz") == (200, "ok\nthe last renewal failed\n")
    health.not_ready = lambda: ("the disk is full", "the audit log cannot be written")
    assert await get(address, "/readyz") == (503, "the disk is full\nthe audit log cannot be written\n")
    assert await get(address, "/readyz", "HEAD") == (503, "")
    health.gauges["vanadium_identity_seconds_left"] = ("What is left.", lambda: 2.5)
    assert "vanadium_identity_seconds_left 2.5" in (await get(address, "/metrics"))[1]


async def test_calls_are_counted(health: Health) -> None:
    """By method and code, with the process's own memory beside them."""
    family: Parties = await parties()
    async with (
        serve(
            family.service, family.server, listen=["127.0.0.1:0"], observers=health.observers, now=family.clock
        ) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):
        for _ in range(3):
            await client.call("Echo", "x")
        _, metrics = await get(health.addresses[0], "/metrics")
    assert 'vanadium_rpc_calls_total{code="ok",method="Echo"} 3.0' in metrics
    assert "process_resident_memory_bytes" in metrics


async def test_on_a_unix_socket(tmp_path: Path) -> None:
    """For owner and group only, and gone afterwards."""
    path = tmp_path / "health.sock"
    async with health_endpoint(f"unix:{path}") as health:
        assert health.addresses == (f"unix:{path}",)
        assert path.stat().st_mode & 0o777 == 0o660
        assert await get(health.addresses[0], "/livez") == (200, "ok\n")
    assert not path.exists()


async def test_an_address_in_use(health: Health) -> None:
    """It is named."""
    with pytest.raises(ConfigurationError, match=f"cannot listen on {health.addresses[0]}"):
        async with health_endpoint(health.addresses[0]):
            pass


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", b"405"),
        (b"GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /livez\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * 60_000, b"431"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
    ],
)
async def test_requests_that_are_odd(health: Health, request_: bytes, status: bytes) -> None:
    """Each is answered by one status, and the connection closed."""
    answer = await exchanged(health.addresses[0], request_)
    assert answer.split()[1] == status
    assert answer.count(b"HTTP/1.1 ") == 1
    assert await get(health.addresses[0], "/livez") == (200, "ok\n")


async def test_peers_that_dawdle(health: Health, autojump_clock: trio.testing.MockClock) -> None:
    """They are cut off after some seconds, or by those who come after them: a probe is answered at once whatever others hold."""
    host, _, port = health.addresses[0].rpartition(":")
    began = trio.current_time()
    dawdlers = [await trio.open_tcp_stream(host, int(port)) for _ in range(3 * MAX_CONNECTIONS)]
    for each in dawdlers[-MAX_CONNECTIONS:]:
        await each.send_all(b"GET /livez HT")
    assert await get(health.addresses[0], "/livez") == (200, "ok\n")
    assert trio.current_time() - began < REQUEST_SECONDS / 2
    for each in dawdlers:
        with suppress(trio.BrokenResourceError):
            assert await each.receive_some() == b""
    assert trio.current_time() - began == pytest.approx(REQUEST_SECONDS, abs=1)
    for each in dawdlers:
        await each.aclose()


async def test_an_error_of_the_daemon_is_not_wrapped() -> None:
    """It comes out as it is."""
    with pytest.raises(KeyError):
        async with health_endpoint("127.0.0.1:0"):
            raise KeyError


def test_nothing_is_loaded_where_it_is_not_wanted() -> None:
    """A pod agent without an endpoint has neither an HTTP parser nor metrics in its memory."""
    code = (
        "import sys, trio\n"
        "from vanadium_node.health import health_endpoint\n"
        "async def main():\n"
        "    async with health_endpoint(None) as health: assert not health.addresses\n"
        "trio.run(main)\n"
        "sys.exit(bool({'h11', 'prometheus_client'} & set(sys.modules)))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
