"""How far a workload's rollout is, in replicas, with the semantics of `kubectl rollout status`. Pure functions over manifests.

What kubectl has no word for: a Job has got going when its pods run or have succeeded; a Pod, when it is ready or has succeeded; a
CronJob, at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vanadium_node.kube.resources import Manifest, name_of, owner_uid, uid_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rollout is, in replicas. `must_update`: how many have to be new; `has_settled`: what no count tells is done."""

    kind: str
    name: str
    generation: int
    observed: int
    desired: int
    current: int
    updated: int
    available: int
    must_update: int
    has_settled: bool = True

    @classmethod
    def of(cls, kind: str, workload: Manifest, pods: Sequence[Manifest] = ()) -> "Progress":
        """Read the counts from a workload's spec and status, where those do not tell from its pods."""
        counts = _COUNTS[kind](workload, pods)
        return cls(kind=kind, name=name_of(workload), **counts)

    @property
    def is_observed(self) -> bool:
        """Tell whether the status speaks of the spec as it is now."""
        return self.observed >= self.generation

    @property
    def is_complete(self) -> bool:
        """Tell whether all replicas that have to be new are, all are available, and no old one is left over."""
        are_new = self.updated >= self.must_update and self.current - self.updated <= self.desired - self.must_update
        are_there = self.available >= max(self.desired, self.updated)
        return self.is_observed and are_new and are_there and self.has_settled

    @property
    def marks(self) -> tuple[int, ...]:
        """Counts that only grow while a rollout gets on: what flaps does not count as progress a second time."""
        if not self.is_observed:
            return (0, 0, 0, 0)
        old = max(self.current - self.updated, 0)
        return (1, self.updated, min(self.available, self.desired), -old)

    def __str__(self) -> str:
        """Return one line for people."""
        seen = "" if self.is_observed else f" (not yet observed: {self.observed})"
        return (
            f"{self.kind} {self.name}: generation {self.generation}{seen}, desired {self.desired}, "
            f"current {self.current}, updated {self.updated}, available {self.available}"
        )


def is_ready(pod: Manifest) -> bool:
    """Tell whether the pod is ready, or has done its work."""
    status = pod.get("status") or {}
    conditions = status.get("conditions") or ()
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ready or status.get("phase") == "Succeeded"


_Counts = Mapping[str, Any]


def _generations(workload: Manifest) -> dict[str, Any]:
    return {
        "generation": int(workload["metadata"].get("generation") or 0),
        "observed": int((workload.get("status") or {}).get("observedGeneration") or 0),
    }


def _replicas(workload: Manifest) -> int:
    replicas = workload["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def _deployment(deployment: Manifest, pods: Sequence[Manifest]) -> _Counts:
    status = deployment.get("status") or {}
    return _generations(deployment) | {
        "desired": _replicas(deployment),
        "must_update": _replicas(deployment),
        "current": int(status.get("replicas") or 0),
        "updated": int(status.get("updatedReplicas") or 0),
        "available": int(status.get("availableReplicas") or 0),
    }


def _stateful_set(stateful_set: Manifest, pods: Sequence[Manifest]) -> _Counts:
    """A partition keeps the replicas below it as they are; with the strategy OnDelete they change when somebody deletes them."""
    status, strategy = stateful_set.get("status") or {}, stateful_set["spec"].get("updateStrategy") or {}
    desired = _replicas(stateful_set)
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
    if strategy.get("type") == "OnDelete":
        partition = desired
    same = status.get("currentRevision") == status.get("updateRevision")
    return _generations(stateful_set) | {
        "desired": desired,
        "must_update": max(desired - partition, 0),
        "current": int(status.get("replicas") or 0),
        "updated": int(status.get("updatedReplicas") or 0),
        "available": int(status.get("readyReplicas") or 0),
        "has_settled": same or partition > 0,
    }


def _daemon_set(daemon_set: Manifest, pods: Sequence[Manifest]) -> _Counts:
    status, strategy = daemon_set.get("status") or {}, daemon_set["spec"].get("updateStrategy") or {}
    desired = int(status.get("desiredNumberScheduled") or 0)
    return _generations(daemon_set) | {
        "desired": desired,
        "must_update": 0 if strategy.get("type") == "OnDelete" else desired,
        "current": int(status.get("currentNumberScheduled") or 0),
        "updated": int(status.get("updatedNumberScheduled") or 0),
        "available": int(status.get("numberAvailable") or 0),
    }


def _job(job: Manifest, pods: Sequence[Manifest]) -> _Counts:
    """Its status counts ready pods only since 1.24, so the pods are asked. A suspended one wants none."""
    spec, status = job["spec"], job.get("status") or {}
    parallel = spec.get("parallelism")
    desired = 1 if parallel is None else int(parallel)
    if spec.get("completions") is not None:
        desired = min(desired, int(spec["completions"]))
    is_suspended = bool(spec.get("suspend"))
    succeeded = int(status.get("succeeded") or 0)
    running = [p for p in pods if owner_uid(p) == uid_of(job) and (p.get("status") or {}).get("phase") != "Succeeded"]
    there = min(succeeded + sum(map(is_ready, running)), desired)
    return {
        "generation": 1,
        "observed": 1 if is_suspended or status.get("startTime") else 0,
        "desired": 0 if is_suspended else desired,
        "must_update": 0,
        "current": min(int(status.get("active") or 0) + succeeded, desired),
        "updated": there,
        "available": there,
    }


def _cron_job(cron_job: Manifest, pods: Sequence[Manifest]) -> _Counts:
    generation = int(cron_job["metadata"].get("generation") or 1)
    none = dict.fromkeys(("desired", "must_update", "current", "updated", "available"), 0)
    return none | {"generation": generation, "observed": generation}


def _pod(pod: Manifest, pods: Sequence[Manifest]) -> _Counts:
    there = int(is_ready(pod))
    return dict.fromkeys(("generation", "observed", "desired", "must_update", "current"), 1) | {
        "updated": 1,
        "available": there,
    }


_COUNTS: Final[Mapping[str, Callable[[Manifest, Sequence[Manifest]], _Counts]]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "CronJob": _cron_job,
    "Pod": _pod,
}
