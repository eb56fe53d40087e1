"""Cron jobs: jobs by the clock."""

from typing import Any

import pytest
from machine_bench import Bench, conditions, container, shell
from trio.testing import MockClock

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import CRON_JOB, EVENT, JOB
from vanadium_node.local.api.objects import Object


def cron_job(bench: Bench, app: Object, schedule: str = "*/5 * * * *", **spec: Any) -> Object:
    """Create a cron job; the bench's clock begins at ten."""
    pod = {"containers": [app], "restartPolicy": "Never", "terminationGracePeriodSeconds": 5}
    made = {"schedule": schedule, "jobTemplate": {"spec": {"template": {"spec": pod}}}} | spec
    return bench.store.create(CRON_JOB, {"metadata": {"name": "tick"}, "spec": made})


def jobs(bench: Bench) -> list[str]:
    """The times of the jobs that are there."""
    key = "batch.kubernetes.io/cronjob-scheduled-timestamp"
    return sorted(job["metadata"]["annotations"][key][11:16] for job in bench.store.list(JOB))


async def next_job(bench: Bench, time: str, condition: str = "Complete") -> None:
    """Wait until the job of a time has ended."""
    key = "batch.kubernetes.io/cronjob-scheduled-timestamp"

    def is_it(job: Object) -> bool:
        return job["metadata"]["annotations"][key][11:16] == time and (not condition or condition in conditions(job))

    await bench.until_any(is_it, JOB)


async def test_jobs_are_made_when_their_time_comes(clock: MockClock, bench: Bench) -> None:
    """Not before; however many times were missed, one job makes up for them; old ones are removed."""
    cron_job(bench, shell("true"), successfulJobsHistoryLimit=2)
    clock.jump(299)
    assert jobs(bench) == []
    clock.jump(2)
    await next_job(bench, "10:05")
    found = await bench.until(lambda c: "lastSuccessfulTime" in c.get("status", {}), CRON_JOB, "tick")
    assert found["status"]["lastScheduleTime"] == "2026-11-23T10:05:00Z"
    clock.jump(1200)
    await next_job(bench, "10:25")
    clock.jump(300)
    await next_job(bench, "10:30")
    await bench.until(lambda c: "active" not in c["status"] and len(jobs(bench)) == 2, CRON_JOB, "tick")
    assert jobs(bench) == ["10:25", "10:30"]


@pytest.mark.parametrize(
    ("policy", "expected"), [("Forbid", ["10:05"]), ("Replace", ["10:10"]), ("Allow", ["10:05", "10:10"])]
)
async def test_what_happens_while_one_still_runs(
    clock: MockClock, bench: Bench, policy: str, expected: list[str]
) -> None:
    """It may forbid the next, be replaced by it, or run beside it."""
    cron_job(bench, container(), concurrencyPolicy=policy)
    clock.jump(301)
    await next_job(bench, "10:05", condition="")
    clock.jump(300)
    reason = "JobAlreadyActive" if policy == "Forbid" else "SuccessfulCreate"
    await bench.until_any(
        lambda e: e["reason"] == reason and (policy == "Forbid" or bench.messages(reason, "tick")[1:] != []), EVENT
    )
    assert jobs(bench) == expected


async def test_a_suspended_one_makes_none(clock: MockClock, bench: Bench) -> None:
    """Until it is resumed."""
    cron_job(bench, shell("true"), suspend=True)
    clock.jump(900)
    assert jobs(bench) == []
    bench.store.modify(CRON_JOB, "default", "tick", lambda obj: obj["spec"].update(suspend=False))
    await next_job(bench, "10:15")


async def test_a_start_that_is_too_late_is_missed(clock: MockClock, bench: Bench) -> None:
    """With a deadline for it."""
    cron_job(bench, shell("true"), suspend=True, startingDeadlineSeconds=60)
    clock.jump(400)
    bench.store.modify(CRON_JOB, "default", "tick", lambda obj: obj["spec"].update(suspend=False))
    await bench.until_event("MissSchedule", "tick")
    assert jobs(bench) == []


async def test_times_are_those_of_the_time_zone(clock: MockClock, bench: Bench) -> None:
    """Ten o'clock in UTC is eleven in Berlin, in winter."""
    cron_job(bench, shell("true"), "1 11 * * *", timeZone="Europe/Berlin")
    clock.jump(61)
    await next_job(bench, "10:01")


@pytest.mark.parametrize(
    ("schedule", "zone", "says"),
    [
        ("* * *", None, "expected exactly 5 fields"),
        ("61 * * * *", None, "Bad minute"),
        ("@hourly", "Mars/Base", "time zone"),
    ],
)
async def test_what_is_no_schedule_is_refused(bench: Bench, schedule: str, zone: str | None, says: str) -> None:
    """By the API, before anything acts on it."""
    with pytest.raises(ApiError, match=says):
        cron_job(bench, shell("true"), schedule, timeZone=zone)
