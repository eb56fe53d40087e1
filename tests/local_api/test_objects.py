"""The object store: versions, finalizers, owners, namespaces and watches."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
import trio.testing

from vanadium_node.local.api.expiry import expire_events
from vanadium_node.local.api.history import History
from vanadium_node.local.api.kinds import CONFIG_MAP, DEPLOYMENT, EVENT, NAMESPACE, POD, REPLICA_SET
from vanadium_node.local.api.objects import ApiError, Event, EventType, Object, ObjectStore, copied
from vanadium_node.local.api.selectors import FieldSelector, LabelSelector

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def named(name: str, namespace: str | None = "default", **rest: Any) -> Object:
    """Return an object with a name and whatever else is given."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {}) | rest.pop("metadata", {})
    return {"metadata": metadata, **rest}


def owned_by(owner: Object, *, blocks: bool = True) -> dict[str, Any]:
    """Return metadata that names an owner."""
    reference = {"kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    return {"ownerReferences": [reference | {"blockOwnerDeletion": blocks, "controller": True}]}


@pytest.fixture
def store() -> ObjectStore:
    """Return an empty store at noon, with the namespace default."""
    made = ObjectStore(now=lambda: NOON)
    made.create(NAMESPACE, named("default", None))
    return made


def test_create_fills_in_what_only_the_server_knows(store: ObjectStore) -> None:
    """A new object has a uid, a version, a creation time and, where the kind has one, a generation."""
    made = store.create(DEPLOYMENT, named("web", spec={"replicas": 1}))
    assert made["apiVersion"] == "apps/v1"
    assert made["metadata"]["creationTimestamp"] == "2026-11-23T12:00:00Z"
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["resourceVersion"] == store.resource_version
    assert store.get(DEPLOYMENT, "default", "web") is made


def test_create_twice_is_refused(store: ObjectStore) -> None:
    """A name is taken once, and the refusal says so in the API's words."""
    store.create(CONFIG_MAP, named("settings"))
    with pytest.raises(ApiError, match='configmaps "settings" already exists') as refusal:
        store.create(CONFIG_MAP, named("settings"))
    assert (refusal.value.status, refusal.value.reason) == (409, "AlreadyExists")


def test_generated_names_differ(store: ObjectStore) -> None:
    """Names made from a prefix have five random characters behind it."""
    names = {store.create(POD, {"metadata": {"generateName": "web-"}})["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


def test_an_object_without_a_name_is_invalid(store: ObjectStore) -> None:
    """Neither a name nor a prefix: 422, naming the field."""
    with pytest.raises(ApiError, match=r"metadata\.name: Required value: name or generateName is required"):
        store.create(POD, {"metadata": {}})


def test_nothing_is_made_in_a_namespace_that_is_not_there(store: ObjectStore) -> None:
    """The missing namespace is named."""
    with pytest.raises(ApiError, match='namespaces "nowhere" not found'):
        store.create(POD, named("web", "nowhere"))


def test_update_wants_the_version_it_was_based_on(store: ObjectStore) -> None:
    """Of two writers that read the same version, the second gets a conflict."""
    read: Object = copied(store.create(CONFIG_MAP, named("settings", data={"a": "1"})))
    store.update(CONFIG_MAP, {**read, "data": {"a": "2"}})
    with pytest.raises(ApiError, match="the object has been modified") as refusal:
        store.update(CONFIG_MAP, {**read, "data": {"a": "3"}})
    assert refusal.value.status == 409


def test_update_that_changes_nothing_makes_no_version(store: ObjectStore) -> None:
    """Writing the same again wakes no watcher."""
    made = store.create(CONFIG_MAP, named("settings", data={"a": "1"}))
    assert store.update(CONFIG_MAP, made)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_status_and_the_rest_are_written_apart(store: ObjectStore) -> None:
    """An update leaves the status, a status update leaves the rest; only the former is a new generation."""
    store.create(DEPLOYMENT, named("web", spec={"replicas": 1}))
    store.update_status(DEPLOYMENT, named("web", spec={"replicas": 9}, status={"readyReplicas": 1}))
    now = store.update(DEPLOYMENT, named("web", spec={"replicas": 2}, status={}))
    assert (now["spec"], now["status"]) == ({"replicas": 2}, {"readyReplicas": 1})
    assert now["metadata"]["generation"] == 2


def test_selectors_choose(store: ObjectStore) -> None:
    """Lists follow label and field selectors, and are in order."""
    for name, color in (("c", "red"), ("a", "blue"), ("b", "red")):
        store.create(POD, named(name, metadata={"labels": {"color": color}}, status={"phase": "Running"}))
    red = store.list(POD, None, LabelSelector.parse("color=red"))
    assert [pod["metadata"]["name"] for pod in red] == ["b", "c"]
    assert len(store.list(POD, "default", fields=FieldSelector.parse("metadata.name!=a"))) == 2
    assert store.list(POD, "elsewhere") == ()


def test_a_pod_on_a_node_ends_when_the_kubelet_says_so(store: ObjectStore) -> None:
    """It is marked with its grace period first; grace 0 removes it."""
    store.create(POD, named("web", spec={"nodeName": "here", "terminationGracePeriodSeconds": 5}))
    marked = store.delete(POD, "default", "web")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 5
    assert marked["metadata"]["deletionTimestamp"] == "2026-11-23T12:00:05Z"
    assert store.delete(POD, "default", "web", grace_seconds=60)["metadata"]["deletionGracePeriodSeconds"] == 5
    store.delete(POD, "default", "web", grace_seconds=0)
    assert store.find(POD, "default", "web") is None


def test_a_pod_without_a_node_ends_at_once(store: ObjectStore) -> None:
    """Nobody has to stop what never started."""
    store.create(POD, named("web", spec={}))
    store.delete(POD, "default", "web")
    assert store.list(POD) == ()


def test_finalizers_hold_an_object(store: ObjectStore) -> None:
    """It stays, marked, until its last finalizer is taken out."""
    store.create(CONFIG_MAP, named("held", metadata={"finalizers": ["example.com/wait"]}))
    assert "deletionTimestamp" in store.delete(CONFIG_MAP, "default", "held")["metadata"]
    store.modify(CONFIG_MAP, "default", "held", lambda obj: obj["metadata"].pop("finalizers"))
    assert store.find(CONFIG_MAP, "default", "held") is None


def family(store: ObjectStore) -> None:
    """Make a deployment that owns a replica set that owns a pod on a node."""
    web = store.create(DEPLOYMENT, named("web", spec={}))
    replicas = store.create(REPLICA_SET, named("web-1", spec={}, metadata=owned_by(web)))
    store.create(POD, named("web-1-x", spec={"nodeName": "here"}, metadata=owned_by(replicas)))


def test_background_deletion_takes_what_is_owned(store: ObjectStore) -> None:
    """The owners go at once, the pod is marked."""
    family(store)
    store.delete(DEPLOYMENT, "default", "web")
    assert not store.list(DEPLOYMENT)
    assert not store.list(REPLICA_SET)
    assert "deletionTimestamp" in store.get(POD, "default", "web-1-x")["metadata"]


def test_foreground_deletion_waits_for_what_is_owned(store: ObjectStore) -> None:
    """The owners stay until the pod has ended."""
    family(store)
    store.delete(DEPLOYMENT, "default", "web", propagation="Foreground")
    assert store.get(DEPLOYMENT, "default", "web")["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert len(store.list(REPLICA_SET)) == 1
    store.delete(POD, "default", "web-1-x", grace_seconds=0)
    assert not store.list(DEPLOYMENT)
    assert not store.list(REPLICA_SET)


def test_orphans_stay(store: ObjectStore) -> None:
    """With Orphan, what was owned lives on and names no owner."""
    family(store)
    store.delete(DEPLOYMENT, "default", "web", propagation="Orphan")
    assert "ownerReferences" not in store.get(REPLICA_SET, "default", "web-1")["metadata"]
    assert "deletionTimestamp" not in store.get(POD, "default", "web-1-x")["metadata"]


def test_an_object_whose_owner_is_gone_already_goes_too(store: ObjectStore) -> None:
    """A controller that was late leaves no orphan."""
    gone = store.create(REPLICA_SET, named("old", spec={}))
    store.delete(REPLICA_SET, "default", "old")
    store.create(POD, named("late", spec={}, metadata=owned_by(gone)))
    assert store.list(POD) == ()


def test_a_namespace_ends_when_it_is_empty(store: ObjectStore) -> None:
    """It is Terminating while a pod in it ends, and takes in nothing new."""
    store.create(NAMESPACE, named("shop", None))
    store.create(CONFIG_MAP, named("settings", "shop"))
    store.create(POD, named("web", "shop", spec={"nodeName": "here"}))
    assert store.delete(NAMESPACE, None, "shop")["status"]["phase"] == "Terminating"
    assert store.list(CONFIG_MAP, "shop") == ()
    with pytest.raises(ApiError, match="because it is being terminated"):
        store.create(CONFIG_MAP, named("more", "shop"))
    store.delete(POD, "shop", "web", grace_seconds=0)
    assert store.find(NAMESPACE, None, "shop") is None


def test_an_empty_namespace_ends_at_once(store: ObjectStore) -> None:
    """There is nothing to wait for."""
    store.create(NAMESPACE, named("shop", None))
    store.delete(NAMESPACE, None, "shop")
    assert store.find(NAMESPACE, None, "shop") is None


def test_deletion_of_another_object_of_that_name_is_refused(store: ObjectStore) -> None:
    """A uid given as a precondition must be the object's."""
    store.create(CONFIG_MAP, named("settings"))
    with pytest.raises(ApiError, match="UID in precondition: other"):
        store.delete(CONFIG_MAP, "default", "settings", uid="other")


async def take(events: AsyncIterator[Event], count: int) -> list[tuple[str, str]]:
    """Return the type and name of the next events."""
    with trio.fail_after(5):
        found = [await anext(events) for _ in range(count)]
    return [(event.type, event.object["metadata"]["name"]) for event in found]


async def test_watch_shows_what_is_there_and_what_comes(store: ObjectStore) -> None:
    """Without a version: the objects that are there, then their changes."""
    store.create(CONFIG_MAP, named("a"))
    async with aclosing(store.watch(CONFIG_MAP)) as events:
        assert await take(events, 1) == [(EventType.ADDED, "a")]
        store.create(CONFIG_MAP, named("b"))
        store.modify(CONFIG_MAP, "default", "a", lambda obj: obj.update(data={"x": "y"}))
        store.delete(CONFIG_MAP, "default", "b")
        assert await take(events, 3) == [
            (EventType.ADDED, "b"),
            (EventType.MODIFIED, "a"),
            (EventType.DELETED, "b"),
        ]


async def test_watch_goes_on_from_a_version(store: ObjectStore) -> None:
    """Nothing that happened after the list is missed."""
    version = store.resource_version
    store.create(CONFIG_MAP, named("a"))
    async with aclosing(store.watch(CONFIG_MAP, None, version)) as events:
        assert await take(events, 1) == [(EventType.ADDED, "a")]


async def test_an_object_that_leaves_the_selection_is_deleted_to_the_watcher(store: ObjectStore) -> None:
    """And one that enters it is added."""
    red = LabelSelector.parse("color=red")
    store.create(POD, named("web", metadata={"labels": {"color": "red"}}))
    async with aclosing(store.watch(POD, None, store.resource_version, red)) as events:
        store.modify(POD, "default", "web", lambda obj: obj["metadata"].update(labels={"color": "blue"}))
        store.modify(POD, "default", "web", lambda obj: obj["metadata"].update(labels={"color": "red"}))
        assert await take(events, 2) == [(EventType.DELETED, "web"), (EventType.ADDED, "web")]


async def test_a_watch_from_too_long_ago_is_refused(store: ObjectStore) -> None:
    """The history is bounded: 410, list again."""
    store._histories[CONFIG_MAP] = History(kept=2)
    for number in range(10):
        store.create(CONFIG_MAP, named(f"c{number}"))
    with pytest.raises(ApiError, match="too old resource version") as refusal:
        await anext(store.watch(CONFIG_MAP, None, "1"))
    assert refusal.value.status == 410


async def test_events_are_kept_for_an_hour(autojump_clock: trio.testing.MockClock) -> None:
    """What happened since then stays, however long ago it began."""
    clock = [NOON]
    store = ObjectStore(now=lambda: clock[0])
    store.create(NAMESPACE, named("default", None))
    store.create(EVENT, named("old"))
    store.create(EVENT, named("again", lastTimestamp="2026-11-23T12:30:00Z"))
    clock[0] = NOON + timedelta(minutes=80)
    with trio.move_on_after(100):
        await expire_events(store)
    assert [event["metadata"]["name"] for event in store.list(EVENT)] == ["again"]
