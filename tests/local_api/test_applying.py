"""Server-side apply: what appliers want, what they give up, and who else has a say."""

from typing import Any

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.local.api import managed
from vanadium_node.local.api.objects import Object

PATH = "/apis/apps/v1/namespaces/default/deployments/web"
MERGE = {"Content-Type": "application/merge-patch+json"}


def wanted(**spec: Any) -> Object:
    """Return a configuration to apply."""
    container = {"name": "web", "image": "example/web:1"} | spec.pop("container", {})
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template} | spec,
    }


async def applied(
    api: httpx.AsyncClient, config: Object, manager: str = "me", *, force: bool = False, path: str = PATH
) -> httpx.Response:
    """Apply a configuration as a manager."""
    query = {"fieldManager": manager} | ({"force": "true"} if force else {})
    headers = {"Content-Type": "application/apply-patch+yaml"}
    return await api.patch(path, params=query, content=yaml.safe_dump(config), headers=headers)


async def test_apply_makes_and_changes(api: httpx.AsyncClient) -> None:
    """201 the first time; the same again is no change."""
    first = await applied(api, wanted(replicas=2))
    assert (first.status_code, first.json()["spec"]["replicas"]) == (201, 2)
    again = await applied(api, wanted(replicas=2))
    assert (again.status_code, again.json()) == (200, first.json())
    assert (await applied(api, wanted(replicas=3))).json()["spec"]["replicas"] == 3
    (entry,) = first.json()["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("me", "Apply")
    assert entry["fieldsV1"]["f:spec"]["f:replicas"] == {}
    assert 'k:{"name":"web"}' in entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]


async def test_what_an_applier_gives_up_is_removed(api: httpx.AsyncClient) -> None:
    """A variable, a label; what it never applied stays."""
    config = wanted(container={"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]})
    config["metadata"]["labels"] = {"a": "b"}
    await applied(api, config)
    await api.patch(PATH, content=b'{"metadata":{"annotations":{"kept":"yes"}}}', headers=MERGE)
    now = (await applied(api, wanted(container={"env": [{"name": "B", "value": "2"}]}))).json()
    assert now["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "B", "value": "2"}]
    assert "labels" not in now["metadata"]
    assert now["metadata"]["annotations"] == {"kept": "yes"}


async def test_another_managers_field_is_a_conflict(api: httpx.AsyncClient) -> None:
    """The fields and their owner are named; force takes them over."""
    await applied(api, wanted(replicas=2))
    refused = await applied(api, wanted(replicas=5), "other")
    message = refused.json()["message"]
    assert (refused.status_code, refused.json()["reason"]) == (409, "Conflict")
    assert message == 'Apply failed with 1 conflict: conflict with "me": .spec.replicas'
    taken = (await applied(api, wanted(replicas=5), "other", force=True)).json()
    owners = {e["manager"]: e["fieldsV1"]["f:spec"] for e in taken["metadata"]["managedFields"]}
    assert "f:replicas" in owners["other"]
    assert "f:replicas" not in owners["me"]


async def test_what_two_want_alike_is_no_conflict(api: httpx.AsyncClient) -> None:
    """Both own it; it goes when both have given it up."""
    await applied(api, wanted(minReadySeconds=3))
    assert (await applied(api, wanted(minReadySeconds=3), "other")).status_code == 200
    assert (await applied(api, wanted())).json()["spec"]["minReadySeconds"] == 3
    assert "minReadySeconds" not in (await applied(api, wanted(), "other")).json()["spec"]


async def test_a_write_without_apply_takes_ownership(api: httpx.AsyncClient) -> None:
    """Who scaled it owns the replicas: applying another number is a conflict."""
    await applied(api, wanted(replicas=2))
    await api.patch(PATH, params={"fieldManager": "scaler"}, content=b'{"spec":{"replicas":4}}', headers=MERGE)
    refused = await applied(api, wanted(replicas=2))
    assert 'conflict with "scaler" using apps/v1: .spec.replicas' in refused.json()["message"]
    assert (await applied(api, wanted(replicas=4))).status_code == 200


async def test_a_configuration_must_be_an_object(api: httpx.AsyncClient) -> None:
    """Of the kind and name of its path."""
    assert (await applied(api, ["no"])).status_code == 400  # type: ignore[arg-type]
    other = wanted() | {"kind": "ReplicaSet"}
    assert "does not match the expected kind" in (await applied(api, other)).json()["message"]
    named = wanted() | {"metadata": {"name": "other"}}
    assert "does not match the name on the URL" in (await applied(api, named)).json()["message"]


NAMES = st.sampled_from(["a", "b", "c"])
CONTAINERS = st.lists(
    st.fixed_dictionaries({"name": NAMES, "image": st.text(max_size=2)}), max_size=3, unique_by=lambda c: c["name"]
)
OBJECTS = st.fixed_dictionaries(
    {
        "metadata": st.dictionaries(
            st.sampled_from(["labels", "annotations"]), st.dictionaries(NAMES, NAMES, max_size=2)
        )
    },
    optional={
        "spec": st.fixed_dictionaries({}, optional={"containers": CONTAINERS, "args": st.lists(NAMES, max_size=2)})
    },
)


@given(OBJECTS)
def test_field_sets_can_be_written_and_read(obj: Object) -> None:
    """Every path of an object leads to what stands there, and survives its written form."""
    fields = frozenset(path for path, _ in managed.leaves(obj))
    assert frozenset(managed.decode(managed.encode(fields))) == fields
    for path, value in managed.leaves(obj):
        assert managed.at(obj, path) == value


@given(OBJECTS)
def test_removing_every_path_leaves_nothing(obj: Object) -> None:
    """What an applier owned alone goes without a rest."""
    rest: Any = obj
    for path in sorted((p for p, _ in managed.leaves(obj)), key=len, reverse=True):
        if rest is not managed.MISSING:
            rest = managed.removed(rest, path)
    assert rest is managed.MISSING or not list(managed.leaves(rest)) or not any(map(list, rest.values()))


@pytest.mark.parametrize("tree", [None, [], "x", {"f:a": None}, {"f:a": {"f:b": []}}])
def test_field_sets_that_are_none_are_read_as_far_as_they_go(tree: Any) -> None:
    """Clients may write nonsense into managedFields."""
    assert isinstance(list(managed.decode(tree)), list)
