"""Secrets and blessings at a running cluster agent, over real connections."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from agent_parties import START, default_of, new_root
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.cluster_agent.issuing import expiry_caveat, extension_of
from vanadium_node.errors import CallError, ErrorCode, NotTrustedError, StorageError
from vanadium_node.rpc import connect
from vanadium_node.secret_store import KnownSecret, SecretStore, fresh_secret, key_of_secret
from vanadium_node.secret_store.store import PAGE_ROWS
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import KeyType, PrivateKey
from vanadium_node.security.pattern import check_extension
from vanadium_node.security.principal import Principal


async def test_a_replica_gets_blessings_of_its_own(cluster: Any) -> None:
    """They are bound to its key, named by its address, end after the agent's lifetime, and differ from others'."""
    async with cluster.running(timedelta(hours=1)):
        secret = await cluster.new_secret()
        one, two = await cluster.replica(), await cluster.replica()
        before = datetime.now(UTC)
        first, second = await cluster.seek(secret, one), await cluster.seek(secret, two)
    for principal, blessings in ((one, first), (two, second)):
        (name,) = blessings.names
        assert name.startswith("root:alice:foo:127.0.0.1:")
        assert blessings.public_key == principal.public_key
        assert blessings.expiry is not None
        assert timedelta(minutes=59) < blessings.expiry - before < timedelta(minutes=61)
    assert first.names != second.names


async def test_an_ed25519_replica(cluster: Any) -> None:
    """The kind of the key is the replica's own business."""
    replica = await Principal.create(PrivateKey.generate(KeyType.ED25519), "x")
    await replica.add_roots_of(default_of(cluster.root))
    async with cluster.running():
        assert (await cluster.seek(await cluster.new_secret(), replica)).public_key == replica.public_key


async def test_only_administrators_make_and_forget_secrets(cluster: Any) -> None:
    """Bob is told which name he presented; a stranger, that it has none that counts."""
    stranger = await new_root("stranger")
    await stranger.add_roots_of(default_of(cluster.root))
    async with cluster.running():
        for principal, presented in ((cluster.bob, "presented root:bob"), (stranger, "rejected: stranger")):
            async with cluster.calling(principal) as client:
                for method, *arguments in (("NewSecret",), ("ForgetSecret", "x"), ("ListSecrets",)):
                    with pytest.raises(CallError, match=f"{presented}.*none has the right Admin") as refused:
                        await client.call(method, *arguments, granted=None)
                    assert refused.value.code is ErrorCode.NO_ACCESS


async def test_what_is_known_about_secrets(cluster: Any) -> None:
    """Names, times and use of each, in more than one page; found by the hash of the secret, which nobody is told."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
    async with cluster.running(), cluster.calling(cluster.alice) as client:
        async with client.stream("ListSecrets", returns=KnownSecret) as none:
            assert [known async for known in none] == []
        secrets = [await cluster.new_secret() for _ in range(PAGE_ROWS + 1)]
        limited = await cluster.new_secret(Caveat.expiry(end))
        for secret in (secrets[0], limited):
            await cluster.seek(secret, await cluster.replica())
        async with client.stream("ListSecrets", returns=KnownSecret) as found:
            known = {one.key: one async for one in found}
    assert set(known) == {key_of_secret(secret) for secret in (*secrets, limited)}
    used, unused, ending = (known[key_of_secret(secret)] for secret in (*secrets[:2], limited))
    assert (unused.names, unused.created_by) == (("root:alice:foo",), "root:alice")
    assert (unused.uses, unused.last_used, unused.replicas_until, unused.expires) == (0, None, None, None)
    assert used.uses == 1
    assert used.last_used is not None
    assert used.replicas_until == used.last_used + timedelta(hours=1)
    assert ending.expires == ending.replicas_until == end


async def test_a_secret_needs_blessings_for_the_agents_key(cluster: Any) -> None:
    """Without any, or with some of another key, nothing is stored."""
    async with cluster.running(), cluster.calling(cluster.alice) as client:
        for granted in (None, default_of(cluster.alice)):
            with pytest.raises(CallError, match=r"granted") as refused:
                await client.call("NewSecret", returns=str, granted=granted)
            assert refused.value.code is ErrorCode.BAD_ARG


async def test_a_caller_may_make_the_secret_itself(cluster: Any) -> None:
    """So that it can forget it even where the answer is lost; what is short, or in use, is refused."""
    async with cluster.running(), cluster.calling(cluster.alice) as client:
        own = default_of(cluster.alice)
        granted = await cluster.alice.bless(client.server.public_key, own, "foo", [Caveat.unconstrained()])
        secret = fresh_secret()
        assert await client.call("NewSecret", 0, secret, returns=str, granted=granted) == secret
        assert (await cluster.seek(secret, await cluster.replica())).names
        for given, code in ((secret, ErrorCode.EXISTS), ("c2VjcmV0", ErrorCode.BAD_ARG), ("%", ErrorCode.BAD_ARG)):
            with pytest.raises(CallError) as refused:
                await client.call("NewSecret", 0, given, returns=str, granted=granted)
            assert refused.value.code is code
            assert given not in str(refused.value)
        again, codes = fresh_secret(), []

        async def make() -> None:
            try:
                await client.call("NewSecret", 0, again, returns=str, granted=granted)
            except CallError as error:
                codes.append(error.code)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(make)
        assert codes == [ErrorCode.EXISTS] * 2, "of those that come at once, one wins"


async def test_a_forgotten_secret_gives_nothing_and_takes_nothing(cluster: Any) -> None:
    """Forgetting stops new blessings only; an unknown secret is no error to forget, and one to use."""
    async with cluster.running():
        secret, other = await cluster.new_secret(), await cluster.new_secret()
        async with cluster.calling(cluster.alice) as client:
            for _ in range(2):
                await client.call("ForgetSecret", secret, returns=type(None))
        with pytest.raises(CallError, match="the secret is unknown here") as refused:
            await cluster.seek(secret, await cluster.replica())
        assert refused.value.code is ErrorCode.NOT_FOUND
        assert secret not in str(refused.value)
        await cluster.seek(other, await cluster.replica())


async def test_blessings_never_outlive_what_was_granted(cluster: Any) -> None:
    """The grant's end is the replica's; without a lifetime of the agent's they are unconstrained but for the grant."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
    async with cluster.running(None):
        limited = await cluster.seek(await cluster.new_secret(Caveat.expiry(end)), await cluster.replica())
        unlimited = await cluster.seek(await cluster.new_secret(), await cluster.replica())
    assert limited.expiry == end
    assert unlimited.expiry is None


async def test_secrets_survive_a_restart(cluster: Any) -> None:
    """So do the agent's name and key."""
    async with cluster.running() as first:
        secret = await cluster.new_secret()
    async with cluster.running() as second:
        assert (await cluster.seek(secret, await cluster.replica())).names[0].startswith("root:alice:foo:")
    assert first.names == second.names == ("root:agent",)
    assert first.name.startswith("/(root:agent)@127.0.0.1:")


async def test_a_replica_that_trusts_another_root_shows_nothing(cluster: Any) -> None:
    """It leaves before it asks: the secret is not sent to whom it does not know."""
    async with cluster.running():
        with pytest.raises(NotTrustedError, match="root:agent"):
            await cluster.seek("secret", await new_root())


async def test_a_full_disk_costs_no_replica_its_identity(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a use was not counted is logged; the blessings are given."""

    async def fail(*_: object, **__: object) -> None:
        raise StorageError("no space left")

    async with cluster.running():
        secret = await cluster.new_secret()
        monkeypatch.setattr(SecretStore, "record_use", fail)
        assert await cluster.seek(secret, await cluster.replica())


async def test_what_the_agent_offers_is_told_to_who_may_ask(cluster: Any) -> None:
    """Its methods are three interfaces on one object."""
    async with cluster.running(), connect(cluster.name, cluster.alice) as client:
        for method in ("Claim", "SeekBlessings", "ForgetSecret"):
            with pytest.raises(CallError) as refused:
                await client.call(method)
            assert refused.value.code is ErrorCode.BAD_ARG, "it is known, and wants an argument"
        with pytest.raises(CallError, match="already claimed"):
            await client.call("Claim", "", granted=None)


@pytest.mark.parametrize(
    ("address", "extension"),
    [
        ("10.64.0.4:54945", "10.64.0.4:54945"),
        ("[::1]:80", "0000:0000:0000:0000:0000:0000:0000:0001:80"),
        ("[fe80::1%eth0]:80", "fe80:0000:0000:0000:0000:0000:0000:0001:80"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        ("", "local"),
    ],
)
def test_extensions(address: str, extension: str) -> None:
    """A replica's address becomes a part of its name, which may hold no `::`."""
    assert extension_of(address) == extension
    assert check_extension(extension) == extension


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_address_gives_an_extension(ip: object, port: int) -> None:
    """Whatever the address of a pod, its replica can be named."""
    text = str(ip)
    extension = extension_of(f"[{text}]:{port}" if ":" in text else f"{text}:{port}")
    assert check_extension(extension).endswith(f":{port}")


@given(st.one_of(st.none(), st.integers(1, 10**6)), st.one_of(st.none(), st.integers(-(10**6), 10**6)))
def test_the_earlier_end_counts(ttl: int | None, granted: int | None) -> None:
    """The agent's lifetime and the grant's end: whichever comes first; none at all is said explicitly."""
    caveat = expiry_caveat(
        START,
        None if ttl is None else timedelta(seconds=ttl),
        None if granted is None else START + timedelta(seconds=granted),
    )
    ends = [seconds for seconds in (ttl, granted) if seconds is not None]
    expected = Caveat.expiry(START + timedelta(seconds=min(ends))) if ends else Caveat.unconstrained()
    assert caveat == expected
