"""Secrets listed, limited and forgotten by an administrator, at a running agent, with everything written down."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from agent_parties import default_of, new_root
from disk_faults import unwritable

from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.secret_store import KnownSecret, Record, SecretStore, StoredSecret, secret_id
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.storage.audit_file import verify_file


async def streamed(cluster: Any, method: str, *arguments: object) -> list[KnownSecret]:
    """Call a streaming method as alice."""
    async with (
        cluster.calling(cluster.alice) as client,
        client.stream(method, *arguments, returns=KnownSecret) as items,
    ):
        return [item async for item in items]


async def test_secrets_are_listed_and_never_shown(cluster: Any) -> None:
    """Names, who made them, use, lifetime and end; nothing from which the secret could be had."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    async with cluster.running():
        shop = await cluster.new_secret(Caveat.expiry(end), ttl_seconds=60, extension="shop")
        cart = await cluster.new_secret(extension="cart")
        blessings = await cluster.seek(shop, await cluster.replica())
        listed = {each.id: each for each in await streamed(cluster, "ListSecrets")}
    assert blessings.expiry is not None
    assert blessings.expiry < datetime.now(UTC) + timedelta(seconds=61), "the secret's own lifetime"
    assert set(listed) == {secret_id(shop), secret_id(cart)}
    first, second = listed[secret_id(shop)], listed[secret_id(cart)]
    assert (first.names, first.created_by, first.uses) == (("root:alice:shop",), "root:alice", 1)
    assert (first.ttl_seconds, first.expires, first.last_used is not None) == (60, end, True)
    assert (second.ttl_seconds, second.expires, second.last_used, second.uses) == (None, None, None, 0)
    assert not any(secret in repr(listed) for secret in (shop, cart))


async def test_a_lifetime_beyond_the_agents_is_refused(cluster: Any) -> None:
    """The agent's is the cap; an agent without one allows any."""
    async with cluster.running(timedelta(hours=1)):
        await cluster.new_secret(ttl_seconds=3600)
        for seconds in (3601, -1, 10**18):
            with pytest.raises(CallError) as refused:
                await cluster.new_secret(ttl_seconds=seconds)
            assert refused.value.code is ErrorCode.BAD_ARG
        assert len(await streamed(cluster, "ListSecrets")) == 1
    async with cluster.running(None):
        await cluster.new_secret(ttl_seconds=10**8)


async def test_secrets_are_forgotten_by_what_they_are(cluster: Any) -> None:
    """By name, by how long they are idle, dry at first; no criterion is a mistake, not all of them."""
    async with cluster.running():
        shop, cart = [await cluster.new_secret(extension=name) for name in ("shop", "cart")]
        with pytest.raises(CallError, match="no criterion"):
            await streamed(cluster, "ForgetSecrets")
        assert await streamed(cluster, "ForgetSecrets", None, 3600) == []
        for is_dry_run in (True, False):
            [found] = await streamed(cluster, "ForgetSecrets", "root:alice:shop", None, None, is_dry_run)
            assert found.id == secret_id(shop)
        with pytest.raises(CallError, match="unknown here"):
            await cluster.seek(shop, await cluster.replica())
        await cluster.seek(cart, await cluster.replica())


async def test_a_long_search_keeps_nobody_waiting(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two pages of many that hold nothing of what is sought, others have their turn."""
    turns, seen = 0, []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    def pages(*_: object) -> Iterator[list[Record]]:
        for _number in range(50):
            seen.append(turns)
            yield []

    monkeypatch.setattr(SecretStore, "pages", pages)
    async with cluster.running(), trio.open_nursery() as nursery:
        nursery.start_soon(others)
        for method, *criteria in (["ForgetSecrets", "root:nobody"], ["ListSecrets"]):
            seen.clear()
            assert await streamed(cluster, method, *criteria) == []
            assert len(seen) == 50
            assert len(set(seen)) > 25, "trio lets the two go in any order: nearly each time, the other had its turn"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("method", ["ListSecrets", "ForgetSecrets"])
async def test_only_administrators_see_secrets(cluster: Any, method: str) -> None:
    """Bob is refused, and the refusal is written down under his name."""
    async with cluster.running(), cluster.calling(cluster.bob) as client:
        with pytest.raises(CallError) as refused:
            async with client.stream(method, returns=KnownSecret) as items:
                [_ async for _ in items]
        assert refused.value.code is ErrorCode.NO_ACCESS
    [entry] = [each for each in cluster.audited() if each.get("outcome") == "refused"]
    assert (entry["event"], entry["names"], entry["code"]) == (method, ["root:bob"], "no-access")
    assert entry["address"].startswith("127.0.0.1:")


async def test_who_asked_for_what_is_written_down(cluster: Any) -> None:
    """Grants and refusals, with names, keys and addresses, in one chain over two runs; no secret in any line."""
    async with cluster.running():
        secret = await cluster.new_secret()
        replica = await cluster.replica()
        blessings = await cluster.seek(secret, replica)
        with pytest.raises(CallError):
            await cluster.seek(f"{secret}x", replica)
    async with cluster.running(), cluster.calling(cluster.alice) as client:
        other = await cluster.new_secret()
        await streamed(cluster, "ListSecrets")
        await client.call("ForgetSecret", secret, returns=type(None))
        await streamed(cluster, "ForgetSecrets", "root:alice:foo")
    entries = cluster.audited()
    assert [(each["event"], each.get("outcome")) for each in entries] == [
        ("started", None),
        ("NewSecret", "granted"),
        ("SeekBlessings", "granted"),
        ("SeekBlessings", "refused"),
        ("stopping", None),
        ("started", None),
        ("NewSecret", "granted"),
        ("ListSecrets", "granted"),
        ("ForgetSecret", "granted"),
        ("ForgetSecrets", "granted"),
        ("stopping", None),
    ]
    made, given, refused = entries[1:4]
    assert (made["names"], made["subject"]) == (["root:alice"], "root:alice:foo")
    assert (given["subject"], given["key"]) == (blessings.names[0], replica.public_key.fingerprint)
    assert (refused["code"], refused["names"]) == ("not-found", [])
    assert made["secret"] == given["secret"] == entries[8]["secret"] == secret_id(secret)
    assert (entries[9]["secret"], entries[9]["subject"]) == (secret_id(other), "root:alice:foo")
    log = cluster.folder / "data" / "audit.jsonl"
    assert secret not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    found = verify_file(log)
    assert (found.problem, found.lines) == ("", 11)


async def test_a_flood_of_refusals_does_not_fill_the_log(cluster: Any) -> None:
    """Beyond some a second they are counted, and the next line that is written says how many there were."""
    async with cluster.running(), cluster.calling(cluster.bob) as client:
        for _ in range(500):
            with pytest.raises(CallError):
                await client.call("NewSecret")
    refused = [each for each in cluster.audited() if each.get("outcome") == "refused"]
    assert 40 <= len(refused) < 100


async def test_names_of_any_length_fit_into_the_log(cluster: Any) -> None:
    """A stranger, who chooses what he grants, neither keeps others' lines out of the log nor makes the agent unready."""
    long = await new_root("☃" * 1300)
    own = Blessings.union(*[await long.bless_self(f"{number}" + "☃" * 1300) for number in range(14)])
    async with cluster.running() as serving, cluster.calling(cluster.bob) as client:
        granted = await long.bless(client.server.public_key, own, "x", [Caveat.unconstrained()])
        for _ in range(2):
            with pytest.raises(CallError) as refused:
                await client.call("Claim", "", granted=granted)
            assert refused.value.code is ErrorCode.NOT_TRUSTED
        await cluster.new_secret()
        assert serving.not_ready() == ()
    written = [each for each in cluster.audited() if each["event"] == "Claim"]
    assert [(each["names"], each["subject"][:2]) for each in written] == [(["root:bob"], "0☃")] * 2


async def test_without_room_for_the_log_secrets_stay_as_they_are(cluster: Any) -> None:
    """What changes something is refused; blessings are given, and later the log tells of the gap. A strict agent gives none."""
    elsewhere = cluster.folder / "log"
    elsewhere.mkdir()
    for is_strict in (False, True):
        async with cluster.running(audit_strict=is_strict, audit_file=elsewhere / "audit.jsonl") as serving:
            secret = await cluster.new_secret()
            replica = await cluster.replica()
            log = elsewhere / "audit.jsonl"
            size = log.stat().st_size
            with unwritable(log):
                with pytest.raises(CallError, match=r"nothing was changed.*audit") as refused:
                    await cluster.new_secret()
                assert refused.value.code is ErrorCode.INTERNAL
                with pytest.raises(CallError, match="nothing was changed"):
                    await streamed(cluster, "ForgetSecrets", "root:alice:foo")
                async with cluster.calling(cluster.alice) as client:
                    with pytest.raises(CallError, match="nothing was changed"):
                        await client.call("ForgetSecret", secret)
                if is_strict:
                    with pytest.raises(CallError, match="no blessings are given"):
                        await cluster.seek(secret, replica)
                else:
                    await cluster.seek(secret, replica)
                assert any("write the audit log" in reason for reason in serving.not_ready())
                assert log.stat().st_size == size
            assert len(await streamed(cluster, "ListSecrets")) == 1 + 2 * is_strict
            await cluster.new_secret()
            assert serving.not_ready() == ()
            assert verify_file(log).problem == ""
            gaps = [json.loads(line) for line in log.read_text().splitlines() if '"resumed"' in line]
            assert gaps[-1]["lost"] >= 2


async def test_too_many_calls_are_told_when_to_come_again(cluster: Any) -> None:
    """For one secret, and from one address; other secrets are served, and the time given is enough."""
    async with cluster.running(rate_per_secret=1):
        one, other = [await cluster.new_secret() for _ in range(2)]
        replica = await cluster.replica()
        async with cluster.calling(replica) as client:
            for _ in range(10):
                await client.call("SeekBlessings", one)
            with pytest.raises(CallError, match="for this secret") as refused:
                await client.call("SeekBlessings", one)
            assert refused.value.code is ErrorCode.OVERLOADED
            await client.call("SeekBlessings", other)
            await trio.sleep(int(refused.value.fields["retry_after_ms"]) / 1000)
            await client.call("SeekBlessings", one)
    async with cluster.running(rate_per_address=1), cluster.calling(replica) as client:
        for _ in range(10):
            await client.call("SeekBlessings", one)
        for name, argument in (("SeekBlessings", other), ("Claim", "a guess of the pairing token")):
            with pytest.raises(CallError, match="from your address"):
                await client.call(name, argument)


async def test_beyond_a_number_of_calls_at_once_each_is_told_when_to_come_again(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked for; none waits, and what was asked first is done."""
    begun, released, search = trio.Event(), trio.Event(), SecretStore.search

    async def slow(store: SecretStore, secret: str) -> StoredSecret | None:
        begun.set()
        await released.wait()
        return await search(store, secret)

    async with cluster.running(max_in_flight=1), trio.open_nursery() as nursery:
        secret, replica = await cluster.new_secret(), await cluster.replica()
        monkeypatch.setattr(SecretStore, "search", slow)
        nursery.start_soon(cluster.seek, secret, replica)
        await begun.wait()
        async with cluster.calling(cluster.alice) as client:
            own = default_of(cluster.alice)
            granted = await cluster.alice.bless(client.server.public_key, own, "foo", [Caveat.unconstrained()])
            for name, *arguments in (
                ["SeekBlessings", secret],
                ["NewSecret"],
                ["ForgetSecret", secret],
                ["Claim", ""],
            ):
                with pytest.raises(CallError, match="as many calls as it may") as refused:
                    await client.call(name, *arguments, granted=granted)
                assert refused.value.code is ErrorCode.OVERLOADED
                assert int(refused.value.fields["retry_after_ms"]) > 0
            for name in ("ListSecrets", "ForgetSecrets"):
                with pytest.raises(CallError, match="as many calls as it may"):
                    await streamed(cluster, name)
        released.set()
