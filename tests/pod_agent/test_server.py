"""A pod agent against a cluster agent, over real sockets."""

import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from agent_parties import bless, blessed, default_of, eventually, new_root, short_directory
from http_get import get
from until import until

from vanadium_node.agent import open_principal
from vanadium_node.config import PodAgentSettings
from vanadium_node.errors import (
    CallError,
    ConfigurationError,
    ErrorCode,
    NotTrustedError,
    StorageError,
    UnreachableError,
)
from vanadium_node.pod_agent import run
from vanadium_node.pod_agent.seeking import read_secret, seek_blessings
from vanadium_node.rpc import Call, Service, Tag, connect, method, serve
from vanadium_node.security.authorization import everyone
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.discharge import ThirdParty
from vanadium_node.security.principal import Principal


class Giver(Service):
    """A cluster agent that gives what the test wants."""

    authorizer = staticmethod(everyone)

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.secrets: list[str] = []
        self.presented: list[tuple[str, ...]] = []
        self.good_secret = "open sesame"
        self.life = timedelta(hours=1)
        self.instead: Blessings | None = None

    @method(tag=Tag.READ)
    async def seek_blessings(self, call: Call, secret: str) -> Blessings:
        """Returns blessings for the right secret."""
        self.secrets.append(secret)
        self.presented.append(call.peer.presented)
        if secret != self.good_secret:
            raise CallError(ErrorCode.NOT_FOUND, "the secret is unknown here")
        key = call.peer.public_key
        assert key is not None
        if self.instead is not None:
            return self.instead
        caveat = Caveat.expiry(_now() + self.life)
        return await self.principal.bless(key, default_of(self.principal), f"r{len(self.secrets)}", [caveat])


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Pod:
    """A pod's files, and the cluster agent that it is told of."""

    folder: Path
    root: Principal
    giver: Giver
    name: str = ""
    stop: trio.Event = field(default_factory=trio.Event)

    @property
    def socket(self) -> Path:
        """The socket's path."""
        return self.folder / "agent.sock"

    @property
    def settings(self) -> PodAgentSettings:
        """The pod agent's settings."""
        return PodAgentSettings(
            agent=self.name,
            socket_path=self.socket,
            secret_key_file=self.folder / "secret",
            root_blessings=(default_of(self.root),),
            drain_timeout=timedelta(seconds=1),
        )

    def write_secret(self, secret: str) -> None:
        """Mount a secret."""
        (self.folder / "secret").write_text(secret + "\n")

    @asynccontextmanager
    async def giving(self) -> AsyncIterator[None]:
        """Serve the cluster agent."""
        async with serve(self.giver, self.giver.principal, listen=["127.0.0.1:0"]) as server:
            self.name = f"/(root:agent)@{server.addresses[0]}"
            yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name."""
    with short_directory() as short:
        yield short


@pytest.fixture
async def pod(folder: Path) -> Pod:
    """A pod with a secret that is good."""
    root = await new_root()
    pod = Pod(folder, root, Giver(await blessed(root, "agent")))
    pod.write_secret("open sesame")
    return pod


async def test_a_socket_with_an_identity_behind_it(pod: Pod) -> None:
    """It appears with permissions for owner and group; the replica shows no name before it has one; it goes at the end."""
    async with pod.giving(), trio.open_nursery() as nursery:
        path = await nursery.start(lambda task_status: run(pod.settings, stop=pod.stop, task_status=task_status))
        assert path == pod.socket
        assert stat.S_IMODE(path.lstat().st_mode) == 0o660
        assert sorted(entry.name for entry in pod.folder.iterdir()) == ["agent.sock", "secret"]
        async with open_principal(environ={"V23_AGENT_PATH": str(path)}) as principal:
            assert default_of(principal).names == ("root:agent:r1",)
            with pytest.raises(CallError, match="cannot be changed by its clients"):
                await principal.set_default(None)
        assert pod.giver.presented == [()]
        pod.stop.set()
    assert [entry.name for entry in pod.folder.iterdir()] == ["secret"]


async def test_health_over_http(pod: Pod) -> None:
    """Before there is an identity it says what it waits for; then how long that lasts, until it stops."""
    pod.write_secret("shut")
    health = f"unix:{pod.folder / 'health.sock'}"
    async with pod.giving(), trio.open_nursery() as nursery:
        settings = replace(pod.settings, health_listen=health)
        nursery.start_soon(lambda: run(settings, stop=pod.stop))
        await eventually(lambda: len(pod.giver.secrets) > 1)
        assert await get(health, "/livez") == (200, "ok\n")
        status, reasons = await get(health, "/readyz")
        assert (status, reasons.splitlines()[0]) == (503, "there is no identity yet")
        assert "the secret is unknown here" in reasons
        assert "shut" not in reasons
        pod.write_secret("open sesame")
        await eventually(pod.socket.exists)
        assert await get(health, "/readyz") == (200, "ok\n")
        left = next(
            line for line in (await get(health, "/metrics"))[1].splitlines() if line.startswith("vanadium_identity")
        )
        assert 3590 < float(left.split()[1]) <= 3600
        pod.stop.set()


async def test_two_replicas_share_nothing(pod: Pod) -> None:
    """Each run of a pod agent has a key and a name of its own."""
    keys, names = set(), set()
    async with pod.giving():
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                path = await nursery.start(lambda task_status: run(pod.settings, task_status=task_status))
                async with open_principal(environ={"V23_AGENT_PATH": str(path)}) as principal:
                    keys.add(principal.public_key)
                    names.add(default_of(principal).names)
                nursery.cancel_scope.cancel()
            assert not pod.socket.exists(), "a cancelled agent leaves no socket either"
    assert len(keys) == len(names) == 2


async def test_the_secret_may_come_later(pod: Pod) -> None:
    """No file, an empty one and a wrong secret are waited out; there is no socket meanwhile."""
    (pod.folder / "secret").unlink()
    async with pod.giving(), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run(pod.settings, stop=pod.stop))
        await trio.sleep(0.3)
        pod.write_secret("wrong")
        await eventually(lambda: "wrong" in pod.giver.secrets)
        assert not pod.socket.exists()
        pod.write_secret("open sesame")
        await eventually(pod.socket.exists)
        pod.stop.set()


async def test_whoever_waits_is_told_what_for(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    """Once in its own log, and in the error of a program that does not wait for ever; it goes on when there is an identity."""
    pod.write_secret("wrong")
    environ, why = {"V23_AGENT_PATH": str(pod.socket)}, "there is no identity yet; the secret is unknown here"

    async def is_told() -> bool:
        with pytest.raises(UnreachableError, match="no agent answered on") as told:
            async with open_principal(environ=environ, timeout=0.2):
                pass
        return why in str(told.value)

    async with pod.giving(), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run(pod.settings, stop=pod.stop))
        await until(is_told)
        caplog.clear()

        async def correct() -> None:
            await until_logged(caplog, f"the agent behind '{pod.socket}' does not serve this program yet: {why}")
            pod.write_secret("open sesame")

        nursery.start_soon(correct)
        async with open_principal(environ=environ) as principal:
            assert default_of(principal).names
        assert caplog.text.count("does not serve this program yet") == 1
        async with connect(f"unix:{pod.socket}", None) as client:
            assert await client.call("WhyNotReady", returns=list[str]) == []
        pod.stop.set()


async def until_logged(caplog: pytest.LogCaptureFixture, what: str) -> None:
    """Wait for a line of the log."""
    await eventually(lambda: what in caplog.text)


async def test_renewal_with_a_new_secret(pod: Pod) -> None:
    """The secret's file is read again; clients are told; the key stays."""
    pod.giver.life = timedelta(seconds=1.5)
    async with pod.giving(), trio.open_nursery() as nursery:
        path = await nursery.start(lambda task_status: run(pod.settings, stop=pod.stop, task_status=task_status))
        async with open_principal(environ={"V23_AGENT_PATH": str(path)}) as principal:
            key = principal.public_key
            pod.giver.good_secret = "a new one"
            pod.write_secret("a new one")
            await eventually(lambda: default_of(principal).names != ("root:agent:r1",))
            assert principal.public_key == key
            await eventually(lambda: pod.giver.presented[-1] == ("root:agent:r1",))
        assert pod.giver.secrets[-1] == "a new one"
        pod.stop.set()


async def test_without_renewal_the_socket_goes_when_the_identity_ends(pod: Pod) -> None:
    """Then nobody new comes in; when the cluster agent knows the secret again, the socket is back."""
    pod.giver.life = timedelta(seconds=1)
    async with pod.giving(), trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: run(pod.settings, stop=pod.stop, task_status=task_status))
        async with open_principal(environ={"V23_AGENT_PATH": str(pod.socket)}) as principal:
            pod.giver.good_secret = "another"
            await eventually(lambda: not pod.socket.exists())
            pod.giver.good_secret = "open sesame"
            pod.giver.life = timedelta(hours=1)
            await eventually(pod.socket.exists)
            await eventually(lambda: default_of(principal).expiry is not None)
            async with connect(f"unix:{pod.socket}", None) as client:
                assert await client.call("ValidNames", returns=list[str])
        pod.stop.set()


async def test_what_is_of_no_use_is_not_taken(pod: Pod) -> None:
    """Blessings of another key, of another root, or already expired are named and refused."""
    replica = Principal((await new_root()).signer, roots=pod.root.roots)
    stranger = await new_root("stranger")
    expired = Caveat.expiry(_now() - timedelta(hours=1))
    async with pod.giving():
        for given, reason in (
            (default_of(stranger), "bound to another key"),
            (await bless(stranger, replica, "x"), "root .* is not recognized"),
            (await bless(pod.root, replica, "x", expired), "expired at .*and the clocks"),
            (await bless(pod.root, replica, "x", Caveat.const(False)), "never valid"),
        ):
            pod.giver.instead = given
            with pytest.raises(NotTrustedError, match=reason):
                await seek_blessings(pod.name, pod.settings.secret_key_file, replica, _now)
        pod.giver.instead = await bless(pod.root, replica, "x", Caveat.method("Get"))
        assert await seek_blessings(pod.name, pod.settings.secret_key_file, replica, _now) == pod.giver.instead


async def test_the_secret_is_shown_to_the_right_cluster_agent_only(pod: Pod) -> None:
    """One that presents another name, or another root, is not asked."""
    impostor = Giver(await blessed(await new_root(), "agent"))
    async with serve(impostor, impostor.principal, listen=["127.0.0.1:0"]) as server, pod.giving():
        replica = Principal((await new_root()).signer, roots=pod.root.roots)
        for name in (f"/(root:agent)@{server.addresses[0]}", pod.name.replace("root:agent", "root:other")):
            with pytest.raises(NotTrustedError, match=r"root:(agent|other)"):
                await seek_blessings(name, pod.settings.secret_key_file, replica, _now)
    assert impostor.secrets == pod.giver.secrets == []


async def test_what_a_discharger_refuses_keeps_no_replica_from_its_blessings(pod: Pod) -> None:
    """The secret is what counts here: new blessings come also while those shown cannot be used."""
    async with serve({}, pod.root, listen=["127.0.0.1:0"]) as without_dischargers, pod.giving():
        places = [without_dischargers.addresses[0], "127.0.0.1:1"]
        for place in places:
            caveat = ThirdParty(
                nonce=bytes(16), discharger_key=pod.root.public_key, location=f"/{place}", caveats=()
            ).to_caveat()
            replica = Principal((await new_root()).signer)
            await replica.adopt(await bless(pod.root, replica, "x", caveat))
            with trio.fail_after(5):
                got = await seek_blessings(pod.name, pod.settings.secret_key_file, replica, _now)
            assert got.public_key == replica.public_key
            assert pod.giver.presented[-1] == ("root:x",)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"x" * 5000])
def test_files_that_hold_no_secret(tmp_path: Path, content: bytes) -> None:
    """The file is named, and nothing of it is in the sentence."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(StorageError, match=str(file)) as refused:
        read_secret(file)
    assert "xxx" not in str(refused.value)


async def test_a_socket_that_cannot_be_made(pod: Pod) -> None:
    """The agent ends at once, before it asks for anything: nobody could use what it gets."""
    pod.name = "/127.0.0.1:1"
    missing = replace(pod.settings, socket_path=pod.folder / "none" / "s")
    with pytest.raises(StorageError, match="none"):
        await run(missing)
    pod.socket.write_text("")
    with pytest.raises(StorageError, match="is no socket"):
        await run(pod.settings)
    pod.socket.unlink()
    async with serve(pod.giver, None, listen=[f"unix:{pod.socket}"]):
        with pytest.raises(ConfigurationError, match="another agent serves"):
            await run(pod.settings)
