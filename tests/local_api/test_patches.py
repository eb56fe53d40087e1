"""The three kinds of patches, by the examples of their standards and of Kubernetes."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.patches import json_patch, merge_patch
from vanadium_node.local.api.strategic import strategic_merge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_as_in_its_standard(target: Any, patch: Any, result: Any) -> None:
    """The test cases of RFC 7386, appendix A."""
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize(
    ("target", "operation", "result"),
    [
        ({"foo": "bar"}, {"op": "add", "path": "/baz", "value": "q"}, {"foo": "bar", "baz": "q"}),
        ({"foo": ["bar"]}, {"op": "add", "path": "/foo/0", "value": "q"}, {"foo": ["q", "bar"]}),
        ({"foo": ["bar"]}, {"op": "add", "path": "/foo/-", "value": ["a"]}, {"foo": ["bar", ["a"]]}),
        ({"foo": ["a", "b"]}, {"op": "remove", "path": "/foo/0"}, {"foo": ["b"]}),
        ({"foo": "bar"}, {"op": "replace", "path": "/foo", "value": 1}, {"foo": 1}),
        ({"a": {"b": 1}, "c": {}}, {"op": "move", "from": "/a/b", "path": "/c/d"}, {"a": {}, "c": {"d": 1}}),
        ({"a": {"b": 1}}, {"op": "copy", "from": "/a", "path": "/c"}, {"a": {"b": 1}, "c": {"b": 1}}),
        ({"/": 9, "~1": 10}, {"op": "test", "path": "/~01", "value": 10}, {"/": 9, "~1": 10}),
        ({"a/b": 1}, {"op": "remove", "path": "/a~1b"}, {}),
    ],
)
def test_json_patch_as_in_its_standard(target: Any, operation: Any, result: Any) -> None:
    """The examples of RFC 6902, appendix A, and of RFC 6901's escapes."""
    assert json_patch(target, [operation]) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/nothing"},
        {"op": "replace", "path": "/nothing", "value": 1},
        {"op": "add", "path": "/a/b/c", "value": 1},
        {"op": "add", "path": "/list/5", "value": 1},
        {"op": "remove", "path": "/list/01"},
        {"op": "test", "path": "/a", "value": "other"},
        {"op": "add", "path": "no-pointer", "value": 1},
        {"op": "add", "path": "/a"},
        {"op": "invent", "path": "/a"},
        "no operation",
    ],
)
def test_json_patch_that_does_not_fit_is_refused(operation: Any) -> None:
    """Nothing is half done, and the target stays as it was."""
    target = {"a": 1, "list": [1]}
    with pytest.raises(ApiError):
        json_patch(target, [operation])
    assert target == {"a": 1, "list": [1]}


@given(JSON, JSON)
def test_merge_patch_of_anything_is_idempotent(target: Any, patch: Any) -> None:
    """Merging twice is merging once."""
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=3), st.dictionaries(st.text(max_size=8), JSON, max_size=3))
def test_strategic_merge_of_anything_answers_or_refuses(target: Any, patch: Any) -> None:
    """No patch of a client makes the server fail."""
    with suppress(ApiError):
        strategic_merge(target, patch)


def pod(*containers: Any, **rest: Any) -> dict[str, Any]:
    """Return a pod's skeleton."""
    return {"spec": {"containers": list(containers), **rest}}


def test_containers_are_merged_by_name() -> None:
    """The named one changes, the others and their order stay, a new one comes last."""
    target = pod({"name": "a", "image": "1"}, {"name": "b", "image": "1", "env": [{"name": "X", "value": "1"}]})
    patch = pod({"name": "b", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c", "image": "3"})
    assert strategic_merge(target, patch) == pod(
        {"name": "a", "image": "1"},
        {"name": "b", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "c", "image": "3"},
    )


def test_an_element_is_deleted_by_a_directive() -> None:
    """As kubectl apply writes it for a container that is gone from the file."""
    target = pod({"name": "a"}, {"name": "b"})
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "b"}],
            "containers": [{"$patch": "delete", "name": "a"}],
        }
    }
    assert strategic_merge(target, patch) == pod({"name": "b"})


def test_a_list_is_replaced_by_a_directive() -> None:
    """`$patch: replace` in a list drops what was there."""
    patch = pod({"$patch": "replace"}, {"name": "c"})
    assert strategic_merge(pod({"name": "a"}, {"name": "b"}), patch) == pod({"name": "c"})


def test_the_order_of_elements_can_be_set() -> None:
    """Elements that the order names follow it; others keep their place before the next one they stood before."""
    target = pod({"name": "a"}, {"name": "server"}, {"name": "b"})
    patch = {
        "spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "x": 1}]}
    }
    names = [c["name"] for c in strategic_merge(target, patch)["spec"]["containers"]]
    assert names.index("b") < names.index("a")
    assert sorted(names) == ["a", "b", "server"]


def test_primitive_lists_are_merged_and_deleted_from() -> None:
    """Finalizers are a set; other lists of plain values are replaced."""
    target = {"metadata": {"finalizers": ["a", "b"]}, "spec": {"args": ["1", "2"]}}
    patch = {
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]},
        "spec": {"args": ["3"]},
    }
    assert strategic_merge(target, patch) == {"metadata": {"finalizers": ["b", "c"]}, "spec": {"args": ["3"]}}


def test_kept_keys_drop_the_others() -> None:
    """`$retainKeys` is how a strategy changes its type."""
    target = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_merge(target, patch) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_maps_are_replaced_and_emptied_by_directives() -> None:
    """`$patch: replace` and `$patch: delete` in a map; null removes a field."""
    target = {"a": {"x": 1}, "b": {"y": 2}, "c": 3}
    patch = {"a": {"$patch": "replace", "z": 1}, "b": {"$patch": "delete"}, "c": None}
    assert strategic_merge(target, patch) == {"a": {"z": 1}, "b": {}}


def test_ports_are_merged_by_the_key_of_their_place() -> None:
    """A container's ports by containerPort, a service's by port, an endpoint's not at all."""
    container = strategic_merge(
        pod({"name": "a", "ports": [{"containerPort": 1, "name": "x"}]}),
        pod({"name": "a", "ports": [{"containerPort": 1, "protocol": "TCP"}]}),
    )
    assert container["spec"]["containers"][0]["ports"] == [{"containerPort": 1, "name": "x", "protocol": "TCP"}]
    service = strategic_merge({"spec": {"ports": [{"port": 1, "a": 1}]}}, {"spec": {"ports": [{"port": 1, "b": 2}]}})
    assert service["spec"]["ports"] == [{"port": 1, "a": 1, "b": 2}]
    endpoints = strategic_merge({"subsets": [{"ports": [1]}]}, {"subsets": [{"ports": [2]}]})
    assert endpoints == {"subsets": [{"ports": [2]}]}


def test_an_element_without_its_key_is_refused() -> None:
    """The message names the key."""
    with pytest.raises(ApiError, match="declared merge key: name"):
        strategic_merge(pod(), pod({"image": "x"}))
