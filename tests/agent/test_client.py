"""Programs that act through an agent: they never see the key, and outlive the agent."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from agent_parties import bless, blessed, default_of, eventually, new_root

from vanadium_node import cbor
from vanadium_node.agent.client import AgentSigner
from vanadium_node.errors import CallError, UnreachableError
from vanadium_node.rpc import Call, Service, Tag, connect, method, serve
from vanadium_node.security.authorization import everyone
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import SignatureType, verify_signed
from vanadium_node.security.discharge import ThirdParty
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal


class Greeter(Service):
    """Tells callers who they are."""

    @method(tag=Tag.READ)
    def greet(self, call: Call) -> list[str]:
        """Returns the caller's names."""
        return list(call.peer.names)


async def test_acting_as_the_replica(agents: Any, replica: Principal, root: Principal) -> None:
    """A client and a server whose keys are at an agent prove who they are over TLS."""
    async with (
        agents.serving(replica),
        agents.acting() as acting,
        serve(Greeter(), acting, listen=["127.0.0.1:0"]) as server,
        connect(f"/(root:replica)@{server.addresses[0]}", root) as as_root,
        serve(Greeter(), root, listen=["127.0.0.1:0"]) as other,
        connect(f"/(root)@{other.addresses[0]}", acting) as as_replica,
    ):
        assert isinstance(acting.signer, AgentSigner)
        assert acting.public_key == replica.public_key
        assert await as_root.call("Greet", returns=list[str]) == ["root"]
        assert await as_replica.call("Greet", returns=list[str]) == ["root:replica"]
        given = await acting.bless(root.public_key, default_of(acting), "friend", [Caveat.unconstrained()])
        assert given.names == ("root:replica:friend",)


async def test_a_client_waits_for_the_socket(agents: Any, replica: Principal) -> None:
    """Whoever starts first waits for the other."""
    names = []

    async def act() -> None:
        async with agents.acting() as acting:
            names.append(default_of(acting).names)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act)
            await trio.sleep(0.2)
            assert names == []
            async with agents.serving(replica):
                await eventually(lambda: names)
    assert names == [("root:replica",)]


async def test_clients_are_told_of_changes(agents: Any, replica: Principal, root: Principal) -> None:
    """A renewed blessing reaches all clients of the agent without their asking."""
    async with agents.serving(replica) as service, agents.acting() as one, agents.acting() as two:
        renewed = await bless(root, replica, "renewed")
        await replica.adopt(renewed)
        service.notify()
        await eventually(lambda: default_of(one) == renewed and default_of(two) == renewed)


async def test_a_client_changes_its_owners_agent(agents: Any, replica: Principal, root: Principal) -> None:
    """What one client changes, it sees at once, and the others soon."""
    other = await new_root("other")
    more = await bless(root, replica, "more")
    async with agents.serving(replica, immutable=False), agents.acting() as one, agents.acting() as two:
        await one.set_default(more)
        assert default_of(one) == more
        await one.add_roots_of(default_of(other))
        assert await one.set_for_peer(more, Pattern.parse("other")) is None
        assert await one.set_for_peer(None, Pattern.parse("other")) == more
        await eventually(lambda: default_of(two) == more and two.roots.recognizes(other.public_key, "other"))
    assert default_of(replica) == more


async def test_blessings_are_adopted_whole_or_not_at_all(agents: Any, replica: Principal, root: Principal) -> None:
    """What can be refused is refused before anything has changed: no root is recognized for blessings that are not shown."""
    other = await new_root("other")
    foreign, own = default_of(other), await bless(other, replica, "more")
    before = replica.store, replica.roots
    async with agents.serving(replica, immutable=False) as service, agents.acting() as acting:
        seen: list[tuple[object, object]] = []
        service.notify = lambda: seen.append((replica.store.default, replica.roots))
        with pytest.raises(CallError, match="bound to the key"):
            await acting.adopt(foreign)
        assert (replica.store, replica.roots) == before
        await acting.adopt(own, peers=Pattern.parse("other"))
        assert default_of(acting) == own
        assert acting.store.peers[Pattern.parse("other")] == own
        assert acting.roots.recognizes(other.public_key, "other:more")
        assert seen == [(own, replica.roots)], "clients are told of one change"


async def test_a_pod_agents_clients_cannot_change_it(agents: Any, replica: Principal) -> None:
    """The refusal comes from the agent."""
    async with agents.serving(replica), agents.acting() as acting:
        with pytest.raises(CallError, match="cannot be changed by its clients"):
            await acting.set_default(None)
        with pytest.raises(CallError, match="cannot be changed by its clients"):
            await acting.add_root((await new_root()).public_key, Pattern.parse("x"))


async def test_an_agent_is_restarted_under_its_client(agents: Any, replica: Principal, root: Principal) -> None:
    """The client gets the new key and blessings, and its servers show them to whoever connects next."""
    successor = await blessed(root, "successor")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            first = await nursery.start(hold, agents, replica)
            async with agents.acting() as acting, serve(Greeter(), acting, listen=["127.0.0.1:0"]) as server:
                first.cancel()
                await eventually(lambda: not agents.path.exists())
                second = await nursery.start(hold, agents, successor)
                await eventually(lambda: acting.public_key == successor.public_key)
                async with connect(f"/(root:successor)@{server.addresses[0]}", root) as client:
                    assert await client.call("Greet", returns=list[str]) == ["root"]
                second.cancel()


async def sign(acting: Principal, key: PublicKey) -> None:
    """Have something signed; the signature must be of that key."""
    signature = await acting.sign(SignatureType.MESSAGE, b"patience")
    assert verify_signed(SignatureType.MESSAGE, signature, key, max_bytes=1024) == b"patience"


async def test_a_call_waits_for_the_next_agent(agents: Any, replica: Principal) -> None:
    """Signing while the agent is away succeeds when it is back with the same key."""
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            first = await nursery.start(hold, agents, replica)
            async with agents.acting() as acting, trio.open_nursery() as callers:
                first.cancel()
                await eventually(lambda: not agents.path.exists())
                callers.start_soon(sign, acting, replica.public_key)
                await trio.sleep(0.2)
                second = await nursery.start(hold, agents, replica)
            second.cancel()


class StuckSigner:
    """Says that it was asked, and never answers."""

    def __init__(self, public_key: PublicKey) -> None:
        self.public_key = public_key
        self.was_asked = trio.Event()

    async def sign(self, kind: SignatureType, payload: bytes, external_aad: bytes = b"") -> bytes:
        """Never returns."""
        self.was_asked.set()
        await trio.sleep_forever()


async def test_an_agent_is_restarted_in_the_middle_of_a_call(agents: Any, replica: Principal) -> None:
    """The call is made again at the next agent, and its caller notices nothing."""
    stuck = StuckSigner(replica.public_key)
    dying = Principal(stuck, replica.store, replica.roots)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            first = await nursery.start(hold, agents, dying)
            async with agents.acting() as acting, trio.open_nursery() as callers:
                callers.start_soon(sign, acting, replica.public_key)
                await stuck.was_asked.wait()
                first.cancel()
                await eventually(lambda: not agents.path.exists())
                second = await nursery.start(hold, agents, replica)
            second.cancel()


async def test_a_signature_of_another_key_is_never_taken(agents: Any, replica: Principal, root: Principal) -> None:
    """A signer of before the restart says so, instead of giving what would fail far away."""
    successor = await blessed(root, "successor")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            first = await nursery.start(hold, agents, replica)
            async with agents.acting() as acting:
                signer = acting.signer
                first.cancel()
                await eventually(lambda: not agents.path.exists())
                second = await nursery.start(hold, agents, successor)
                with pytest.raises(UnreachableError, match="restarted and has another key now; try again"):
                    await signer.sign(SignatureType.MESSAGE, b"")
            second.cancel()


async def hold(
    agents: Any, principal: Principal, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve an agent until the scope that is reported is cancelled."""
    with trio.CancelScope() as scope:
        async with agents.serving(principal):
            task_status.started(scope)
            await trio.sleep_forever()


async def test_clients_share_the_discharges_that_one_fetched(agents: Any, replica: Principal, root: Principal) -> None:
    """Each program keeps what it fetched, and the agent keeps it for the next."""
    asked: list[str] = []

    class Agreeing(Service):
        """Discharges everything."""

        @method(tag=Tag.RESOLVE)
        async def discharge(self, call: Call, caveat: bytes, server: list[str], name: str, arguments: bytes) -> bytes:
            """Returns a discharge."""
            asked.append(name)
            wanted = Caveat.decode(cbor.decode(caveat, max_bytes=10_000))
            return (await root.mint_discharge(wanted, [Caveat.expiry(datetime.now(UTC) + timedelta(hours=1))])).encoded

    async with (
        serve(Agreeing(), root, listen=["127.0.0.1:0"], authorizer=everyone) as discharger,
        serve(Greeter(), root, listen=["127.0.0.1:0"]) as other,
        agents.serving(replica),
    ):
        caveat = ThirdParty(
            nonce=bytes(16), discharger_key=root.public_key, location=f"/{discharger.addresses[0]}", caveats=()
        ).to_caveat()
        await replica.adopt(await bless(root, replica, "replica", caveat))
        for _ in range(2):
            async with agents.acting() as acting, connect(f"/(root)@{other.addresses[0]}", acting) as client:
                assert await client.call("Greet", returns=list[str]) == ["root:replica"]
    assert asked == [""]
