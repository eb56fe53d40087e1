"""Objects that a controller owns: which are its own, which it may adopt, which it has to let go."""

from __future__ import annotations

from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.api.selectors import LabelSelector


def controller_of(obj: Object) -> Object | None:
    """Return the reference to the object that controls this one."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            found: Object = reference
            return found
    return None


def is_controlled_by(obj: Object, owner: Object) -> bool:
    """Tell whether the owner controls the object."""
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == owner["metadata"]["uid"]


def reference_to(owner: Object) -> Object:
    """Return the reference that makes `owner` the controller of an object."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def claimed(store: ObjectStore, owner: Object, kind: ResourceType) -> tuple[Object, ...]:
    """Return the objects of a kind that belong to `owner`, after adopting orphans that match and releasing what does not."""
    selector = LabelSelector.from_object(owner["spec"].get("selector"))
    ending = "deletionTimestamp" in owner["metadata"]
    found: list[Object] = []
    for obj in store.list(kind, owner["metadata"]["namespace"]):
        matches = selector.matches(obj["metadata"].get("labels") or {})
        if is_controlled_by(obj, owner):
            if matches or ending:
                found.append(obj)
            elif "deletionTimestamp" not in obj["metadata"]:
                _release(store, kind, obj, owner)
        elif matches and not ending and controller_of(obj) is None and "deletionTimestamp" not in obj["metadata"]:
            found.append(_adopt(store, kind, obj, owner))
    return tuple(found)


def _adopt(store: ObjectStore, kind: ResourceType, obj: Object, owner: Object) -> Object:
    def edit(new: Object) -> None:
        new["metadata"]["ownerReferences"] = [*(new["metadata"].get("ownerReferences") or ()), reference_to(owner)]

    return store.modify(kind, obj["metadata"]["namespace"], obj["metadata"]["name"], edit)


def _release(store: ObjectStore, kind: ResourceType, obj: Object, owner: Object) -> None:
    def edit(new: Object) -> None:
        references = new["metadata"].get("ownerReferences") or ()
        new["metadata"]["ownerReferences"] = [r for r in references if r.get("uid") != owner["metadata"]["uid"]]

    store.modify(kind, obj["metadata"]["namespace"], obj["metadata"]["name"], edit)
