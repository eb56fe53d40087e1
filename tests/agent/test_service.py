"""The methods of the agent protocol, called as any program in any language would."""

from datetime import timedelta
from typing import Any

import pytest
from agent_parties import START, bless, default_of, new_root

from vanadium_node import cbor
from vanadium_node.agent.service import AgentService
from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.rpc import serve
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import SignatureType, verify_signed
from vanadium_node.security.discharge import Discharge, ThirdParty
from vanadium_node.security.principal import Principal

UNCONSTRAINED = [cbor.encode(Caveat.unconstrained().to_value())]


async def test_signing(agents: Any, replica: Principal) -> None:
    """The signature is the principal's, of the type asked for, over what was given."""
    async with agents.serving(replica), agents.asking() as agent:
        key = await agent.call("PublicKey", returns=bytes)
        signed = await agent.call("Sign", "vanadium-message", b"hello", b"more", returns=bytes)
        assert key == replica.public_key.der
        assert verify_signed(SignatureType.MESSAGE, signed, replica.public_key, b"more", max_bytes=1024) == b"hello"
        with pytest.raises(CallError, match="no such type of signature"):
            await agent.call("Sign", "any", b"hello", b"", returns=bytes)
        with pytest.raises(CallError, match="another key") as refused:
            await agent.call("Sign", "vanadium-message", b"", b"", (await new_root()).public_key.der, returns=bytes)
        assert refused.value.code is ErrorCode.NOT_FOUND


async def test_blessing(agents: Any, replica: Principal) -> None:
    """The principal's blessings can be extended through the agent; a caveat is asked for, and foreign ones are refused."""
    friend = await new_root("friend")
    own, key = default_of(replica), friend.public_key.der
    async with agents.serving(replica), agents.asking() as agent:
        given = await agent.call("Bless", key, own, "friend", UNCONSTRAINED, returns=Blessings)
        assert given.names == ("root:replica:friend",)
        assert given.public_key == friend.public_key
        self_given = await agent.call("BlessSelf", "me", [], returns=Blessings)
        assert self_given.names == ("me",)
        for arguments in (
            (key, own, "friend", []),
            (key, own, "", UNCONSTRAINED),
            (b"no key", own, "friend", UNCONSTRAINED),
            (key, default_of(friend), "friend", UNCONSTRAINED),
            (key, own, "friend", [b"\xff"]),
            (key, own, "friend", [b"x" * 70_000]),
        ):
            with pytest.raises(CallError) as refused:
                await agent.call("Bless", *arguments, returns=Blessings)
            assert refused.value.code is ErrorCode.BAD_ARG


async def test_what_the_store_and_roots_hold(agents: Any, replica: Principal, root: Principal) -> None:
    """Everything that `principal dump` shows can be asked for."""
    async with agents.serving(replica), agents.asking() as agent:
        own = default_of(replica)
        assert await agent.call("BlessingStoreDefault", returns=Blessings | None) == own
        assert await agent.call("BlessingStoreForPeer", ["root:anybody"], returns=Blessings | None) == own
        assert await agent.call("BlessingStorePeerBlessings", returns=dict[str, Blessings]) == {"...": own}
        assert await agent.call("BlessingStoreDebugString", returns=str) == replica.store.table()
        key = root.public_key.der
        assert await agent.call("BlessingRootsRecognized", key, "root:x", returns=bool)
        assert not await agent.call("BlessingRootsRecognized", key, "other", returns=bool)
        assert await agent.call("BlessingRootsDump", returns=dict[str, list[bytes]]) == {"root": [key]}
        assert await agent.call("BlessingRootsDebugString", returns=str) == replica.roots.table()


async def test_a_pod_agents_store_and_roots_cannot_be_changed(agents: Any, replica: Principal) -> None:
    """An application cannot make its replica somebody else; the refusal says what to do instead."""
    own, store, roots = default_of(replica), replica.store, replica.roots
    other = (await new_root("other")).public_key.der
    async with agents.serving(replica), agents.asking() as agent:
        for method, *arguments in (
            ("BlessingStoreSetDefault", None),
            ("BlessingStoreSet", own, "root"),
            ("BlessingRootsAdd", other, "other"),
            ("BlessingRootsAddOf", own),
            ("Adopt", own, "root", False),
        ):
            with pytest.raises(CallError, match=r"cannot be changed by its clients.*principal fork") as refused:
                await agent.call(method, *arguments)
            assert refused.value.code is ErrorCode.NO_ACCESS
    assert (replica.store, replica.roots) == (store, roots)


async def test_an_owners_agent_can_be_changed(agents: Any, replica: Principal, root: Principal) -> None:
    """An agent for a credentials directory takes changes, and refuses blessings of another key."""
    other = await new_root("other")
    more = await bless(root, replica, "more")
    async with agents.serving(replica, immutable=False), agents.asking() as agent:
        await agent.call("BlessingStoreSetDefault", more, returns=type(None))
        assert await agent.call("BlessingStoreSet", more, "root:shop", returns=Blessings | None) is None
        assert await agent.call("BlessingStoreSet", None, "root:shop", returns=Blessings | None) == more
        await agent.call("BlessingRootsAdd", other.public_key.der, "other", returns=type(None))
        for method, *arguments in (
            ("BlessingStoreSetDefault", default_of(other)),
            ("BlessingStoreSet", more, "a::b"),
            ("BlessingRootsAdd", other.public_key.der, "..."),
        ):
            with pytest.raises(CallError) as refused:
                await agent.call(method, *arguments)
            assert refused.value.code is ErrorCode.BAD_ARG
    assert default_of(replica) == more
    assert replica.roots.recognizes(other.public_key, "other:x")


def discharged_by(principal: Principal, nonce: bytes) -> Caveat:
    """Return a caveat that the principal can discharge."""
    return ThirdParty(
        nonce=nonce, discharger_key=principal.public_key, location="/discharger:1", caveats=(Caveat.unconstrained(),)
    ).to_caveat()


async def test_discharges_are_minted_and_kept(agents: Any, replica: Principal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A discharge that one client fetched serves the others, until somebody drops them all, or there are too many."""
    monkeypatch.setattr("vanadium_node.agent.service.MAX_CACHED_DISCHARGES", 1)
    caveat, other = discharged_by(replica, b"n" * 16), discharged_by(replica, b"o" * 16)
    encoded, different = (cbor.encode(each.to_value()) for each in (caveat, other))
    async with agents.serving(replica), agents.asking() as agent:
        minted = await agent.call("MintDischarge", encoded, UNCONSTRAINED, returns=bytes)
        assert Discharge.decode(minted).is_for(ThirdParty.from_caveat(caveat))
        assert await agent.call("BlessingStoreDischarge", encoded, returns=bytes | None) is None
        await agent.call("BlessingStoreCacheDischarge", encoded, minted, returns=type(None))
        assert await agent.call("BlessingStoreDischarge", encoded, returns=bytes | None) == minted
        with pytest.raises(CallError, match="not one of this caveat"):
            await agent.call("BlessingStoreCacheDischarge", different, minted, returns=type(None))
        newer = await agent.call("MintDischarge", different, UNCONSTRAINED, returns=bytes)
        await agent.call("BlessingStoreCacheDischarge", different, newer, returns=type(None))
        assert await agent.call("BlessingStoreDischarge", encoded, returns=bytes | None) is None
        assert await agent.call("BlessingStoreDischarge", different, returns=bytes | None) == newer
        await agent.call("BlessingStoreClearDischarges", returns=type(None))
        assert await agent.call("BlessingStoreDischarge", different, returns=bytes | None) is None


async def test_being_told_of_changes(agents: Any, replica: Principal) -> None:
    """Once at the begin, once for what changed meanwhile, and no more when the agent ends, which whoever comes then is told, too."""
    async with agents.serving(replica) as service, agents.asking() as agent:
        async with agent.stream("NotifyWhenChanged", returns=int) as changes:
            assert await anext(changes) == 0
            service.notify()
            service.notify()
            assert await anext(changes) == 2
            service.end()
            assert [each async for each in changes] == []
        async with agent.stream("NotifyWhenChanged", returns=int) as changes:
            assert [each async for each in changes] == []


async def test_valid_names(agents: Any, replica: Principal, root: Principal) -> None:
    """Probes see a name while it is rooted and valid, whatever calls it is meant for, and none after its end."""
    now = [START]
    await replica.adopt(
        await bless(root, replica, "r", Caveat.expiry(START + timedelta(seconds=10)), Caveat.method("Get"))
    )
    service = AgentService(replica, immutable=True, now=lambda: now[0])
    async with serve(service, None, listen=[f"unix:{agents.path}"]), agents.asking() as agent:
        assert await agent.call("ValidNames", returns=list[str]) == ["root:r"]
        now[0] += timedelta(seconds=11)
        assert await agent.call("ValidNames", returns=list[str]) == []
