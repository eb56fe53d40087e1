"""A pod agent against a cluster agent, over real sockets."""

import os
import socket
import stat
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio
from agent_parties import default_of, eventually
from http_get import get
from pods import Pod
from until import until

from vanadium_node.agent import open_principal
from vanadium_node.agent.users import UserRules, Users
from vanadium_node.errors import CallError, ConfigurationError, StorageError, UnreachableError
from vanadium_node.pod_agent import run
from vanadium_node.pod_agent.server import user_rules
from vanadium_node.pod_agent.socket import PodSocket
from vanadium_node.rpc import connect, serve
from vanadium_node.rpc.server import DRAIN_TIMEOUT
from vanadium_node.wire.frames import Request, encode_frame


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


async def test_its_settings_say_who_may_do_what(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting has its place, and users that it leaves out are refused."""
    allowed = replace(pod.settings, allow_uid=(1,), allow_gid=(2,))
    rules = user_rules(replace(allowed, sign_uid=(3,), sign_gid=(4,), bless_uid=(5,), bless_gid=(6,)))
    assert rules == UserRules(
        owner=os.geteuid(), use=Users.of([1], [2]), sign=Users.of([3], [4]), bless=Users.of([5], [6])
    )
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 4321)  # whoever runs the agent may do everything
    async with pod.giving(), trio.open_nursery() as nursery:
        settings = replace(pod.settings, allow_uid=(me,), sign_uid=(4321,), bless_gid=(4321,), max_frame_size=4096)
        path = await nursery.start(lambda task_status: run(settings, stop=pod.stop, task_status=task_status))
        async with connect(f"unix:{path}", None) as client:
            assert await client.call("ValidNames", returns=list[str])
            for name, arguments in (("Sign", ("vanadium-message", b"", b"")), ("BlessSelf", ("x", []))):
                with pytest.raises(CallError, match="sign-uid" if name == "Sign" else "bless-uid"):
                    await client.call(name, *arguments)
            with pytest.raises(UnreachableError):
                await client.call("Sign", "vanadium-message", bytes(5000), b"")
        pod.stop.set()


@pytest.mark.parametrize(("is_deaf", "drain_timeout"), [(False, timedelta(hours=1)), (True, timedelta(seconds=0.5))])
async def test_an_end_that_nobody_keeps(pod: Pod, is_deaf: bool, drain_timeout: timedelta) -> None:
    """Programs that follow the agent are told at once; one that asks without end and never reads has until the drain timeout."""
    health = f"unix:{pod.folder / 'health'}"
    async with pod.giving(), trio.open_nursery() as nursery:
        settings = replace(pod.settings, drain_timeout=drain_timeout, health_listen=health)
        path = await nursery.start(lambda task_status: run(settings, stop=pod.stop, task_status=task_status))
        async with open_principal(environ={"V23_AGENT_PATH": str(path)}):
            with socket.socket(socket.AF_UNIX) as deaf, trio.fail_after(DRAIN_TIMEOUT.total_seconds() / 2):
                if is_deaf:
                    flood(deaf, path)
                pod.stop.set()
                await eventually(lambda: not list(pod.folder.glob("*soc*")))
                if is_deaf:
                    assert await get(health, "/readyz") == (503, "it is stopping\n")
                while nursery.child_tasks:  # noqa: ASYNC110 - tasks give no event
                    await trio.sleep(0.01)


def flood(deaf: socket.socket, path: Path) -> None:
    """Call an agent until it takes no more, and read none of the answers."""
    deaf.setblocking(False)
    deaf.connect(str(path))
    with suppress(BlockingIOError):
        for stream in range(1, 1 << 20, 2):
            deaf.sendall(encode_frame(Request(stream, "State", "", [], None, False, None, [], "")))


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


async def test_another_agent_that_starts_at_the_same_time(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever shows its socket first has the path; the other one ends, and takes nothing from it."""
    clear = PodSocket.clear
    with socket.socket(socket.AF_UNIX) as first:

        def clear_too_early(pod_socket: PodSocket) -> None:
            clear(pod_socket)
            monkeypatch.setattr(PodSocket, "clear", clear)
            first.bind(str(pod.socket))
            first.listen()

        monkeypatch.setattr(PodSocket, "clear", clear_too_early)
        async with pod.giving():
            with trio.fail_after(20), pytest.raises(ConfigurationError, match="another agent serves"):
                await run(pod.settings)
        assert pod.giver.secrets == []
        assert [entry.name for entry in pod.folder.glob("*soc*")] == [pod.socket.name]


async def test_a_socket_that_somebody_removed(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent ends instead of serving nobody, so that it is started again and makes a new one."""
    monkeypatch.setattr("vanadium_node.pod_agent.server.LOOK_SECONDS", 0.05)
    with (
        trio.fail_after(20),
        pytest.RaisesGroup(pytest.RaisesExc(StorageError, match="was removed or replaced"), flatten_subgroups=True),
    ):
        async with pod.giving(), trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: run(pod.settings, task_status=task_status))
            pod.socket.unlink()
