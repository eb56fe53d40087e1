"""Deletion: marks, finalizers, what becomes of the objects that a deleted one owned, and the end of namespaces.

What the real cluster's garbage collector and namespace controller do in the background happens here at once, in the same
call, so that no half-collected state can be seen.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from vanadium_node.local.api.kinds import NAMESPACE, ResourceType

if TYPE_CHECKING:
    from vanadium_node.local.api.objects import Object, ObjectStore

FOREGROUND: Final = "foregroundDeletion"
"""The finalizer of an object that waits for the objects it owns to be deleted first."""

Key: TypeAlias = tuple[ResourceType, str | None, str]
"""Where an object is: its kind, namespace (None for cluster-wide kinds) and name."""


class Ownership:
    """Who owns whom, by uid, so that dependents are found without looking at every object."""

    def __init__(self) -> None:
        self._owned: dict[str, set[Key]] = {}
        self._living: dict[str, Key] = {}

    def replace(self, resource: ResourceType, old: Object | None, new: Object) -> None:
        """Take the references of an object's new version instead of those of the old one."""
        if old is None:
            self._living[new["metadata"]["uid"]] = _key(resource, new)
        elif old["metadata"].get("ownerReferences") == new["metadata"].get("ownerReferences"):
            return
        else:
            self._discard(resource, old)
        for uid in _owner_uids(new):
            self._owned.setdefault(uid, set()).add(_key(resource, new))

    def forget(self, resource: ResourceType, obj: Object) -> None:
        """Take out an object that is no more."""
        self._living.pop(obj["metadata"]["uid"], None)
        self._discard(resource, obj)

    def owned_by(self, uid: str) -> tuple[Key, ...]:
        """Return the objects that name this uid as an owner."""
        return tuple(sorted(self._owned.get(uid, ()), key=lambda key: (key[0].qualified, key[1] or "", key[2])))

    def find(self, uid: str) -> Key | None:
        """Return where the living object of that uid is."""
        return self._living.get(uid)

    def has_living_owner(self, obj: Object) -> bool:
        """Tell whether one of the object's owners is there; True for an object without owners."""
        owners = _owner_uids(obj)
        return not owners or any(uid in self._living for uid in owners)

    def _discard(self, resource: ResourceType, obj: Object) -> None:
        for uid in _owner_uids(obj):
            owned = self._owned.get(uid, set())
            owned.discard(_key(resource, obj))
            if not owned:
                self._owned.pop(uid, None)


def is_being_deleted(obj: Object) -> bool:
    """Tell whether the object only waits for its end."""
    return "deletionTimestamp" in obj["metadata"]


def is_held(store: ObjectStore, resource: ResourceType, obj: Object) -> bool:
    """Tell whether something keeps an object there that is being deleted: its grace, a finalizer, a namespace's content."""
    metadata = obj["metadata"]
    if metadata.get("finalizers") or metadata.get("deletionGracePeriodSeconds", 0) > 0:
        return True
    return resource is NAMESPACE and next(store.kinds_in(metadata["name"]), None) is not None


def mark(store: ObjectStore, resource: ResourceType, doomed: Object, grace: int, propagation: str) -> None:
    """Write into a copy of an object that it is being deleted, and how."""
    metadata = doomed["metadata"]
    if not is_being_deleted(doomed) or grace < metadata.get("deletionGracePeriodSeconds", 0):
        end = store.now() + timedelta(seconds=grace)
        metadata["deletionTimestamp"] = end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata["deletionGracePeriodSeconds"] = grace
    finalizers: list[str] = [name for name in metadata.get("finalizers", ()) if name != FOREGROUND]
    if propagation == "Orphan":
        for key in store.ownership.owned_by(metadata["uid"]):
            _drop_owner(store, key, metadata["uid"])
    elif propagation == "Foreground" and _is_blocked(store, metadata["uid"]):
        finalizers.append(FOREGROUND)
    _set_or_drop(metadata, "finalizers", finalizers)
    if resource is NAMESPACE:
        doomed["status"] = {**doomed.get("status", {}), "phase": "Terminating"}


def spread(store: ObjectStore, resource: ResourceType, marked: Object) -> None:
    """Delete what must be gone before an object that was marked can go."""
    metadata = marked["metadata"]
    if resource is NAMESPACE:
        for kind, obj in list(store.kinds_in(metadata["name"])):
            _delete_if_there(store, _key(kind, obj))
    elif FOREGROUND in metadata.get("finalizers", ()):
        for key in store.ownership.owned_by(metadata["uid"]):
            _delete_if_there(store, key, "Foreground")


def collect(store: ObjectStore, resource: ResourceType, gone: Object) -> None:
    """Follow the end of an object: delete what only it owned, release the owners and the namespace that waited for it."""
    metadata = gone["metadata"]
    for key in store.ownership.owned_by(metadata["uid"]):
        dependent = store.find(*key)
        if dependent is not None and store.ownership.has_living_owner(dependent):
            _drop_owner(store, key, metadata["uid"])
        else:
            _delete_if_there(store, key)
    for uid in _owner_uids(gone):
        _release(store, uid)
    if resource.namespaced:
        _end_namespace(store, metadata["namespace"])


def _release(store: ObjectStore, uid: str) -> None:
    """Let an owner go that waited for the last object it owned."""
    key = store.ownership.find(uid)
    owner = store.find(*key) if key else None
    if key is None or owner is None or FOREGROUND not in owner["metadata"].get("finalizers", ()):
        return
    if not _is_blocked(store, uid):
        rest = [name for name in owner["metadata"]["finalizers"] if name != FOREGROUND]
        store.modify(*key, lambda obj: _set_or_drop(obj["metadata"], "finalizers", rest))


def _end_namespace(store: ObjectStore, name: str) -> None:
    namespace = store.find(NAMESPACE, None, name)
    if namespace is not None and is_being_deleted(namespace) and not is_held(store, NAMESPACE, namespace):
        store.remove(NAMESPACE, namespace)


def _delete_if_there(store: ObjectStore, key: Key, propagation: str = "Background") -> None:
    obj = store.find(*key)
    if obj is not None and not (is_being_deleted(obj) and is_held(store, key[0], obj)):
        store.delete(*key, propagation=propagation)


def _drop_owner(store: ObjectStore, key: Key, uid: str) -> None:
    """Take one owner out of an object's references."""

    def edit(obj: Object) -> None:
        kept = [reference for reference in obj["metadata"].get("ownerReferences", ()) if reference.get("uid") != uid]
        _set_or_drop(obj["metadata"], "ownerReferences", kept)

    store.modify(*key, edit)


def _is_blocked(store: ObjectStore, uid: str) -> bool:
    """Tell whether an owned object asks its owner to wait for it."""
    for key in store.ownership.owned_by(uid):
        obj = store.find(*key)
        references = obj["metadata"].get("ownerReferences", ()) if obj else ()
        if any(r.get("uid") == uid and r.get("blockOwnerDeletion") for r in references):
            return True
    return False


def _set_or_drop(metadata: Object, key: str, values: list[str]) -> None:
    if values:
        metadata[key] = values
    else:
        metadata.pop(key, None)


def _key(resource: ResourceType, obj: Object) -> Key:
    metadata = obj["metadata"]
    return resource, metadata.get("namespace"), metadata["name"]


def _owner_uids(obj: Object) -> tuple[str, ...]:
    return tuple(str(reference.get("uid", "")) for reference in obj["metadata"].get("ownerReferences") or ())
