"""The job controller: pods that are to end well, as many at once as may run, until enough have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from vanadium_node.local.api.kinds import JOB, POD
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore, timestamp
from vanadium_node.local.machine.conditions import condition, is_true, set_condition
from vanadium_node.local.machine.controllers import Controller, itself, owner_of
from vanadium_node.local.machine.owned import claimed
from vanadium_node.local.machine.pods import from_template, is_active, is_ready, least_wanted_first, phase
from vanadium_node.local.machine.recorder import Recorder

INDEX: Final = "batch.kubernetes.io/job-completion-index"
INDEX_VARIABLE: Final = "JOB_COMPLETION_INDEX"
FIRST_RETRY_SECONDS: Final = 10.0
LAST_RETRY_SECONDS: Final = 360.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What a look at a job finds: its pods, by how they fare."""

    job: Object
    active: Sequence[Object]
    succeeded: Sequence[Object]
    failed: Sequence[Object]

    @property
    def is_indexed(self) -> bool:
        return bool(self.job["spec"].get("completionMode") == "Indexed")

    @property
    def done(self) -> int:
        """How often the work is done; each index counts once."""
        if self.is_indexed:
            return len({_index(pod) for pod in self.succeeded})
        return len(self.succeeded)

    @property
    def missing_indexes(self) -> list[int]:
        taken = {_index(pod) for pod in (*self.active, *self.succeeded)}
        return [i for i in range(int(self.job["spec"].get("completions") or 0)) if i not in taken]

    @property
    def retries(self) -> int:
        """How often something failed: whole pods, and containers that were started again in their pods."""
        restarted = sum(_restarts(pod) for pod in self.active)
        return len(self.failed) + restarted


class Jobs:
    """Runs the pods of every job."""

    def __init__(self, store: ObjectStore, recorder: Recorder) -> None:
        self._store = store
        self._events = recorder

    def controller(self) -> Controller:
        """Return the controller to run."""
        return Controller(name="job", reconcile=self.reconcile, watches={JOB: itself, POD: owner_of("Job")})

    def reconcile(self, namespace: str, name: str) -> float | None:
        """Start, end or count pods; finish the job when enough have succeeded or too much has failed."""
        job = self._store.find(JOB, namespace, name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            return None
        if _is_finished(job):
            return self._expire(job)
        job = self._begun(job)
        facts, refusal = self._facts(job), None
        end = self._end(facts)
        if end is not None:
            self._finish(facts, *end)
            return self._expire(self._store.get(JOB, namespace, name))
        try:
            wait = self._correct(facts)
        except ApiError as error:
            self._events.warning(job, "FailedCreate", f"Error creating: {error.message}")
            refusal, wait = error, None
        self._report(self._facts(job))
        if refusal is not None:
            raise refusal
        return min((w for w in (wait, self._time_left(job)) if w is not None), default=None)

    def _facts(self, job: Object) -> _Facts:
        pods = claimed(self._store, job, POD)
        return _Facts(
            job=job,
            active=[pod for pod in pods if is_active(pod)],
            succeeded=[pod for pod in pods if phase(pod) == "Succeeded"],
            failed=[pod for pod in pods if phase(pod) == "Failed"],
        )

    def _begun(self, job: Object) -> Object:
        """Write when the job began, or that it is suspended: its time stands still then."""
        suspended, status = bool(job["spec"].get("suspend")), job.get("status") or {}
        if suspended == is_true(status, "Suspended") and (suspended or status.get("startTime")):
            return job
        now = timestamp(self._store.now())

        def edit(status: Object) -> None:
            if suspended:
                status.pop("startTime", None)
                _set(status, "Suspended", "True", "JobSuspended", "Job suspended", now)
            else:
                status["startTime"] = now
                if condition(status, "Suspended") is not None:
                    _set(status, "Suspended", "False", "JobResumed", "Job resumed", now)

        self._events.normal(
            job, "Suspended" if suspended else "Resumed", "Job " + ("suspended" if suspended else "resumed")
        )
        return self._store.modify_status(JOB, job["metadata"]["namespace"], job["metadata"]["name"], edit)

    def _end(self, facts: _Facts) -> tuple[str, str, str] | None:
        """Return the condition, reason and message with which the job ends now; None where it goes on."""
        spec = facts.job["spec"]
        if facts.retries > int(spec.get("backoffLimit", 6)):
            return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        if self._time_left(facts.job) == 0.0:
            return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
        completions = spec.get("completions")
        is_drained = bool(facts.succeeded) and not facts.active
        is_done = is_drained if completions is None else facts.done >= int(completions)
        return ("Complete", "CompletionsReached", "Reached expected number of succeeded pods") if is_done else None

    def _time_left(self, job: Object) -> float | None:
        limit, began = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
        if limit is None or began is None:
            return None
        until = datetime.fromisoformat(began) + timedelta(seconds=int(limit))
        return max(0.0, (until - self._store.now()).total_seconds())

    def _correct(self, facts: _Facts) -> float | None:
        """Start or end pods until as many are active as should be; return how long to wait before a failed one is made anew."""
        spec = facts.job["spec"]
        wanted = 0 if spec.get("suspend") else int(spec.get("parallelism", 1))
        if spec.get("completions") is not None:
            wanted = min(wanted, int(spec["completions"]) - facts.done)
        elif facts.succeeded:
            wanted = min(wanted, len(facts.active))  # a work queue that is empty for one is empty for all
        for pod in sorted(facts.active, key=least_wanted_first)[: max(len(facts.active) - wanted, 0)]:
            self._delete(facts.job, pod)
        missing = wanted - len(facts.active)
        pause = self._pause(facts) if missing > 0 else 0.0
        if pause > 0:
            return pause
        for number in range(missing):
            self._create(facts, facts.missing_indexes[number] if facts.is_indexed else None)
        return None

    def _pause(self, facts: _Facts) -> float:
        """Return how long to wait before the next attempt: the longer, the more have failed since the last success."""
        if not facts.failed:
            return 0.0
        since = max(map(_ended_at, facts.succeeded), default="")
        times = sorted(t for t in map(_ended_at, facts.failed) if t > since)
        if not times:
            return 0.0
        delay = min(FIRST_RETRY_SECONDS * 2.0 ** (len(times) - 1), LAST_RETRY_SECONDS)
        due = datetime.fromisoformat(times[-1]) + timedelta(seconds=delay)
        return max(0.0, (due - self._store.now()).total_seconds())

    def _create(self, facts: _Facts, index: int | None) -> None:
        pod = from_template(facts.job)
        if index is not None:
            pod["metadata"]["generateName"] = f"{facts.job['metadata']['name']}-{index}-"
            pod["metadata"].setdefault("annotations", {})[INDEX] = str(index)
            pod["metadata"].setdefault("labels", {})[INDEX] = str(index)
            pod["spec"]["hostname"] = f"{facts.job['metadata']['name']}-{index}"
            for container in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())):
                container["env"] = [*(container.get("env") or ()), {"name": INDEX_VARIABLE, "value": str(index)}]
        made = self._store.create(POD, pod)
        self._events.normal(facts.job, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")

    def _delete(self, job: Object, pod: Object) -> None:
        metadata = pod["metadata"]
        self._store.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        self._events.normal(job, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")

    def _finish(self, facts: _Facts, kind: str, reason: str, message: str) -> None:
        for pod in facts.active:
            self._delete(facts.job, pod)
        now, metadata = timestamp(self._store.now()), facts.job["metadata"]

        def edit(status: Object) -> None:
            _count(status, facts, self._store.now())
            status.pop("active", None)
            status.pop("ready", None)
            early = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
            for one in (early, kind):
                _set(status, one, "True", reason, message, now)
            if kind == "Complete":
                status["completionTime"] = now

        self._store.modify_status(JOB, metadata["namespace"], metadata["name"], edit)
        if kind == "Complete":
            self._events.normal(facts.job, "Completed", "Job completed")
        else:
            self._events.warning(facts.job, reason, message)

    def _report(self, facts: _Facts) -> None:
        job, metadata = facts.job, facts.job["metadata"]
        before = self._store.get(JOB, metadata["namespace"], metadata["name"]).get("status") or {}
        after = dict(before)
        _count(after, facts, self._store.now())
        if after != before:
            self._store.modify_status(
                JOB,
                job["metadata"]["namespace"],
                job["metadata"]["name"],
                lambda status: _count(status, facts, self._store.now()),
            )

    def _expire(self, job: Object) -> float | None:
        """Delete a finished job whose time to live is over; return when that will be."""
        limit = job["spec"].get("ttlSecondsAfterFinished")
        if limit is None:
            return None
        ended = next(c for c in job["status"]["conditions"] if c["type"] in {"Complete", "Failed"})
        due = datetime.fromisoformat(ended["lastTransitionTime"]) + timedelta(seconds=int(limit))
        left = (due - self._store.now()).total_seconds()
        if left > 0:
            return left
        metadata = job["metadata"]
        self._store.delete(JOB, metadata["namespace"], metadata["name"], uid=metadata["uid"], propagation="Background")
        return None


def _is_finished(job: Object) -> bool:
    return any(is_true(job.get("status") or {}, kind) for kind in ("Complete", "Failed"))


def _set(status: Object, kind: str, value: str, reason: str, message: str, now: str) -> None:
    set_condition(
        status, {"type": kind, "status": value, "reason": reason, "message": message, "lastProbeTime": now}, now
    )


def _count(status: Object, facts: _Facts, now: datetime) -> None:
    """Write the counts; those of ended pods never fall, since people may delete such pods."""
    counts = {
        "active": len(facts.active),
        "ready": sum(map(is_ready, facts.active)),
        "succeeded": max(facts.done, int(status.get("succeeded") or 0)),
        "failed": max(len(facts.failed), int(status.get("failed") or 0)),
        "terminating": 0,
    }
    for key, count in counts.items():
        if count or key in {"ready", "terminating"}:
            status[key] = count
        else:
            status.pop(key, None)
    if facts.is_indexed:
        status["completedIndexes"] = _ranges(sorted({_index(pod) for pod in facts.succeeded}))


def _ranges(indexes: Sequence[int]) -> str:
    """Return indexes as Kubernetes writes them: `1,3-5,7`."""
    parts: list[list[int]] = []
    for index in indexes:
        if parts and parts[-1][-1] == index - 1:
            parts[-1] = [parts[-1][0], index]
        else:
            parts.append([index])
    return ",".join("-".join(map(str, part)) for part in parts)


def _index(pod: Object) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, -1))


def _restarts(pod: Object) -> int:
    return sum(int(s.get("restartCount") or 0) for s in (pod.get("status") or {}).get("containerStatuses") or ())


def _ended_at(pod: Object) -> str:
    """Return when the last of the pod's containers ended."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    ends = [str((s["state"].get("terminated") or {}).get("finishedAt") or "") for s in statuses]
    return max(ends, default="") or str(pod["metadata"]["creationTimestamp"])
