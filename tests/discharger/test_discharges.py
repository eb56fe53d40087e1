"""Blessings that need a discharge, over real connections: fetched, kept, bound to the call, and refused when revoked."""

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from rpc_parties import Parties, blessed, connected, parties, principal, served, wear

from vanadium_node.discharger import DenyList, Discharger, Policy
from vanadium_node.errors import CallError, ErrorCode, NotTrustedError, StorageError, UnreachableError
from vanadium_node.rpc import connect, serve
from vanadium_node.security.authorization import everyone
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.discharge import Requirements, ThirdParty
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal

TTL = timedelta(seconds=60)
LATER = timedelta(seconds=61)


@dataclass
class Third:
    """A discharger that counts how often it is asked, and whose deny list a test writes."""

    principal: Principal
    address: str = ""
    denied: str = ""
    is_broken: bool = False
    asked: list[str] = field(default_factory=list)

    def policy(self) -> Policy:
        """Return the policy of the moment."""
        self.asked.append("")
        if self.is_broken:
            raise StorageError("cannot read '/deny': input/output error")
        return Policy(allowed=(Pattern.parse("..."),), denied=DenyList.parse(self.denied))

    def caveat(self, *conditions: Caveat, key: PublicKey | None = None, **wants: bool) -> Caveat:
        """Return a caveat that this discharger discharges."""
        return ThirdParty(
            nonce=secrets.token_bytes(16),
            discharger_key=key or self.principal.public_key,
            location=f"/{self.address}",
            caveats=conditions,
            requirements=Requirements(**wants),
        ).to_caveat()


@asynccontextmanager
async def third_party(family: Parties) -> AsyncIterator[Third]:
    """Serve a discharger of the family's."""
    third = Third(await blessed(family.root, "discharger"))
    service = Discharger(third.principal, third.policy, ttl=TTL, now=family.clock)
    async with serve(
        service,
        third.principal,
        listen=["127.0.0.1:0"],
        authorizer=everyone,
        now=family.clock,
        drain_timeout=timedelta(seconds=0.05),
    ) as server:
        third.address = server.addresses[0]
        yield third


@pytest.fixture
async def family() -> Parties:
    """A root, a server and a client."""
    return await parties()


@pytest.fixture
async def third(family: Parties) -> AsyncIterator[Third]:
    """A running discharger."""
    async with third_party(family) as running:
        yield running


async def need(family: Parties, who: Principal, extension: str, *caveats: Caveat) -> None:
    """Give a principal of the family blessings under caveats, in place of those it has."""
    own = family.root.store.default
    assert own is not None
    await wear(who, await family.root.bless(who.public_key, own, extension, caveats))


async def test_a_discharge_is_fetched_once_until_it_expires(family: Parties, third: Third) -> None:
    """For many calls and connections; then again, on the connection that is open, before anybody is refused."""
    await need(family, family.client, "server:client", third.caveat())
    async with connected(family) as client:
        assert await client.call("Echo", "a") == "a"
        assert await client.call("Quick", "b") == "b"
        async with client.stream("Count", 2) as numbers:
            assert [n async for n in numbers] == [0, 1]
        assert len(third.asked) == 1
        async with connected(family) as other:
            await other.call("Echo", "c")
        assert len(third.asked) == 1
        family.clock.move(LATER)
        assert await client.call("Echo", "d") == "d"
        assert len(third.asked) == 2
    assert family.service.calls[-1].peer.names == ("root:server:client",)


async def test_a_blessing_is_revoked_by_a_line_in_a_list(family: Parties, third: Third) -> None:
    """What was discharged before works until its discharge expires; then the error names discharger, caveat and reason."""
    caveat = third.caveat()
    fingerprint = ThirdParty.from_caveat(caveat).fingerprint
    await need(family, family.client, "server:client", caveat)
    async with connected(family) as client:
        await client.call("Echo", "a")
        third.denied = f"caveat {fingerprint}"
        await client.call("Echo", "b")
        family.clock.move(LATER)
        with pytest.raises(CallError) as caught:
            await client.call("Echo", "c")
        assert caught.value.code is ErrorCode.NO_ACCESS
        for part in ("root:server:client", third.address, fingerprint, f"the deny list says 'caveat {fingerprint}'"):
            assert part in caught.value.message
        third.denied = ""
        assert await client.call("Echo", "d") == "d"
    third.denied = "root:server:client"
    family.clock.move(LATER)
    with pytest.raises(CallError, match="the deny list says 'root:server:client'"):
        async with connected(family):
            pass


async def test_one_who_sends_no_discharge_is_refused(family: Parties, third: Third) -> None:
    """By the server, whatever the client does: an expired discharge is as good as none."""
    await need(family, family.client, "server:client", third.caveat())
    async with served(family) as server:
        name = f"/{server.addresses[0]}"
        async with connect(name, family.client, now=family.clock, with_discharges=False) as client:
            with pytest.raises(CallError, match="no discharge from"):
                await client.call("Echo", "a")
        stopped = family.clock.time
        async with connect(name, family.client, now=lambda: stopped) as client:
            await client.call("Echo", "b")
            family.clock.move(LATER)
            with pytest.raises(CallError, match=r"its discharge from .*: expired at"):
                await client.call("Echo", "c")


async def test_a_discharger_that_is_told_the_method_binds_its_discharge_to_it(family: Parties, third: Third) -> None:
    """One discharge for each method; the caveat's conditions are checked against what is told."""
    caveat = third.caveat(Caveat.method("Echo", "Count"), method=True, server=True)
    await need(family, family.client, "server:client", caveat)
    async with connected(family) as client:
        await client.call("Echo", "a")
        await client.call("Echo", "b")
        async with client.stream("Count", 1) as numbers:
            assert [n async for n in numbers] == [0]
        assert len(third.asked) == 2
        with pytest.raises(CallError, match=r"refused to discharge .*restricted to methods \[Echo Count\]"):
            await client.call("Quick", "c")


async def test_a_discharge_for_one_method_is_none_for_another(family: Parties, third: Third) -> None:
    """Whoever sends it with another call is refused by the server."""
    mint = third.principal.mint_discharge

    async def for_echo(caveat: Caveat, caveats: Any) -> Any:
        return await mint(caveat, [Caveat.method("Echo")])

    third.principal.mint_discharge = for_echo  # type: ignore[method-assign]
    await need(family, family.client, "server:client", third.caveat(method=True))
    async with connected(family) as client:
        await client.call("Echo", "a")
        with pytest.raises(CallError, match=r"its discharge from .*restricted to methods \[Echo\]"):
            await client.call("Quick", "b")


async def test_discharges_for_arguments_are_not_kept(family: Parties, third: Third) -> None:
    """The next call has others."""
    await need(family, family.client, "server:client", third.caveat(arguments=True))
    async with connected(family) as client:
        for _ in range(3):
            await client.call("Echo", "a")
    assert len(third.asked) == 3
    assert len(family.client.discharges) == 0


async def test_conditions_of_the_caveat(family: Parties, third: Third) -> None:
    """The discharger checks time and address itself; one whose condition nobody can know of never discharges."""
    for condition, says in (
        (Caveat.expiry(family.clock.time - LATER), "expired at"),
        (Caveat.peer_address("10.0.0.0/8"), "restricted to peers at"),
        (Caveat.peer_blessings("root:other"), "restricted to peers with blessings"),
        (Caveat.of(5000, 1), "caveat 5000 is unknown here"),
    ):
        await need(family, family.client, "server:client", third.caveat(condition))
        with pytest.raises(CallError, match=says):
            async with connected(family):
                pass
    await need(family, family.client, "server:client", third.caveat(Caveat.peer_address("127.0.0.0/8")))
    async with connected(family) as client:
        await client.call("Echo", "a")


async def test_a_discharger_that_is_away(family: Parties, third: Third) -> None:
    """The error names it; a principal with another name that needs no discharge goes by that one."""
    gone = ThirdParty(
        nonce=bytes(16), discharger_key=third.principal.public_key, location="/127.0.0.1:1", caveats=()
    ).to_caveat()
    await need(family, family.client, "server:client", gone)
    with pytest.raises(UnreachableError, match=r"no discharge of the caveat .* from /127\.0\.0\.1:1"):
        async with connected(family):
            pass
    own = family.root.store.default
    assert own is not None
    unconstrained = (Caveat.unconstrained(),)
    free = await family.root.bless(family.client.public_key, own, "server:free", unconstrained)
    needy = family.client.store.default
    assert needy is not None
    await wear(family.client, Blessings.union(needy, free))
    async with connected(family) as client:
        await client.call("Echo", "a")
    assert family.service.calls[-1].peer.names == ("root:server:free",)


async def test_somebody_else_at_the_dischargers_address_is_told_nothing(family: Parties, third: Third) -> None:
    """The caveat names a key, and who does not have it is left before this end shows itself."""
    stranger = await principal("stranger")
    await need(family, family.client, "server:client", third.caveat(key=stranger.public_key, method=True))
    async with connected(family) as client:
        with pytest.raises(UnreachableError, match=r"has the key .* is wanted"):
            await client.call("Echo", "a")
    assert third.asked == []


async def test_a_discharge_may_need_a_discharge(family: Parties, third: Third) -> None:
    """It is fetched too; without an end it is given up."""
    async with third_party(family) as second:
        mint = third.principal.mint_discharge

        async def with_another(caveat: Caveat, caveats: Any) -> Any:
            return await mint(caveat, [*caveats, second.caveat()])

        third.principal.mint_discharge = with_another  # type: ignore[method-assign]
        await need(family, family.client, "server:client", third.caveat())
        async with connected(family) as client:
            await client.call("Echo", "a")
        assert len(second.asked) == 1

        async def without_end(caveat: Caveat, caveats: Any) -> Any:
            return await mint(caveat, [*caveats, third.caveat()])

        third.principal.mint_discharge = without_end  # type: ignore[method-assign]
        await need(family, family.client, "server:client", third.caveat())
        with pytest.raises(UnreachableError, match="hang on one another more than 4 deep"):
            async with connected(family):
                pass


async def test_a_servers_own_blessings_may_need_one(family: Parties, third: Third) -> None:
    """It shows itself with the discharge; when that is refused, clients leave, and the log says why."""
    await need(family, family.server, "server", third.caveat())
    async with connected(family) as client:
        assert client.server.names == ("root:server",)
        await client.call("Echo", "a")


async def test_a_server_that_is_revoked(family: Parties, third: Third, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody trusts it."""
    third.denied = "root:server"
    await need(family, family.server, "server", third.caveat())
    with (
        caplog.at_level(logging.WARNING, "vanadium_node.rpc"),
        pytest.raises(NotTrustedError, match="no discharge from"),
    ):
        async with connected(family):
            pass
    assert "shows blessings without the discharges that they need" in caplog.text


async def test_nobody_gets_a_discharge_while_the_list_cannot_be_read(
    family: Parties, third: Third, caplog: pytest.LogCaptureFixture
) -> None:
    """The asker is told in short, the log in full."""
    third.is_broken = True
    await need(family, family.client, "server:client", third.caveat())
    with (
        caplog.at_level(logging.ERROR, "vanadium_node.discharger"),
        pytest.raises(CallError, match="this discharger's deny list cannot be read"),
    ):
        async with connected(family):
            pass
    assert "cannot read '/deny'" in caplog.text


async def test_blessings_that_are_renewed_are_shown_on_open_connections(family: Parties, third: Third) -> None:
    """The next call is made with what the principal has now, without a new connection."""
    async with connected(family) as client:
        await client.call("Echo", "a")
        await need(family, family.client, "server:renamed", third.caveat())
        await client.call("Echo", "b")
    assert [call.peer.names for call in family.service.calls] == [("root:server:client",), ("root:server:renamed",)]
