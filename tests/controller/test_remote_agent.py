"""The cluster agent over RPC, with the real one at the other end of a real connection."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from vanadium_node.cluster_agent.server import Serving, run
from vanadium_node.config import ClusterAgentSettings
from vanadium_node.controller.identity import own_blessings, root_blessings
from vanadium_node.controller.remote_agent import RemoteClusterAgent
from vanadium_node.controller.settings import Settings
from vanadium_node.controller.site import Site
from vanadium_node.errors import CallError, InputError, NotTrustedError, UnreachableError
from vanadium_node.kube.client import open_client
from vanadium_node.kube.kubeconfig import ClusterAccess
from vanadium_node.rpc import connect
from vanadium_node.secret_store import fresh_secret
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal

Caller = Callable[..., RemoteClusterAgent]


async def principal(name: str) -> Principal:
    return await Principal.create(PrivateKey.generate(), name)


@pytest.fixture
async def root() -> Principal:
    """Whom the settings name as the claimer."""
    return await principal("test-root")


@pytest.fixture
async def address(root: Principal, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a new cluster agent that expects its claim."""
    settings = ClusterAgentSettings(
        root_dir=tmp_path / "data",
        listen="127.0.0.1:0",
        root_blessings=(Blessings.parse(root_blessings(own_blessings(root))),),
        claimer=(Pattern.parse("test-root:$"),),
        admin=(Pattern.parse("test-root"),),
    )
    async with trio.open_nursery() as nursery:
        serving: Serving = await nursery.start(run, settings)
        yield serving.addresses[0]
        nursery.cancel_scope.cancel()


@pytest.fixture
async def calling(settings: Settings, address: str) -> AsyncIterator[Caller]:
    """Makes the way to the agent for a principal; no Kubernetes is asked."""
    async with open_client(ClusterAccess(server="http://127.0.0.1:9")) as client:
        site = Site(client=client, settings=settings, report=lambda _: None, warn=lambda _: None)

        def make(caller: Principal, **changes: Any) -> RemoteClusterAgent:
            @asynccontextmanager
            async def opened() -> AsyncIterator[Principal]:
                yield caller

            return RemoteClusterAgent(site=site, open_principal=opened, **{"address": address, **changes})

        yield make


@asynccontextmanager
async def lossy_proxy(address: str, is_claimed: Callable[[], bool]) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """Pass connections on; the first one breaks when the server says something after it was claimed: its answer.

    Gives the proxy's address, and what tells how many connections there were.
    """
    host, port = address.rsplit(":", 1)
    connections = 0

    async def handle(client: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        number = connections
        async with client, await trio.open_tcp_stream(host, int(port)) as server, trio.open_nursery() as nursery:

            async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                with suppress(trio.BrokenResourceError):
                    async for data in source:
                        if source is server and number == 1 and is_claimed():
                            break
                        await sink.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(pump, client, server)
            nursery.start_soon(pump, server, client)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), handle, 0)
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}", lambda: connections
        nursery.cancel_scope.cancel()


async def seek(address: str, secret: str) -> Blessings:
    """Do what a pod agent does."""
    pod = await principal("pod")
    async with connect(f"/{address}", pod, insecure=True) as client:
        blessings: Blessings = await client.call("SeekBlessings", secret, returns=Blessings)
        return blessings


async def test_claim_then_secrets(root: Principal, calling: Caller, address: str) -> None:
    """The agent becomes who the settings say; a secret gives extensions of the caller's blessings until it is forgotten."""
    agent = calling(root)
    assert await agent.claim() == "test-root:cluster-agent"
    await agent.check()
    secret = fresh_secret()
    await agent.new_secret("fortuned", secret)
    [name] = (await seek(address, secret)).names
    assert name.startswith("test-root:fortuned:127.0.0.1:")
    await agent.forget_secret(secret)
    await agent.forget_secret(secret)
    with pytest.raises(CallError):
        await seek(address, secret)


async def test_a_second_claim_is_refused(root: Principal, calling: Caller) -> None:
    """By the same caller, and by one that does not even know the agent's root."""
    await calling(root).claim()
    with pytest.raises(InputError, match="already claimed"):
        await calling(root).claim()
    with pytest.raises(CallError, match="the claimer must have a recognized name"):
        await calling(await principal("test-root")).claim()


async def test_only_an_agent_with_the_key_of_the_log_is_claimed(root: Principal, calling: Caller, address: str) -> None:
    """With a fingerprint, whoever else answers at the address gets no blessings."""
    async with connect(f"/{address}", root, insecure=True) as client:
        assert client.server.public_key is not None
        fingerprint = client.server.public_key.fingerprint
    with pytest.raises(NotTrustedError, match=f"has the key {fingerprint}, not the one expected.*log"):
        await calling(root).claim(fingerprint="00" + fingerprint[2:])
    await calling(root).claim(fingerprint=fingerprint.replace(":", "").upper())


async def test_a_claim_whose_answer_is_lost_is_made_again(
    root: Principal, calling: Caller, address: str, tmp_path: Path
) -> None:
    """The agent has it, the claimer does not know: the same command goes on and says that it is claimed."""
    [state] = (tmp_path / "data" / "principal").glob("state-*")
    before = state.read_bytes()
    async with lossy_proxy(address, lambda: state.read_bytes() != before) as (proxy, connections):
        assert await calling(root, address=proxy).claim() == "test-root:cluster-agent"
    assert connections() == 2, "the first answer did not get through"


async def test_only_the_claimer_may_claim(root: Principal, calling: Caller) -> None:
    """Somebody with the right name under a wrong key, and somebody who merely has a name under the claimer's."""
    with pytest.raises(CallError):
        await calling(await principal("test-root")).claim()
    other = await principal("bob")
    with pytest.raises(InputError, match="extends 'test-root', and this principal is 'bob'"):
        await calling(other).claim()
    await calling(root).claim()


async def test_an_unclaimed_agent_is_not_trusted_with_anything(root: Principal, calling: Caller) -> None:
    """The hint names the claim."""
    with pytest.raises(NotTrustedError, match="claim it with 'claim-cluster-agent'"):
        await calling(root).new_secret("fortuned", fresh_secret())


async def test_an_impostor_sees_nothing(root: Principal, calling: Caller) -> None:
    """A server of another root at the right address gets no blessings and no secret."""
    await calling(root).claim()
    with pytest.raises(NotTrustedError):
        await calling(await principal("test-root")).new_secret("fortuned", fresh_secret())


async def test_base_blessings_are_extended_instead_of_the_default(
    root: Principal, calling: Caller, address: str
) -> None:
    """Blessings of the caller that are not its default, given in text form."""
    await calling(root).claim()
    prod = await root.bless(root.public_key, own_blessings(root), "prod", [Caveat.unconstrained()])
    secret = fresh_secret()
    await calling(root, base_blessings=prod.text).new_secret("cart", secret)
    assert (await seek(address, secret)).names[0].startswith("test-root:prod:cart:")


async def test_nobody_there(root: Principal, calling: Caller) -> None:
    """Not a group of errors but one sentence."""
    with pytest.raises(UnreachableError):
        await calling(root, address="127.0.0.1:9").check()
