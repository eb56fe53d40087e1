"""The object store of the embedded API: every object in memory, one writer, versions, finalizers, watches.

All changes are synchronous calls on the one trio thread, so each is atomic. Objects are plain mappings and belong to the
store once they are in it: whoever reads one must not change it, but change a copy (`copied`) and give that to `update`.
What an object of a kind must look like is not known here: an `Admission` prepares and refuses.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeAlias
from uuid import uuid4

import trio

from vanadium_node.local.api import garbage
from vanadium_node.local.api.errors import ApiError, Cause
from vanadium_node.local.api.history import Change, Event, EventType, History, Scope
from vanadium_node.local.api.kinds import NAMESPACE, POD, RESOURCES, ResourceType
from vanadium_node.local.api.selectors import ANY_FIELDS, EVERYTHING, FieldSelector, LabelSelector

__all__ = ["ApiError", "Event", "EventType", "Object", "ObjectStore", "ResourceType", "copied", "timestamp"]

Object: TypeAlias = dict[str, Any]
"""An object of the API: JSON, as it came. This is the JSON edge, so its values are not typed."""

Stamp: TypeAlias = Callable[[Object, Object | None], None]
"""Marks an object's next version (first argument) after its admission; the second is what it replaces, or None."""

_NAME_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_NOT_A_GENERATION: Final = frozenset({"apiVersion", "kind", "metadata", "status"})
_KEPT_METADATA: Final = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
_MAX_GENERATED_PREFIX: Final = 58


def copied(value: Any) -> Any:
    """Return a deep copy of a JSON value."""
    if isinstance(value, dict):
        return {k: copied(v) for k, v in value.items()}
    if isinstance(value, list):
        return [copied(v) for v in value]
    return value


def timestamp(moment: datetime) -> str:
    """Return a moment as the API writes it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_now() -> datetime:
    """Return the time of the wall clock."""
    return datetime.now(UTC)


class Admission(Protocol):
    """Fills in defaults and refuses what is wrong. `obj` is a private copy that may be changed in place."""

    def creating(self, store: ObjectStore, resource: ResourceType, obj: Object) -> None:
        """Prepare an object that is about to be made, or raise ApiError."""

    def created(self, store: ObjectStore, resource: ResourceType, obj: Object) -> None:
        """Add what belongs to an object that was just made. `obj` is the store's own."""

    def updating(self, store: ObjectStore, resource: ResourceType, obj: Object, old: Object) -> None:
        """Prepare the next version of an object, or raise ApiError."""

    def deleting(self, resource: ResourceType, obj: Object) -> None:
        """Let an object be deleted, or raise ApiError."""


class _AdmitAll:
    """An admission for stores that are used by programs of ours only."""

    def creating(self, store: ObjectStore, resource: ResourceType, obj: Object) -> None:
        """Take it as it is."""

    def created(self, store: ObjectStore, resource: ResourceType, obj: Object) -> None:
        """Add nothing."""

    def updating(self, store: ObjectStore, resource: ResourceType, obj: Object, old: Object) -> None:
        """Take it as it is."""

    def deleting(self, resource: ResourceType, obj: Object) -> None:
        """Let it go."""


class ObjectStore:
    """Every object of the cluster. Namespaces must exist before what is in them."""

    def __init__(self, admission: Admission | None = None, *, now: Callable[[], datetime] = utc_now) -> None:
        self._admission = admission or _AdmitAll()
        self._now = now
        self._version = 1
        self._objects: dict[ResourceType, dict[tuple[str, str], Object]] = {r: {} for r in RESOURCES}
        self._histories: dict[ResourceType, History] = {r: History() for r in RESOURCES}
        self.ownership = garbage.Ownership()

    @property
    def resource_version(self) -> str:
        """Return the version of the newest change."""
        return str(self._version)

    def now(self) -> datetime:
        """Return the time that the store writes into objects."""
        return self._now()

    def find(self, resource: ResourceType, namespace: str | None, name: str) -> Object | None:
        """Return an object, or None. Cluster-wide kinds have no namespace."""
        return self._objects[resource].get((namespace or "", name))

    def get(self, resource: ResourceType, namespace: str | None, name: str) -> Object:
        """Return an object.

        Raises:
            ApiError: there is none of that name (404).
        """
        found = self.find(resource, namespace, name)
        if found is None:
            raise ApiError.not_found(resource, name)
        return found

    def list(
        self,
        resource: ResourceType,
        namespace: str | None = None,
        labels: LabelSelector = EVERYTHING,
        fields: FieldSelector = ANY_FIELDS,
    ) -> tuple[Object, ...]:
        """Return the objects of a namespace (None: of all), ordered by namespace and name."""
        scope = Scope(namespace, labels, fields)
        kept = self._objects[resource]
        return tuple(kept[key] for key in sorted(kept) if scope.includes(kept[key]))

    def create(
        self, resource: ResourceType, obj: Object, *, dry_run: bool = False, stamp: Stamp | None = None
    ) -> Object:
        """Make an object, and return it as it is now.

        Raises:
            ApiError: it is there already (409), its namespace is not (404) or is ending (403), or it is not valid (422).
        """
        made: Object = copied(obj)
        metadata = made.setdefault("metadata", {})
        made["apiVersion"], made["kind"] = resource.api_version, resource.kind
        if metadata.get("resourceVersion"):
            raise ApiError(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        self._name(resource, metadata)
        namespace = self._namespace_of(resource, metadata)
        if self.find(resource, namespace, metadata["name"]) is not None:
            raise ApiError.already_exists(resource, metadata["name"])
        for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            metadata.pop(key, None)
        metadata["uid"] = str(uuid4())
        metadata["creationTimestamp"] = timestamp(self._now())
        if resource.has_generation:
            metadata["generation"] = 1
        self._admission.creating(self, resource, made)
        if stamp is not None:
            stamp(made, None)
        if dry_run:
            return made
        self._store(resource, None, made)
        self._admission.created(self, resource, made)
        if not self.ownership.has_living_owner(made):
            self.delete(resource, namespace, metadata["name"])
        return made

    def update(
        self, resource: ResourceType, obj: Object, *, dry_run: bool = False, stamp: Stamp | None = None
    ) -> Object:
        """Replace an object by a newer version of it, all but its status, and return it as it is now.

        A `metadata.resourceVersion`, where given, must be the current one. The status of a kind with a status path stays.

        Raises:
            ApiError: it is not there (404), has been changed since (409), or is not valid (422).
        """
        old = self._current(resource, obj)
        new: Object = copied(obj)
        if resource.has_status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        return self._replace(resource, old, new, dry_run=dry_run, stamp=stamp)

    def update_status(self, resource: ResourceType, obj: Object, *, dry_run: bool = False) -> Object:
        """Replace an object's status by that of `obj`, nothing else, and return it as it is now.

        Raises:
            ApiError: it is not there (404), or has been changed since (409).
        """
        old = self._current(resource, obj)
        new = {**old, "status": copied(obj.get("status") or {})}
        new["metadata"] = dict(old["metadata"])
        return self._replace(resource, old, new, dry_run=dry_run)

    def modify(
        self, resource: ResourceType, namespace: str | None, name: str, change: Callable[[Object], None]
    ) -> Object:
        """Let `change` edit a copy of an object in place, store all but its status, and return it as it is now."""
        new: Object = copied(self.get(resource, namespace, name))
        change(new)
        return self.update(resource, new)

    def modify_status(
        self, resource: ResourceType, namespace: str | None, name: str, change: Callable[[Object], None]
    ) -> Object:
        """Let `change` edit a copy of an object's status in place, store it, and return the object as it is now."""
        new: Object = copied(self.get(resource, namespace, name))
        change(new.setdefault("status", {}))
        return self.update_status(resource, new)

    def delete(
        self,
        resource: ResourceType,
        namespace: str | None,
        name: str,
        *,
        grace_seconds: int | None = None,
        propagation: str = "Background",
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        """Delete an object, or mark it as being deleted, and return how it is now or last was.

        It stays, with a deletionTimestamp, while it has finalizers, and a pod on a node until the kubelet deletes it with
        `grace_seconds=0`. `propagation` says what becomes of objects that it owns: `Background`, `Foreground` or `Orphan`.

        Raises:
            ApiError: it is not there (404), or is not the one meant (409).
        """
        old = self.get(resource, namespace, name)
        _check_preconditions(resource, old, uid, resource_version)
        self._admission.deleting(resource, old)
        grace = _grace_of(resource, old, grace_seconds)
        doomed: Object = copied(old)
        garbage.mark(self, resource, doomed, grace, propagation)
        if not garbage.is_held(self, resource, doomed):
            return self.remove(resource, doomed)
        marked = self._replace(resource, old, doomed, admit=False)
        garbage.spread(self, resource, marked)
        return self.find(resource, namespace, name) or marked

    def remove(self, resource: ResourceType, obj: Object) -> Object:
        """Take an object out at once, whatever held it, and return how it last was; what it owned follows."""
        metadata = obj["metadata"]
        last = self._objects[resource].pop((metadata.get("namespace", ""), metadata["name"]))
        self._version += 1
        gone = {**obj, "metadata": {**metadata, "resourceVersion": str(self._version)}}
        self.ownership.forget(resource, last)
        self._histories[resource].append(Change(self._version, last, gone, gone=True))
        garbage.collect(self, resource, gone)
        return gone

    async def watch(
        self,
        resource: ResourceType,
        namespace: str | None = None,
        resource_version: str | None = None,
        labels: LabelSelector = EVERYTHING,
        fields: FieldSelector = ANY_FIELDS,
        *,
        seconds: float = math.inf,
        bookmark_seconds: float = math.inf,
    ) -> AsyncGenerator[Event, None]:
        """Yield what happens to the objects of a namespace (None: of all) from a version on, for so many seconds.

        Without a version, or with `"0"`, the objects that are there come first, as ADDED. Where nothing happened for
        `bookmark_seconds`, and at the end, a BOOKMARK tells the version reached.

        Raises:
            ApiError: the version is too long ago, or the watcher too slow (410): list again.
        """
        scope = Scope(namespace, labels, fields)
        history = self._histories[resource]
        position = history.position_after(_parsed_version(resource_version) or self._version)
        if not _parsed_version(resource_version):
            for obj in self.list(resource, namespace, labels, fields):
                yield Event(EventType.ADDED, obj)
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            with trio.move_on_at(min(end, trio.current_time() + bookmark_seconds)) as idle:
                await history.wait_beyond(position)
            if idle.cancelled_caught and bookmark_seconds < math.inf:
                yield Event(EventType.BOOKMARK, {"metadata": {"resourceVersion": self.resource_version}})
            changes = history.read(position)
            position += len(changes)
            for change in changes:
                event = change.seen_in(scope)
                if event is not None:
                    yield event

    def kinds_in(self, namespace: str) -> Iterator[tuple[ResourceType, Object]]:
        """Yield every object in a namespace with its kind."""
        for resource, kept in self._objects.items():
            if resource.namespaced:
                yield from ((resource, obj) for key, obj in list(kept.items()) if key[0] == namespace)

    def _name(self, resource: ResourceType, metadata: Object) -> None:
        if metadata.get("name"):
            return
        prefix = metadata.get("generateName")
        if not prefix:
            raise ApiError.invalid(resource, "", (Cause.required("metadata.name", "name or generateName is required"),))
        suffix = "".join(secrets.choice(_NAME_ALPHABET) for _ in range(5))
        metadata["name"] = prefix[:_MAX_GENERATED_PREFIX] + suffix

    def _namespace_of(self, resource: ResourceType, metadata: Object) -> str | None:
        if not resource.namespaced:
            metadata.pop("namespace", None)
            return None
        name: str = metadata.setdefault("namespace", "default")
        namespace = self.get(NAMESPACE, None, name)
        if namespace["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {name} because it is being terminated"
            cause = Cause(
                field="metadata.namespace",
                reason="NamespaceTerminating",
                message=f"namespace {name} is being terminated",
            )
            raise ApiError.forbidden(resource, metadata["name"], why, (cause,))
        return name

    def _current(self, resource: ResourceType, obj: Object) -> Object:
        """Return the version that `obj` is to replace."""
        metadata = obj["metadata"]
        old = self.get(resource, metadata.get("namespace") if resource.namespaced else None, metadata["name"])
        if metadata.get("uid") and metadata["uid"] != old["metadata"]["uid"]:
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {old['metadata']['uid']}"
            raise ApiError.conflict(resource, metadata["name"], why)
        if metadata.get("resourceVersion") not in (None, "", old["metadata"]["resourceVersion"]):
            raise ApiError.modified(resource, metadata["name"])
        return old

    def _replace(
        self,
        resource: ResourceType,
        old: Object,
        new: Object,
        *,
        dry_run: bool = False,
        admit: bool = True,
        stamp: Stamp | None = None,
    ) -> Object:
        """Store the next version of an object unless nothing changed; remove it when its last finalizer went."""
        new["apiVersion"], new["kind"] = resource.api_version, resource.kind
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if admit:
            _keep(old["metadata"], new["metadata"])
            self._admission.updating(self, resource, new, old)
        if stamp is not None:
            stamp(new, old)
        if resource.has_generation and _is_new_generation(old, new):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if new == old or dry_run:
            return new
        if garbage.is_being_deleted(old) and not garbage.is_held(self, resource, new):
            return self.remove(resource, new)
        return self._store(resource, old, new)

    def _store(self, resource: ResourceType, old: Object | None, new: Object) -> Object:
        metadata = new["metadata"]
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self._objects[resource][metadata.get("namespace", ""), metadata["name"]] = new
        self.ownership.replace(resource, old, new)
        self._histories[resource].append(Change(self._version, old, new, gone=False))
        return new


def _parsed_version(text: str | None) -> int:
    """Return the number in a resourceVersion; 0 for none."""
    try:
        return int(text or "0")
    except ValueError as error:
        message = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise ApiError.bad_request(f"resourceVersion: {message}") from error


def _keep(old: Object, new: Object) -> None:
    """Keep what only the store may write in an object's metadata."""
    for key in _KEPT_METADATA:
        if key in old:
            new[key] = old[key]
        else:
            new.pop(key, None)
    new.pop("selfLink", None)
    if not new.get("managedFields") and old.get("managedFields"):
        new["managedFields"] = old["managedFields"]


def _is_new_generation(old: Object, new: Object) -> bool:
    keys = (old.keys() | new.keys()) - _NOT_A_GENERATION
    marked = garbage.is_being_deleted(new) and not garbage.is_being_deleted(old)
    return marked or any(old.get(key) != new.get(key) for key in keys)


def _grace_of(resource: ResourceType, obj: Object, asked: int | None) -> int:
    """Return the seconds that a deletion waits: only pods that were given to a node and have not ended wait at all."""
    if resource is not POD or not obj.get("spec", {}).get("nodeName"):
        return 0
    if obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    grace: int = obj["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked
    pending: int | None = obj["metadata"].get("deletionGracePeriodSeconds")
    return grace if pending is None else min(grace, pending)


def _check_preconditions(resource: ResourceType, old: Object, uid: str | None, version: str | None) -> None:
    name, metadata = old["metadata"]["name"], old["metadata"]
    if uid is not None and uid != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata['uid']}"
        raise ApiError.conflict(resource, name, why)
    if version is not None and version != metadata["resourceVersion"]:
        raise ApiError.modified(resource, name)
