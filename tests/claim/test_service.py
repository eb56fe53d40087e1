"""Claiming over a real connection: by whom, with what, and only once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from agent_parties import bless, blessed, default_of, new_root

from vanadium_node.claim import Claimable, Ownership, open_ownership
from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.rpc import Client, connect, serve
from vanadium_node.security.access import Permissions
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """A server that waits for its claim by `root:$`."""

    root: Principal
    ownership: Ownership
    address: str

    @asynccontextmanager
    async def caller(self, principal: Principal) -> AsyncIterator[Client]:
        """Connect as a principal."""
        async with connect(f"/{self.address}", principal, insecure=True) as client:
            yield client

    async def claim(self, principal: Principal, granted: Blessings | None, token: str = "") -> None:
        """Claim it as a principal."""
        async with self.caller(principal) as client:
            await client.call("Claim", token, returns=type(None), granted=granted)


@asynccontextmanager
async def serving(directory: Path, token: str | None = None) -> AsyncIterator[Unclaimed]:
    """Serve an unclaimed server."""
    root = await new_root()
    ownership = await open_ownership(directory, [default_of(root)])
    service = Claimable(
        ownership, claimer=[Pattern.parse("root:$")], token=token, permissions=Permissions.of(Admin=["root"])
    )
    async with serve(service, ownership.principal, listen=["127.0.0.1:0"]) as server:
        yield Unclaimed(root, ownership, server.addresses[0])


@pytest.fixture
async def unclaimed(tmp_path: Path) -> AsyncIterator[Unclaimed]:
    """A server that waits for its claim."""
    async with serving(tmp_path / "d") as served:
        yield served


async def test_the_claimer_claims(unclaimed: Unclaimed) -> None:
    """What is granted becomes what the server shows."""
    granted = await bless(unclaimed.root, unclaimed.ownership.principal, "agent")
    await unclaimed.claim(unclaimed.root, granted)
    assert unclaimed.ownership.is_claimed
    async with connect(f"/(root:agent)@{unclaimed.address}", unclaimed.root) as client:
        assert client.server.names == ("root:agent",)


async def test_strangers_are_not_trusted(unclaimed: Unclaimed) -> None:
    """Neither a name below the claimer's, nor the right name under another root, nor no name claims it."""
    granted = await bless(unclaimed.root, unclaimed.ownership.principal, "agent")
    below, namesake = await blessed(unclaimed.root, "pod"), await new_root()
    nobody = Principal((await new_root()).signer)
    for stranger in (below, namesake, nobody):
        with pytest.raises(CallError, match=r"matches root:\$; you have") as refused:
            await unclaimed.claim(stranger, granted)
        assert refused.value.code is ErrorCode.NOT_TRUSTED
    assert not unclaimed.ownership.is_claimed


async def test_what_is_granted_must_be_for_the_server(unclaimed: Unclaimed) -> None:
    """A claim that grants nothing, or blessings of another key, is a mistake, and leaves the server unclaimed."""
    for granted in (None, default_of(unclaimed.root)):
        with pytest.raises(CallError) as refused:
            await unclaimed.claim(unclaimed.root, granted)
        assert refused.value.code is ErrorCode.BAD_ARG
    assert not unclaimed.ownership.is_claimed


async def test_a_second_claim_is_told_so_and_the_same_one_may_be_repeated(unclaimed: Unclaimed) -> None:
    """A claimer whose acknowledgement was lost may send the very same claim again; another one is told that it is late."""
    granted = await bless(unclaimed.root, unclaimed.ownership.principal, "agent")
    await unclaimed.claim(unclaimed.root, granted)
    await unclaimed.claim(unclaimed.root, granted)
    other = await bless(unclaimed.root, unclaimed.ownership.principal, "other")
    with pytest.raises(CallError, match="already claimed") as refused:
        await unclaimed.claim(unclaimed.root, other)
    assert refused.value.code is ErrorCode.EXISTS
    assert default_of(unclaimed.ownership.principal) == granted


async def test_a_stranger_is_not_trusted_after_the_claim_either(unclaimed: Unclaimed) -> None:
    """Not even with the very blessings of the claim: whether the server is claimed is none of a stranger's business."""
    granted = await bless(unclaimed.root, unclaimed.ownership.principal, "agent")
    await unclaimed.claim(unclaimed.root, granted)
    for stranger in (await blessed(unclaimed.root, "pod"), await new_root(), await new_root("stranger")):
        with pytest.raises(CallError, match=r"matches root:\$; you have") as refused:
            await unclaimed.claim(stranger, granted)
        assert refused.value.code is ErrorCode.NOT_TRUSTED


async def test_a_server_with_an_owner_of_its_own_tells_only_that(tmp_path: Path) -> None:
    """A server that was started with permissions expects no claimer: its administrators hear that it has an owner."""
    root = await new_root()
    ownership = Ownership.given(root, Permissions.of(Admin=["root:alice"]))
    service = Claimable(ownership, claimer=(), token=None, permissions=Permissions.of())
    alice, bob = await blessed(root, "alice"), await blessed(root, "bob")
    async with serve(service, root, listen=["127.0.0.1:0"]) as server:
        for caller, code in ((alice, ErrorCode.EXISTS), (bob, ErrorCode.NOT_TRUSTED)):
            async with connect(f"/{server.addresses[0]}", caller) as client:
                with pytest.raises(CallError) as refused:
                    await client.call("Claim", "", granted=default_of(root))
                assert refused.value.code is code


async def test_a_token_is_asked_for_after_the_claim_too(tmp_path: Path) -> None:
    """The repetition of a claim shows what the claim showed."""
    async with serving(tmp_path / "d", token="correct horse") as unclaimed:
        granted = await bless(unclaimed.root, unclaimed.ownership.principal, "agent")
        await unclaimed.claim(unclaimed.root, granted, "correct horse")
        with pytest.raises(CallError, match="pairing token is wrong"):
            await unclaimed.claim(unclaimed.root, granted, "wrong")
        await unclaimed.claim(unclaimed.root, granted, "correct horse")


async def test_of_many_claims_at_once_one_wins(unclaimed: Unclaimed) -> None:
    """The others are told that it is claimed."""
    outcomes: list[str] = []

    async def claim(number: int) -> None:
        granted = await bless(unclaimed.root, unclaimed.ownership.principal, f"agent-{number}")
        try:
            await unclaimed.claim(unclaimed.root, granted)
            outcomes.append(granted.names[0])
        except CallError as error:
            outcomes.append(error.code)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(claim, number)
    winners = [outcome for outcome in outcomes if outcome != ErrorCode.EXISTS]
    assert winners == list(default_of(unclaimed.ownership.principal).names)
    assert len(outcomes) == 8


async def test_the_pairing_token_is_asked_for(tmp_path: Path) -> None:
    """With a token, being the right claimer is not enough."""
    async with serving(tmp_path / "d", token="correct horse") as unclaimed:
        granted = await bless(unclaimed.root, unclaimed.ownership.principal, "agent")
        for wrong in ("", "correct hors", "kœrrekt"):
            with pytest.raises(CallError, match="pairing token is wrong") as refused:
                await unclaimed.claim(unclaimed.root, granted, wrong)
            assert refused.value.code is ErrorCode.NOT_TRUSTED
        await unclaimed.claim(unclaimed.root, granted, "correct horse")
        assert unclaimed.ownership.is_claimed
