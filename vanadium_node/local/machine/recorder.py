"""Events: what happened to an object, for people who look with `kubectl describe` or `kubectl get events`."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Final

from vanadium_node.local.api.kinds import EVENT
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore, timestamp

NORMAL: Final = "Normal"
WARNING: Final = "Warning"
MAX_MESSAGE: Final = 1024
KEPT_EVENTS: Final = 1000
"""Events that one component keeps: the real cluster forgets them after an hour, this one by number."""


class Recorder:
    """Writes the events of one component. The same event again raises the count of the first."""

    def __init__(self, store: ObjectStore, component: str, host: str = "") -> None:
        self._store = store
        self._source = {"component": component} | ({"host": host} if host else {})
        self._known: dict[tuple[str, ...], str] = {}

    def normal(self, obj: Object, reason: str, message: str, *, path: str = "") -> None:
        """Record that something went as it should; `path` names a part of the object."""
        self._record(obj, NORMAL, reason, message, path)

    def warning(self, obj: Object, reason: str, message: str, *, path: str = "") -> None:
        """Record that something went wrong."""
        self._record(obj, WARNING, reason, message, path)

    def _record(self, obj: Object, kind: str, reason: str, message: str, path: str) -> None:
        metadata, message = obj["metadata"], message[:MAX_MESSAGE]
        namespace = metadata.get("namespace", "default")
        key = (namespace, str(metadata.get("uid")), kind, reason, message, path)
        name = self._known.get(key)
        if name is not None and self._store.find(EVENT, namespace, name) is not None:
            self._store.modify(EVENT, namespace, name, self._again)
            return
        with suppress(ApiError):  # nothing can be written any more in a namespace that ends
            self._known[key] = self._create(obj, namespace, kind, reason, message, path)
            self._forget_oldest()

    def _again(self, event: Object) -> None:
        event["count"] = int(event.get("count", 1)) + 1
        event["lastTimestamp"] = timestamp(self._store.now())

    def _create(self, obj: Object, namespace: str, kind: str, reason: str, message: str, path: str) -> str:
        metadata, now = obj["metadata"], timestamp(self._store.now())
        involved = {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        if "namespace" in metadata:
            involved["namespace"] = metadata["namespace"]
        if path:
            involved["fieldPath"] = path
        event: Object = {
            "metadata": {"name": f"{metadata['name'][:200]}.{secrets.token_hex(8)}", "namespace": namespace},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "eventTime": None,
            "source": dict(self._source),
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
        }
        return str(self._store.create(EVENT, event)["metadata"]["name"])

    def _forget_oldest(self) -> None:
        if len(self._known) <= KEPT_EVENTS:
            return
        oldest = next(iter(self._known))
        name = self._known.pop(oldest)
        with suppress(ApiError):
            self._store.delete(EVENT, oldest[0], name)
