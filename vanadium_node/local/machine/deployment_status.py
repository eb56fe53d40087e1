"""What a deployment says of itself: counts, whether it is available, whether it gets on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from vanadium_node.local.api.kinds import DEPLOYMENT
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore, copied, timestamp
from vanadium_node.local.machine.conditions import condition, drop_condition, set_condition
from vanadium_node.local.machine.recorder import Recorder
from vanadium_node.local.machine.rolling import Bounds

PROGRESS_DEADLINE_SECONDS: Final = 600
NO_DEADLINE: Final = 2**31 - 1
TIMED_OUT: Final = "ProgressDeadlineExceeded"
AVAILABLE: Final = "NewReplicaSetAvailable"
_COUNTS: Final = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
_DATED: Final = ("lastTransitionTime", "lastUpdateTime")


def is_observed(deployment: Object) -> bool:
    """Tell whether the status speaks of the spec as it is."""
    seen = int((deployment.get("status") or {}).get("observedGeneration") or 0)
    return seen >= int(deployment["metadata"].get("generation") or 0)


def is_complete(deployment: Object) -> bool:
    """Tell whether all pods are of the newest revision and available."""
    status, wanted = deployment.get("status") or {}, int(deployment["spec"].get("replicas", 1))
    keys = ("updatedReplicas", "replicas", "availableReplicas")
    return all(int(status.get(key) or 0) == wanted for key in keys)


class Reporter:
    """Writes the status of deployments."""

    def __init__(self, store: ObjectStore, recorder: Recorder) -> None:
        self._store = store
        self._events = recorder

    def report(self, deployment: Object, sets: Sequence[Object], new: Object | None) -> float | None:
        """Write how far a deployment is; return in how many seconds its progress deadline would pass."""
        before = deployment.get("status") or {}
        after = copied(before)
        self._count(deployment, sets, new, after)
        self._judge_availability(deployment, after)
        self._judge_progress(deployment, new, before, after)
        if "ReplicaFailure" in {c["type"] for c in after.get("conditions") or ()} | _failures(sets):
            self._copy_failure(sets, after)
        if after != before:
            self._write(deployment, lambda status: _become(status, after))
        return self._seconds_left(deployment, after) or None

    def made_new(self, deployment: Object, rs: Object) -> None:
        """Say that a new revision has begun."""
        text = f'Created new replica set "{rs["metadata"]["name"]}"'
        self._progress(deployment, "True", "NewReplicaSetCreated", text)

    def found_new(self, deployment: Object, rs: Object) -> None:
        """Say that an old revision is the current one again."""
        text = f'Found new replica set "{rs["metadata"]["name"]}"'
        self._progress(deployment, "True", "FoundNewReplicaSet", text)

    def refused(self, deployment: Object, error: ApiError) -> None:
        """Say that the replica set of a new revision could not be made."""
        self._progress(
            deployment, "False", "ReplicaSetCreateError", f"Failed to create new replica set: {error.message}"
        )
        self._events.warning(deployment, "ReplicaSetCreateError", f"Failed to create new replica set: {error.message}")

    def _count(self, deployment: Object, sets: Sequence[Object], new: Object | None, status: Object) -> None:
        def total(key: str) -> int:
            return sum(int((rs.get("status") or {}).get(key) or 0) for rs in sets)

        wanted_in_sets = sum(int(rs["spec"].get("replicas", 1)) for rs in sets)
        counts = {
            "replicas": total("replicas"),
            "updatedReplicas": int(((new or {}).get("status") or {}).get("replicas") or 0),
            "readyReplicas": total("readyReplicas"),
            "availableReplicas": total("availableReplicas"),
            "unavailableReplicas": max(0, wanted_in_sets - total("availableReplicas")),
        }
        for key in _COUNTS:
            status.pop(key, None)
        status |= {key: count for key, count in counts.items() if count}
        status["observedGeneration"] = deployment["metadata"].get("generation", 1)

    def _judge_availability(self, deployment: Object, status: Object) -> None:
        wanted = int(deployment["spec"].get("replicas", 1))
        enough = int(status.get("availableReplicas") or 0) >= wanted - Bounds.from_deployment(deployment).unavailable
        self._set(
            status,
            "Available",
            "True" if enough else "False",
            "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        )

    def _judge_progress(self, deployment: Object, new: Object | None, before: Object, after: Object) -> None:
        old = condition(before, "Progressing") or {}
        if deployment["spec"].get("paused"):
            if old.get("reason") not in ("DeploymentPaused", TIMED_OUT):
                self._set(after, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
            return
        if old.get("reason") == "DeploymentPaused":
            self._set(after, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed")
        subject = f'Deployment "{deployment["metadata"]["name"]}"'
        if new is not None:
            subject = f'ReplicaSet "{new["metadata"]["name"]}"'
        if new is not None and is_complete({**deployment, "status": after}):
            self._set(after, "Progressing", "True", AVAILABLE, f"{subject} has successfully progressed.")
        elif _has_progressed(before, after) and old.get("reason") != AVAILABLE:
            drop_condition(after, "Progressing")
            self._set(after, "Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.")
            _keep_transition(after, old)
        elif old.get("reason") not in (AVAILABLE, TIMED_OUT) and self._seconds_left(deployment, before) == 0:
            self._set(after, "Progressing", "False", TIMED_OUT, f"{subject} has timed out progressing.")

    def _seconds_left(self, deployment: Object, status: Object) -> float | None:
        progressing = condition(status, "Progressing")
        deadline = int(deployment["spec"].get("progressDeadlineSeconds") or PROGRESS_DEADLINE_SECONDS)
        if progressing is None or progressing["reason"] in (AVAILABLE, TIMED_OUT, "DeploymentPaused"):
            return None
        if deadline == NO_DEADLINE:
            return None
        end = datetime.fromisoformat(progressing["lastUpdateTime"]) + timedelta(seconds=deadline)
        return max(0.0, (end - self._store.now()).total_seconds())

    def _copy_failure(self, sets: Sequence[Object], status: Object) -> None:
        for rs in sets:
            failure = condition(rs.get("status") or {}, "ReplicaFailure")
            if failure is not None:
                self._set(status, "ReplicaFailure", failure["status"], failure["reason"], failure["message"])
                return
        drop_condition(status, "ReplicaFailure")

    def _progress(self, deployment: Object, status: str, reason: str, message: str) -> None:
        self._write(deployment, lambda kept: self._set(kept, "Progressing", status, reason, message))

    def _set(self, status: Object, kind: str, value: str, reason: str, message: str) -> None:
        new = {"type": kind, "status": value, "reason": reason, "message": message}
        set_condition(status, new, timestamp(self._store.now()), dated=_DATED)

    def _write(self, deployment: Object, edit: Callable[[Object], None]) -> None:
        metadata = deployment["metadata"]
        self._store.modify_status(DEPLOYMENT, metadata["namespace"], metadata["name"], edit)


def _become(status: Object, new: Object) -> None:
    status.clear()
    status.update(new)


def _has_progressed(before: Object, after: Object) -> bool:
    """Tell whether more pods are new, ready or available than before, or fewer are old."""

    def count(status: Object, key: str) -> int:
        return int(status.get(key) or 0)

    def old(status: Object) -> int:
        return count(status, "replicas") - count(status, "updatedReplicas")

    grows = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return any(count(after, key) > count(before, key) for key in grows) or old(after) < old(before)


def _keep_transition(status: Object, old: Object) -> None:
    """Leave the time of the transition as it was where only the time of the last news has changed."""
    made = condition(status, "Progressing")
    if made is not None and old.get("status") == made["status"]:
        made["lastTransitionTime"] = old["lastTransitionTime"]


def _failures(sets: Sequence[Object]) -> set[str]:
    return {str(c["type"]) for rs in sets for c in (rs.get("status") or {}).get("conditions") or ()}
