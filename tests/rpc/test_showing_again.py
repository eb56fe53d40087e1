"""A client that shows itself again on an open connection: once for many calls, the newest, in time, and not without need."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio
from rpc_parties import Parties, blessed, served, wear

from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.rpc import connect
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import LocalSigner, SignatureType, Signer
from vanadium_node.security.keys import PrivateKey, PublicKey
from vanadium_node.security.principal import Principal


class Slow(Signer):
    """An agent that signs when a test lets it."""

    def __init__(self, key: PrivateKey) -> None:
        self._inner = LocalSigner(key)
        self.is_slow = False
        self.is_asked = trio.Event()
        self.may_sign = trio.Event()
        self.signed = 0

    @property
    def public_key(self) -> PublicKey:
        """The key of the one behind it."""
        return self._inner.public_key

    async def sign(self, kind: SignatureType, payload: bytes, external_aad: bytes = b"") -> bytes:
        """Sign, a little later."""
        self.signed += 1
        if self.is_slow:
            self.is_asked.set()
            await self.may_sign.wait()
        return await self._inner.sign(kind, payload, external_aad)


@dataclass
class Agent:
    """A client whose signer is slow, and the blessings it may be given."""

    family: Parties
    signer: Slow
    principal: Principal

    async def renew(self, extension: str) -> Blessings:
        """Give it new blessings."""
        own = self.family.root.store.default
        assert own is not None
        given = await self.family.root.bless(self.signer.public_key, own, extension, [Caveat.unconstrained()])
        await wear(self.principal, given)
        return given


@pytest.fixture
async def agent(family: Parties) -> Agent:
    """Somebody that the family's server admits."""
    signer = Slow(PrivateKey.generate())
    client = Agent(family, signer, Principal(signer, roots=family.client.roots))
    await client.renew("server:first")
    return client


async def test_calls_at_once_show_new_blessings_once(family: Parties, agent: Agent) -> None:
    """However many wait for it, and none of them is made under the old name."""
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", agent.principal, now=family.clock) as client,
    ):
        await client.call("Echo", "x")
        await agent.renew("server:second")
        agent.signer.signed, agent.signer.is_slow = 0, True
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.call, "Echo", "x")
            await agent.signer.is_asked.wait()
            agent.signer.may_sign.set()
        assert agent.signer.signed == 1
    names = [call.peer.names for call in family.service.calls]
    assert names == [("root:server:first",), *[("root:server:second",)] * 5]


async def test_blessings_that_are_renewed_while_others_are_shown(family: Parties, agent: Agent) -> None:
    """The newest are shown before the next call, though the store has not changed since the last look."""
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", agent.principal, now=family.clock) as client,
    ):
        await agent.renew("server:second")
        agent.signer.is_slow = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "Echo", "x")
            await agent.signer.is_asked.wait()
            await agent.renew("server:third")
            agent.signer.is_slow = False
            agent.signer.may_sign.set()
        assert await client.call("Echo", "x") == "x"
    assert family.service.calls[-1].peer.names == ("root:server:third",)


async def test_an_agent_that_does_not_sign_again(family: Parties, agent: Agent) -> None:
    """The call was not made, and fails in its time; others wait their own, and go on when the agent does."""
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", agent.principal, now=family.clock) as client,
    ):
        await agent.renew("server:second")
        agent.signer.is_slow = True
        for _ in range(2):
            with pytest.raises(CallError, match=r"Echo was not called: this end could not show itself") as caught:
                await client.call("Echo", "x", timeout=0.05)
            assert caught.value.code is ErrorCode.TIMEOUT
        assert family.service.calls == []
        agent.signer.may_sign.set()
        assert await client.call("Echo", "x") == "x"
    assert [call.peer.names for call in family.service.calls] == [("root:server:second",)]


async def test_a_caller_that_is_cancelled_while_this_end_shows_itself(family: Parties, agent: Agent) -> None:
    """The next one shows it, and streams do as calls do."""
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", agent.principal, now=family.clock) as client,
    ):
        await agent.renew("server:second")
        agent.signer.is_slow = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "Echo", "x")
            await agent.signer.is_asked.wait()
            nursery.cancel_scope.cancel()
        agent.signer.may_sign.set()
        async with client.stream("Count", 2, returns=int) as items:
            assert [item async for item in items] == [0, 1]
        assert await client.call("Echo", "x") == "x"
    assert family.service.calls[-1].peer.names == ("root:server:second",)


async def test_blessings_that_stay_the_same_are_not_shown_again(family: Parties, agent: Agent) -> None:
    """A store that changed for other peers, or back, costs no signature."""
    async with (
        served(family) as server,
        connect(f"/{server.addresses[0]}", agent.principal, now=family.clock) as client,
    ):
        other = (await blessed(family.root, "else")).store.default
        assert other is not None
        agent.signer.signed = 0
        await wear(agent.principal, await agent.renew("server:second"))
        await client.call("Echo", "x")
        assert agent.signer.signed == 1
        before = agent.principal.store
        await agent.renew("server:third")
        agent.principal.store = before
        await client.call("Echo", "x")
        assert agent.signer.signed == 1
