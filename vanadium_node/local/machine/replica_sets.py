"""The replica set controller: so many pods of one template, no more and no fewer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from vanadium_node.local.api.kinds import POD, REPLICA_SET
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore, copied, timestamp
from vanadium_node.local.machine.conditions import drop_condition, set_condition
from vanadium_node.local.machine.controllers import Controller, Key, itself, owner_of
from vanadium_node.local.machine.owned import claimed, controller_of
from vanadium_node.local.machine.pods import available_in, from_template, is_active, is_ready, least_wanted_first
from vanadium_node.local.machine.recorder import Recorder

MOST_AT_ONCE: Final = 500
"""Pods made or deleted in one turn, as in the real controller."""


class ReplicaSets:
    """Keeps the number of pods of every replica set."""

    def __init__(self, store: ObjectStore, recorder: Recorder) -> None:
        self._store = store
        self._events = recorder

    def controller(self) -> Controller:
        """Return the controller to run."""
        watches = {REPLICA_SET: itself, POD: self._concerned}
        return Controller(name="replica-set", reconcile=self.reconcile, watches=watches)

    def _concerned(self, pod: Object) -> Iterable[Key]:
        """Say whose turn it is when a pod has changed; anybody may want to adopt an orphan."""
        if controller_of(pod) is not None:
            yield from owner_of("ReplicaSet")(pod)
        else:
            for owner in self._store.list(REPLICA_SET, pod["metadata"]["namespace"]):
                yield from itself(owner)

    def reconcile(self, namespace: str, name: str) -> float | None:
        """Make or delete pods until their number is right, and say so in the status."""
        owner = self._store.find(REPLICA_SET, namespace, name)
        if owner is None:
            return None
        active = [pod for pod in claimed(self._store, owner, POD) if is_active(pod)]
        refusal: ApiError | None = None
        if "deletionTimestamp" not in owner["metadata"]:
            refusal = self._correct(owner, active)
        self._report(owner, refusal)
        if refusal is not None:
            raise refusal
        return self._next_look(owner)

    def _correct(self, owner: Object, active: Sequence[Object]) -> ApiError | None:
        surplus = len(active) - int(owner["spec"].get("replicas", 1))
        if surplus > 0:
            for pod in sorted(active, key=least_wanted_first)[: min(surplus, MOST_AT_ONCE)]:
                self._delete(owner, pod)
        try:
            for _ in range(min(-surplus, MOST_AT_ONCE)):
                pod = self._store.create(POD, from_template(owner))
                self._events.normal(owner, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        except ApiError as error:
            self._events.warning(owner, "FailedCreate", f"Error creating: {error.message}")
            return error
        return None

    def _delete(self, owner: Object, pod: Object) -> None:
        metadata = pod["metadata"]
        with suppress(ApiError):
            self._store.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"])
            self._events.normal(owner, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")

    def _report(self, owner: Object, refusal: ApiError | None) -> None:
        metadata = owner["metadata"]
        pods = [pod for pod in claimed(self._store, owner, POD) if is_active(pod)]
        labels = ((owner["spec"].get("template") or {}).get("metadata") or {}).get("labels") or {}
        waits = [available_in(pod, _min_ready_seconds(owner), self._store.now()) for pod in pods]

        def edit(status: Object) -> None:
            status["replicas"] = len(pods)
            counts = {
                "fullyLabeledReplicas": sum(
                    labels.items() <= (p["metadata"].get("labels") or {}).items() for p in pods
                ),
                "readyReplicas": sum(map(is_ready, pods)),
                "availableReplicas": waits.count(0.0),
            }
            for key, count in counts.items():
                status[key] = count
                if not count:
                    del status[key]
            status["observedGeneration"] = metadata.get("generation", 1)
            if refusal is None:
                drop_condition(status, "ReplicaFailure")
                if not status.get("conditions"):
                    status.pop("conditions", None)
            else:
                failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
                set_condition(status, {**failure, "message": refusal.message}, timestamp(self._store.now()))

        new = copied(owner.get("status") or {})
        edit(new)
        if new != owner.get("status"):
            self._store.modify_status(REPLICA_SET, metadata["namespace"], metadata["name"], edit)

    def _next_look(self, owner: Object) -> float | None:
        """Return when the next pod becomes available by having been ready long enough."""
        pods = [pod for pod in claimed(self._store, owner, POD) if is_active(pod)]
        waits = [available_in(pod, _min_ready_seconds(owner), self._store.now()) for pod in pods]
        return min((wait for wait in waits if wait), default=None)


def _min_ready_seconds(owner: Object) -> int:
    return int(owner["spec"].get("minReadySeconds") or 0)
