"""Following collections through ends, silences, lost connections and forgotten versions."""

import json
from pathlib import Path

import pytest
import trio
from scripted_api import Exchange, Handler, scripted_api

from vanadium_node.errors import KubernetesError
from vanadium_node.kube.client import KubeClient, open_client
from vanadium_node.kube.kubeconfig import ClusterAccess
from vanadium_node.kube.resources import SECRET, Manifest, name_of
from vanadium_node.kube.watch import QUIET_SECONDS, Event, Scope, Snapshot, following

SCOPE = Scope(resource=SECRET, namespace="shop")


def secret(name: str, version: int) -> Manifest:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}}


def listing(version: int, *names: str) -> Handler:
    """Answer a list."""

    async def handler(exchange: Exchange) -> None:
        items = [secret(name, version) for name in names]
        await exchange.answer(200, {"items": items, "metadata": {"resourceVersion": str(version)}})

    return handler


def watch(*events: tuple[str, Manifest], ends: bool = True) -> Handler:
    """Answer a watch: some events, then the end, or silence."""

    async def handler(exchange: Exchange) -> None:
        await exchange.begin(200)
        for kind, item in events:
            await exchange.send(json.dumps({"type": kind, "object": item}) + "\n")
        if ends:
            await exchange.end()
        else:
            await trio.sleep_forever()

    return handler


def names(change: Snapshot | KubernetesError) -> list[str]:
    assert isinstance(change, Snapshot), change
    return sorted(name_of(item) for item in change.items)


async def test_list_then_watch_then_watch_from_there(autojump_clock: trio.testing.MockClock) -> None:
    """A watch that ends is renewed from the last version, bookmarks included; no second list."""
    script = [
        listing(5, "a"),
        watch(("ADDED", secret("b", 6)), ("BOOKMARK", secret("", 9))),
        watch(("DELETED", secret("a", 10)), ends=False),
    ]
    async with (
        scripted_api(script) as api,
        open_client(ClusterAccess(server=api.url)) as client,
        following(client, [SCOPE]) as changes,
    ):
        assert [names(await changes.receive()) for _ in range(3)] == [["a"], ["a", "b"], ["b"]]
    assert ["watch=1" in line for line in api.seen] == [False, True, True]
    assert "resourceVersion=5&" in api.seen[1]
    assert "resourceVersion=9&" in api.seen[2]


async def test_a_forgotten_version_means_to_list_again(autojump_clock: trio.testing.MockClock) -> None:
    """410 comes as a status or as an event; either way what changed meanwhile is in the next list."""

    async def gone(exchange: Exchange) -> None:
        await exchange.answer(410, {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})

    error = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    script = [listing(1, "a"), watch(("ERROR", error)), listing(7, "b"), gone, listing(9, "c"), watch(ends=False)]
    async with (
        scripted_api(script) as api,
        open_client(ClusterAccess(server=api.url)) as client,
        following(client, [SCOPE]) as changes,
    ):
        assert [names(await changes.receive()) for _ in range(3)] == [["a"], ["b"], ["c"]]


async def test_lost_connections_and_failing_servers_are_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    """With growing pauses; whoever follows has a deadline of its own."""

    async def hang_up(exchange: Exchange) -> None:
        await exchange.stream.aclose()

    async def fail(exchange: Exchange) -> None:
        await exchange.answer(500, {"kind": "Status", "code": 500, "message": "etcd has no leader"})

    script = [listing(1, "a"), hang_up, fail, fail, watch(("ADDED", secret("b", 2)), ends=False)]
    async with (
        scripted_api(script) as api,
        open_client(ClusterAccess(server=api.url)) as client,
        following(client, [SCOPE]) as changes,
    ):
        assert [names(await changes.receive()) for _ in range(2)] == [["a"], ["a", "b"]]
    assert len(api.seen) == 5


async def test_a_watch_that_goes_quiet_is_renewed(autojump_clock: trio.testing.MockClock) -> None:
    """Half-open connections say nothing for ever."""
    script = [listing(1, "a"), watch(ends=False), watch(("ADDED", secret("b", 2)), ends=False)]
    async with (
        scripted_api(script) as api,
        open_client(ClusterAccess(server=api.url)) as client,
        following(client, [SCOPE]) as changes,
    ):
        started = trio.current_time()
        assert [names(await changes.receive()) for _ in range(2)] == [["a"], ["a", "b"]]
        assert trio.current_time() - started >= QUIET_SECONDS


async def test_a_refusal_is_told_and_not_repeated() -> None:
    """Who may not watch is told so at once."""

    async def forbid(exchange: Exchange) -> None:
        await exchange.answer(403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no"})

    async with (
        scripted_api([forbid]) as api,
        open_client(ClusterAccess(server=api.url)) as client,
        following(client, [SCOPE]) as changes,
    ):
        refusal = await changes.receive()
    assert isinstance(refusal, KubernetesError)
    assert refusal.status == 403


@pytest.mark.parametrize("line", ["", "words", "[]", '{"type": "ADDED"}', '{"type": "ADDED", "object": 3}'])
def test_lines_that_are_no_events(line: str) -> None:
    """A proxy's words in the middle of a watch are an error of the API, never a crash."""
    with pytest.raises(KubernetesError, match="no event"):
        Event.parse(line, SCOPE)


async def test_on_a_real_server(client: KubeClient, kubeconfig: Path) -> None:
    """Objects come and go in the snapshots of a selector; others do not show."""
    space = client.namespace
    scope = Scope(resource=SECRET, namespace=space, labels="follow=me")
    async with following(client, [scope]) as changes:
        assert names(await changes.receive()) == []
        for name, labels in {"other": {}, "one": {"follow": "me"}}.items():
            await client.create(
                SECRET, space, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}}
            )
        assert names(await changes.receive()) == ["one"]
        await client.delete(SECRET, space, "one")
        assert names(await changes.receive()) == []
