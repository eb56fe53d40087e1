"""Where servers listen and clients dial: ports, addresses of pods, hosts files, unix sockets."""

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from rpc_parties import Parties, Playground, connected, served

from vanadium_node.errors import ConfigurationError, InputError, StorageError, UnreachableError
from vanadium_node.rpc import Name, TcpAddress, UnixAddress, connect, serve
from vanadium_node.rpc.naming import parse_listen_address
from vanadium_node.security.authorization import everyone
from vanadium_node.security.pattern import Pattern


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: socket paths end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vr-") as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/host:2345", Name(address=TcpAddress("host", 2345))),
        ("/host:2345/a/b", Name(address=TcpAddress("host", 2345), suffix="a/b")),
        ("/(root:shop)@host:2345/a", Name(address=TcpAddress("host", 2345), pattern=Pattern("root:shop"), suffix="a")),
        ("/(...)@10.0.0.1:1", Name(address=TcpAddress("10.0.0.1", 1), pattern=Pattern("..."))),
        ("/[fe80::1%eth0.5]:8193", Name(address=TcpAddress("fe80::1%eth0.5", 8193))),
        ("/[::1]:8193", Name(address=TcpAddress("::1", 8193))),
        ("unix:/run/agent.sock", Name(address=UnixAddress(Path("/run/agent.sock")))),
    ],
)
def test_names(text: str, expected: Name) -> None:
    """Names are read, and written as they were."""
    assert Name.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    ["", "host:2345", "/host", "/host:", "/host:99999", "/:2345", "/host:0", "/(b:)@host:1", "/(b@host:1", "/()x@host:1", "/a b:1",
     "/::1:8193", "/[zone]:1", "/[::1%]:1", "/[]:1", "unix:", "/host:2345\n", "unix:/" + "x" * 107],
)  # fmt: skip
def test_texts_that_are_no_names(text: str) -> None:
    """Each is refused, with the text and an example or the reason."""
    with pytest.raises(InputError) as caught:
        Name.parse(text)
    assert text.removeprefix("unix:")[:40].strip() in str(caught.value)
    assert caught.value.hint or "pattern" in str(caught.value)


@pytest.mark.parametrize("text", [":2345", "127.0.0.1:0", "[::]:80", "localhost:1"])
def test_places_to_listen(text: str) -> None:
    """Hosts may be left out here, and port 0 is any."""
    assert str(parse_listen_address(text)) == text


async def test_a_port_in_use_is_named(family: Parties) -> None:
    """One sentence with the address and what to do, before anything is served."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=address) as caught:
            async with served(family, listen=address):
                pass
    assert "in use" in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"203\.0\.113\.1"):
        async with served(family, listen="203.0.113.1:0"):
            pass


async def test_nobody_at_an_address_is_named(family: Parties) -> None:
    """One sentence with the address and the system's reason."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UnreachableError, match=rf"nobody answers at {address}: Connection refused"):
        async with connect(f"/{address}", family.client):
            pass
    with pytest.raises(UnreachableError, match=r"does-not-exist\.invalid"):
        async with connect("/does-not-exist.invalid:1", family.client):
            pass


async def test_every_address_of_the_machine(family: Parties) -> None:
    """`:0` takes connections on all of them."""
    async with served(family, listen=":0") as server:
        port = server.addresses[0].rpartition(":")[2]
        for host in ("127.0.0.1", "localhost"):
            async with connect(f"/{host}:{port}", family.client, now=family.clock) as client:
                assert await client.call("Quick", host) == host


async def test_a_pod_has_an_address_of_its_own(family: Parties, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """`:0` listens there alone, connections come from there, and its hosts file is asked first, at each dial."""
    monkeypatch.setenv("VANADIUM_POD_IP", "127.66.0.9")
    monkeypatch.setenv("VANADIUM_HOSTS", str(folder / "hosts"))
    async with served(family, listen=":0") as server:
        host, _, port = server.addresses[0].rpartition(":")
        assert host == "127.66.0.9"
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", int(port)), timeout=1)
        with pytest.raises(UnreachableError):
            async with connect(f"/server.shop.svc:{port}", family.client, now=family.clock):
                pass
        (folder / "hosts").write_text("# names\n127.66.0.9 other server.shop.svc # comment\n")
        async with connect(f"/server.shop.svc:{port}", family.client, now=family.clock) as client:
            assert (await client.call("__identify"))[3].startswith("127.66.0.9:")


@pytest.mark.parametrize("place", ["[::1]:0", "[::]:0"])
async def test_ipv6(family: Parties, place: str) -> None:
    """Both ends speak it: a server says where it is reached, and names its callers."""
    async with (
        served(family, listen=place) as server,
        connect(f"/{server.addresses[0]}", family.client, now=family.clock) as client,
    ):
        assert server.addresses[0].startswith("[::1]:")
        assert (await client.call("__identify"))[3].startswith("[::1]:")


async def test_a_unix_socket_names_its_peers(folder: Path) -> None:
    """Neither TLS nor blessings: the system says who is there; the file has the permissions asked for, and goes at the end."""
    path = folder / "s"
    async with serve(Playground(), None, listen=[f"unix:{path}"], authorizer=everyone, unix_mode=0o660) as server:
        assert server.addresses == (f"unix:{path}",)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with connect(f"unix:{path}", None) as client:
            assert await client.call("Quick", "x") == "x"
            assert client.server.uid == os.getuid()
            assert client.server.public_key is None
    assert not path.exists()


async def test_unix_sockets_that_cannot_be(family: Parties, folder: Path) -> None:
    """In use, no directory, a file in the way: each is named; a socket that a dead server left is replaced."""
    path = folder / "s"
    async with serve(Playground(), None, listen=[f"unix:{path}"]):
        with pytest.raises(ConfigurationError, match="somebody else serves it"):
            async with serve(Playground(), None, listen=[f"unix:{path}"]):
                pass
        assert path.exists()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with (
        serve(Playground(), None, listen=[f"unix:{path}"], authorizer=everyone),
        connect(f"unix:{path}", None) as client,
    ):
        assert await client.call("Quick", "x") == "x"
    with pytest.raises(StorageError, match="nowhere"):
        async with serve(Playground(), None, listen=[f"unix:{folder}/nowhere/s"]):
            pass
    (folder / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="file"):
        async with serve(Playground(), None, listen=[f"unix:{folder}/file"]):
            pass
    with pytest.raises(UnreachableError, match="nobody answers at unix:"):
        async with connect(f"unix:{folder}/gone", None):
            pass


async def test_a_server_without_a_principal_stays_on_the_machine() -> None:
    """TCP needs an identity; it says so and leaves nothing open."""
    with pytest.raises(ConfigurationError, match="without a principal"):
        async with serve(Playground(), None, listen=["127.0.0.1:0"]):
            pass


async def test_errors_of_the_block_come_out_as_they_are(family: Parties) -> None:
    """Neither `serve` nor `connect` wraps what its block raises."""
    with pytest.raises(ZeroDivisionError):
        async with connected(family):
            raise ZeroDivisionError
    with trio.move_on_after(timedelta(seconds=0.05).total_seconds()) as scope:
        async with connected(family):
            await trio.sleep_forever()
    assert scope.cancelled_caught
