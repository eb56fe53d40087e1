"""The cron job controller: jobs by the clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from vanadium_node.local.api.kinds import CRON_JOB, JOB
from vanadium_node.local.api.objects import Object, ObjectStore, copied, timestamp
from vanadium_node.local.api.schedules import times
from vanadium_node.local.machine.conditions import is_true
from vanadium_node.local.machine.controllers import Controller, itself, owner_of
from vanadium_node.local.machine.owned import is_controlled_by, reference_to
from vanadium_node.local.machine.recorder import Recorder


class CronJobs:
    """Makes the jobs of every cron job when their time has come."""

    def __init__(self, store: ObjectStore, recorder: Recorder) -> None:
        self._store = store
        self._events = recorder

    def controller(self) -> Controller:
        """Return the controller to run."""
        return Controller(
            name="cron-job", reconcile=self.reconcile, watches={CRON_JOB: itself, JOB: owner_of("CronJob")}
        )

    def reconcile(self, namespace: str, name: str) -> float | None:
        """Make the job whose time has come, remove the oldest finished ones, and return how long to wait for the next."""
        cron_job = self._store.find(CRON_JOB, namespace, name)
        if cron_job is None or "deletionTimestamp" in cron_job["metadata"]:
            return None
        jobs = [j for j in self._store.list(JOB, namespace) if is_controlled_by(j, cron_job)]
        self._report(cron_job, jobs)
        self._remove_oldest(cron_job, jobs)
        if cron_job["spec"].get("suspend"):
            return None
        now = self._store.now()
        due = _latest_due(cron_job, now)
        if due is not None:
            self._start(cron_job, due, [j for j in jobs if not _ended(j)])
        return (next(_times(cron_job, now)) - now).total_seconds()

    def _start(self, cron_job: Object, when: datetime, active: Sequence[Object]) -> None:
        """Make the job of a time, unless it is too late for it, or another one runs and must not be disturbed."""
        spec, metadata = cron_job["spec"], cron_job["metadata"]
        deadline = spec.get("startingDeadlineSeconds")
        if deadline is not None and self._store.now() - when > timedelta(seconds=int(deadline)):
            self._events.warning(cron_job, "MissSchedule", f"Missed scheduled time to start a job: {timestamp(when)}")
            return
        if active and spec["concurrencyPolicy"] == "Forbid":
            self._events.normal(cron_job, "JobAlreadyActive", "Not starting job because prior execution is running")
            return
        if spec["concurrencyPolicy"] == "Replace":
            for job in active:
                self._delete(job)
        name = f"{metadata['name']}-{int(when.timestamp()) // 60}"
        if self._store.find(JOB, metadata["namespace"], name) is None:
            self._store.create(JOB, _job(cron_job, name, when))
            self._events.normal(cron_job, "SuccessfulCreate", f"Created job {name}")
        self._store.modify_status(
            CRON_JOB,
            metadata["namespace"],
            metadata["name"],
            lambda status: status.update(lastScheduleTime=timestamp(when)),
        )

    def _report(self, cron_job: Object, jobs: Sequence[Object]) -> None:
        active = [
            {k: j["metadata"][k] for k in ("namespace", "name", "uid", "resourceVersion")}
            | {"apiVersion": j["apiVersion"], "kind": j["kind"]}
            for j in jobs
            if not _ended(j)
        ]
        successes = [str(j["status"]["completionTime"]) for j in jobs if is_true(j.get("status") or {}, "Complete")]

        def edit(status: Object) -> None:
            status.pop("active", None)
            if active:
                status["active"] = active
            if successes:
                status["lastSuccessfulTime"] = max(successes)

        new = copied(cron_job.get("status") or {})
        edit(new)
        if new != (cron_job.get("status") or {}):
            self._store.modify_status(CRON_JOB, cron_job["metadata"]["namespace"], cron_job["metadata"]["name"], edit)

    def _remove_oldest(self, cron_job: Object, jobs: Sequence[Object]) -> None:
        limits = {"Complete": "successfulJobsHistoryLimit", "Failed": "failedJobsHistoryLimit"}
        for kind, limit in limits.items():
            ended = [j for j in jobs if is_true(j.get("status") or {}, kind)]
            ended.sort(key=lambda j: str(j["status"].get("startTime", "")))
            for job in ended[: max(len(ended) - int(cron_job["spec"][limit]), 0)]:
                self._delete(job)

    def _delete(self, job: Object) -> None:
        metadata = job["metadata"]
        self._store.delete(JOB, metadata["namespace"], metadata["name"], uid=metadata["uid"], propagation="Background")


def _times(cron_job: Object, after: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    spec = cron_job["spec"]
    return times(str(spec["schedule"]), spec.get("timeZone"), after, reverse=reverse)


def _latest_due(cron_job: Object, now: datetime) -> datetime | None:
    """Return the last time that has come since a job was made for one; however many were missed, one job makes up for them."""
    last = (cron_job.get("status") or {}).get("lastScheduleTime") or cron_job["metadata"]["creationTimestamp"]
    latest = next(_times(cron_job, now + timedelta(seconds=1), reverse=True))
    return latest if latest > datetime.fromisoformat(str(last)) else None


def _ended(job: Object) -> bool:
    return any(is_true(job.get("status") or {}, kind) for kind in ("Complete", "Failed"))


def _job(cron_job: Object, name: str, when: datetime) -> Object:
    template, metadata = cron_job["spec"]["jobTemplate"], cron_job["metadata"]
    given = template.get("metadata") or {}
    annotations = {
        **(given.get("annotations") or {}),
        "batch.kubernetes.io/cronjob-scheduled-timestamp": timestamp(when),
    }
    return {
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": dict(given.get("labels") or {}),
            "annotations": annotations,
            "ownerReferences": [reference_to(cron_job)],
        },
        "spec": copied(template["spec"]),
    }
