"""The API over TLS, as a client sees it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from vanadium_node.local.api.history import KEPT_EVENTS
from vanadium_node.local.api.kinds import CONFIG_MAP, DEPLOYMENT, POD, REPLICA_SET
from vanadium_node.local.api.objects import Object, ObjectStore

Maker = Callable[..., Object]

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS = "/api/v1/namespaces/default/pods"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


def config_map(name: str, **rest: Any) -> Object:
    """Return a config map."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name} | rest.pop("metadata", {}), **rest}


async def test_without_the_token_nothing_is_answered(api: httpx.AsyncClient) -> None:
    """401 with a Status, for every path but health and version."""
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
        answer = await api.get("/api/v1/namespaces", headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")
    assert (await api.get("/readyz", headers={"Authorization": ""})).text == "ok"


async def test_discovery_names_every_resource(api: httpx.AsyncClient) -> None:
    """Groups, versions, resources with their short names and parts."""
    groups = (await api.get("/apis")).json()["groups"]
    assert {"apps", "batch", "events.k8s.io", "authorization.k8s.io"} <= {g["name"] for g in groups}
    listed = (await api.get("/apis/apps/v1")).json()["resources"]
    by_name = {r["name"]: r for r in listed}
    assert by_name["deployments"]["shortNames"] == ["deploy"]
    assert by_name["deployments/scale"]["kind"] == "Scale"
    assert (await api.get("/version")).json()["gitVersion"].startswith("v1.33.")
    assert (await api.get("/apis/nowhere")).status_code == 404
    assert (await api.get("/apis/apps/v9/deployments")).json()["reason"] == "NotFound"


async def test_an_object_from_its_making_to_its_end(api: httpx.AsyncClient) -> None:
    """Create, read, replace, patch, delete."""
    made = await api.post(CONFIG_MAPS, json=config_map("settings", data={"a": "1"}))
    assert made.status_code == 201
    path = f"{CONFIG_MAPS}/settings"
    read = (await api.get(path)).json()
    assert read == made.json()
    replaced = await api.put(path, json=read | {"data": {"a": "2"}})
    assert replaced.json()["data"] == {"a": "2"}
    stale = await api.put(path, json=read | {"data": {"a": "3"}})
    assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")
    merge = {"Content-Type": "application/merge-patch+json"}
    patched = await api.patch(path, content=json.dumps({"data": {"b": "1"}}), headers=merge)
    assert patched.json()["data"] == {"a": "2", "b": "1"}
    gone = (await api.delete(path)).json()
    assert (gone["status"], gone["details"]["name"], gone["details"]["kind"]) == ("Success", "settings", "configmaps")
    missing = await api.get(path)
    assert missing.json()["message"] == 'configmaps "settings" not found'
    assert missing.json()["details"] == {"name": "settings", "kind": "configmaps"}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "cannot be read"),
        (b"[]", 400, "not an API object"),
        (b'{"metadata":[]}', 400, "not an API object"),
        (b'{"kind":"Secret"}', 400, "the kind in the data (Secret) does not match the expected kind (ConfigMap)"),
        (b'{"apiVersion":"v2"}', 400, "the API version in the data (v2) does not match"),
        (b'{"metadata":{"name":"a","namespace":"b"}}', 400, "namespace of the provided object does not match"),
        (b'{"metadata":{"name":"A"}}', 422, "a lowercase RFC 1123 subdomain must consist of"),
        (
            b'{"metadata":{"name":1}}',
            400,
            "cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
        ),
        (b'{"metadata":{"name":"a","labels":{"x":"-"}}}', 422, "metadata.labels: Invalid value"),
        (b'{"metadata":{"name":"a"},"data":{"x":1}}', 400, "cannot unmarshal number"),
        (b'{"metadata":{"name":"a"},"data":{"x/y":"1"}}', 422, "a valid config key must consist of"),
        (b"[" * 100_000, 400, "cannot be read"),
        (b"k8s\x00\xff", 400, "cannot be read"),
    ],
)
async def test_what_is_wrong_is_named(api: httpx.AsyncClient, body: bytes, status: int, said: str) -> None:
    """Every body that is not a config map is refused with a Status that says why."""
    answer = await api.post(CONFIG_MAPS, content=body, headers={"Content-Type": "application/json"})
    refusal = answer.json()
    assert (answer.status_code, refusal["kind"], refusal["status"]) == (status, "Status", "Failure")
    assert said in refusal["message"]


async def test_bodies_have_a_limit(api: httpx.AsyncClient) -> None:
    """More than 3 MiB is not read."""
    answer = await api.post(CONFIG_MAPS, content=b" " * (3 * 1024 * 1024 + 1))
    assert answer.json()["reason"] == "RequestEntityTooLarge"


async def test_yaml_is_read(api: httpx.AsyncClient) -> None:
    """As server-side apply and some clients send it."""
    body = "metadata: {name: settings}\ndata: {a: b}\n"
    answer = await api.post(CONFIG_MAPS, content=body, headers={"Content-Type": "application/yaml"})
    assert answer.json()["data"] == {"a": "b"}


async def test_dry_run_keeps_nothing(api: httpx.AsyncClient, store: ObjectStore, deployment: Maker) -> None:
    """The answer is complete, the store is as it was."""
    answer = await api.post(DEPLOYMENTS, params={"dryRun": "All"}, json=deployment())
    assert answer.json()["spec"]["replicas"] == 1
    assert (await api.get(f"{DEPLOYMENTS}/web")).status_code == 404
    store.create(CONFIG_MAP, {"metadata": {"name": "kept"}})
    await api.delete(f"{CONFIG_MAPS}/kept", params={"dryRun": "All"})
    assert store.find(CONFIG_MAP, "default", "kept") is not None
    assert (await api.post(CONFIG_MAPS, params={"dryRun": "Some"}, json=config_map("a"))).status_code == 400


async def test_lists_come_in_pages(api: httpx.AsyncClient, store: ObjectStore) -> None:
    """A limit gives a token that leads to the next page."""
    for number in range(5):
        store.create(CONFIG_MAP, {"metadata": {"name": f"c{number}"}})
    names: list[str] = []
    token = ""
    for expected in (2, 2, 1):
        page = (await api.get(CONFIG_MAPS, params={"limit": "2", "continue": token})).json()
        assert len(page["items"]) == expected
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
    assert names == ["c0", "c1", "c2", "c3", "c4"]
    assert not token
    assert (await api.get(CONFIG_MAPS, params={"continue": "?"})).status_code == 400


async def test_a_thousand_deployments_list_fast(api: httpx.AsyncClient, store: ObjectStore, deployment: Maker) -> None:
    """As tables, within a second even on a slow machine."""
    for number in range(1000):
        store.create(DEPLOYMENT, deployment(f"web-{number}"))
    with trio.fail_after(5):
        rows = (await api.get("/apis/apps/v1/deployments", headers=TABLE)).json()["rows"]
    assert len(rows) == 1000


async def test_status_and_scale_have_paths_of_their_own(api: httpx.AsyncClient, deployment: Maker) -> None:
    """Replicas through scale; the status through status only."""
    await api.post(DEPLOYMENTS, json=deployment() | {"status": {"replicas": 9}})
    scale = (await api.get(f"{DEPLOYMENTS}/web/scale")).json()
    assert (scale["spec"], scale["status"]) == ({"replicas": 1}, {"replicas": 0, "selector": "app=web"})
    scale["spec"]["replicas"] = 3
    assert (await api.put(f"{DEPLOYMENTS}/web/scale", json=scale)).json()["spec"] == {"replicas": 3}
    merge = {"Content-Type": "application/merge-patch+json"}
    await api.patch(f"{DEPLOYMENTS}/web/scale", content=b'{"spec":{"replicas":4}}', headers=merge)
    status = b'{"status":{"replicas":4,"unknown":1},"spec":{"replicas":7}}'
    now = (await api.patch(f"{DEPLOYMENTS}/web/status", content=status, headers=merge)).json()
    assert (now["spec"]["replicas"], now["status"]) == (4, {"replicas": 4})
    assert (await api.get(f"{DEPLOYMENTS}/web/nothing")).status_code == 404
    refused = await api.patch(f"{DEPLOYMENTS}/web/scale", content=b'{"spec":{"replicas":-1}}', headers=merge)
    assert refused.status_code == 422


async def test_patches_of_unknown_kinds_are_refused(api: httpx.AsyncClient, store: ObjectStore) -> None:
    """415, naming the kinds there are."""
    store.create(CONFIG_MAP, {"metadata": {"name": "settings"}})
    answer = await api.patch(f"{CONFIG_MAPS}/settings", content=b"{}", headers={"Content-Type": "application/json"})
    assert answer.status_code == 415
    assert "application/merge-patch+json" in answer.json()["message"]


async def test_unknown_fields_are_refused_warned_of_or_let_pass(api: httpx.AsyncClient, deployment: Maker) -> None:
    """As fieldValidation says; in no case are they kept."""
    wrong = deployment(replica=2)
    strict = await api.post(DEPLOYMENTS, params={"fieldValidation": "Strict"}, json=wrong)
    assert strict.json()["message"].endswith('strict decoding error: unknown field "spec.replica"')
    warned = await api.post(DEPLOYMENTS, params={"dryRun": "All"}, json=wrong)
    assert warned.headers["warning"] == '299 - "unknown field \\"spec.replica\\""'
    ignored = await api.post(DEPLOYMENTS, params={"fieldValidation": "Ignore"}, json=wrong)
    assert "warning" not in ignored.headers
    assert "replica" not in ignored.json()["spec"]


async def test_pods_logs_are_told_apart(api: httpx.AsyncClient, store: ObjectStore) -> None:
    """Without a machine there are none, and the API says so; a container that is not there is named."""
    containers = [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]
    store.create(POD, {"metadata": {"name": "web"}, "spec": {"containers": containers}})
    assert "without pods" in (await api.get(f"{PODS}/web/log")).json()["message"]
    assert "has no exec" in (await api.post(f"{PODS}/web/exec")).json()["message"]


async def test_rights_can_be_asked_for(api: httpx.AsyncClient) -> None:
    """The one user may do everything."""
    question = {"spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}}
    answer = await api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=question)
    assert answer.json()["status"]["allowed"] is True


async def test_events_have_two_forms(api: httpx.AsyncClient) -> None:
    """Written in the newer form, read in both."""
    event = {
        "metadata": {"name": "e"},
        "eventTime": "2026-11-23T12:00:00.000000Z",
        "reason": "Tried",
        "note": "it works",
        "regarding": {"kind": "Pod", "name": "web"},
    }
    await api.post("/apis/events.k8s.io/v1/namespaces/default/events", json=event)
    old = (await api.get("/api/v1/namespaces/default/events/e")).json()
    assert (old["message"], old["involvedObject"]["name"]) == ("it works", "web")
    new = (await api.get("/apis/events.k8s.io/v1/namespaces/default/events")).json()["items"][0]
    assert (new["note"], new["kind"], new["apiVersion"]) == ("it works", "Event", "events.k8s.io/v1")


async def test_deletion_follows_its_options(api: httpx.AsyncClient, store: ObjectStore, deployment: Maker) -> None:
    """Propagation and preconditions come in the body or the query."""
    made = (await api.post(DEPLOYMENTS, json=deployment())).json()
    template = made["spec"]["template"]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": made["metadata"]["uid"]}
    store.create(
        REPLICA_SET,
        {
            "metadata": {"name": "web-1", "ownerReferences": [reference]},
            "spec": {"selector": made["spec"]["selector"], "template": template},
        },
    )
    wrong = {"preconditions": {"uid": "other"}}
    assert (await api.request("DELETE", f"{DEPLOYMENTS}/web", json=wrong)).status_code == 409
    nonsense = {"propagationPolicy": "Sideways"}
    assert (await api.request("DELETE", f"{DEPLOYMENTS}/web", json=nonsense)).status_code == 400
    await api.request("DELETE", f"{DEPLOYMENTS}/web", params={"propagationPolicy": "Orphan"})
    assert "ownerReferences" not in store.get(REPLICA_SET, "default", "web-1")["metadata"]


async def test_collections_are_deleted_by_selector(api: httpx.AsyncClient, store: ObjectStore) -> None:
    """Only what matches goes."""
    for name, color in (("a", "red"), ("b", "blue")):
        store.create(CONFIG_MAP, {"metadata": {"name": name, "labels": {"color": color}}})
    await api.request("DELETE", CONFIG_MAPS, params={"labelSelector": "color=red"})
    assert [obj["metadata"]["name"] for obj in store.list(CONFIG_MAP)] == ["b"]


async def test_namespaces_that_are_needed_stay(api: httpx.AsyncClient) -> None:
    """default cannot be deleted."""
    answer = await api.delete("/api/v1/namespaces/default")
    assert answer.json()["message"] == 'namespaces "default" is forbidden: this namespace may not be deleted'


@asynccontextmanager
async def watching(api: httpx.AsyncClient, path: str, **query: str) -> AsyncIterator[Callable[[], Any]]:
    """Watch a collection, and give a function that returns the next event, or None after the last."""
    headers = TABLE if query.pop("table", "") else {}
    send, receive = trio.open_memory_channel[str](100)

    async def read(*, task_status: trio.TaskStatus[None]) -> None:
        async with send, api.stream("GET", path, params={"watch": "1", **query}, headers=headers) as response:
            assert response.status_code == 200
            task_status.started()
            async for line in response.aiter_lines():
                await send.send(line)

    async def following() -> Any:
        with trio.fail_after(5):
            try:
                return json.loads(await receive.receive())
            except trio.EndOfChannel:
                return None

    async with receive, trio.open_nursery() as nursery:
        await nursery.start(read)
        yield following
        nursery.cancel_scope.cancel()


async def test_a_watch_streams_changes(api: httpx.AsyncClient, store: ObjectStore) -> None:
    """From the version of a list on, line by line."""
    version = (await api.get(CONFIG_MAPS)).json()["metadata"]["resourceVersion"]
    async with watching(api, CONFIG_MAPS, resourceVersion=version, timeoutSeconds="1") as following:
        store.create(CONFIG_MAP, {"metadata": {"name": "a"}})
        added = await following()
        assert (added["type"], added["object"]["metadata"]["name"]) == ("ADDED", "a")
        store.delete(CONFIG_MAP, "default", "a")
        assert (await following())["type"] == "DELETED"
        assert await following() is None


async def test_a_watch_can_begin_with_what_is_there(api: httpx.AsyncClient, store: ObjectStore) -> None:
    """Streamed lists end with a bookmark that says so."""
    store.create(CONFIG_MAP, {"metadata": {"name": "a"}})
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "1"}
    async with watching(api, CONFIG_MAPS, **query) as following:
        assert (await following())["type"] == "ADDED"
        mark = await following()
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_watched_tables_name_their_columns_once(api: httpx.AsyncClient, store: ObjectStore) -> None:
    """The first event has the column definitions, the others only rows."""
    store.create(CONFIG_MAP, {"metadata": {"name": "a"}})
    async with watching(api, CONFIG_MAPS, table="yes", timeoutSeconds="1") as following:
        first = (await following())["object"]
        assert [column["name"] for column in first["columnDefinitions"]] == ["Name", "Data", "Age"]
        assert first["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
        store.modify(CONFIG_MAP, "default", "a", lambda obj: obj.update(data={"x": "y"}))
        second = (await following())["object"]
        assert second["columnDefinitions"] is None
        assert second["rows"][0]["cells"][:2] == ["a", 1]


async def test_a_watch_from_the_far_past_is_told_to_list_again(api: httpx.AsyncClient, store: ObjectStore) -> None:
    """An ERROR event with status 410 ends it."""
    store.create(CONFIG_MAP, {"metadata": {"name": "a"}})
    for number in range(2 * KEPT_EVENTS):
        store.update(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "default"}, "data": {"n": str(number)}})
    async with watching(api, CONFIG_MAPS, resourceVersion="1") as following:
        error = await following()
        assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_a_client_that_leaves_ends_its_watch(api: httpx.AsyncClient, store: ObjectStore) -> None:
    """The server goes on serving others."""
    for _ in range(20):
        async with watching(api, CONFIG_MAPS):
            pass
    assert (await api.get(CONFIG_MAPS)).status_code == 200
