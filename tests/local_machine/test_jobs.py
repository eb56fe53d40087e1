"""Jobs: as many pods as needed, retries, deadlines, indexes."""

from typing import Any

from machine_bench import Bench, condition_of, conditions, container, shell
from trio.testing import MockClock

from vanadium_node.local.api.kinds import JOB, POD
from vanadium_node.local.api.objects import Object


def job(bench: Bench, *containers: Object, restart: str = "Never", **spec: Any) -> Object:
    """Create a job."""
    pod = {"containers": list(containers), "restartPolicy": restart, "terminationGracePeriodSeconds": 5}
    return bench.store.create(JOB, {"metadata": {"name": "once"}, "spec": {"template": {"spec": pod}} | spec})


async def finished(bench: Bench) -> Object:
    """Wait until the job has ended, well or badly."""
    return await bench.until(lambda j: {"Complete", "Failed"} & conditions(j).keys() != set(), JOB, "once")


async def test_a_job_that_succeeds(bench: Bench) -> None:
    """Its pod stays, so that its log can be read; its status tells when it began and ended."""
    job(bench, shell("echo done"))
    ended = await finished(bench)
    assert ended["status"]["succeeded"] == 1
    assert "active" not in ended["status"]
    assert ended["status"]["startTime"] <= ended["status"]["completionTime"]
    (pod,) = bench.pods()
    assert pod["status"]["phase"] == "Succeeded"
    assert await bench.log(pod["metadata"]["name"]) == "done\n"


async def test_completions_and_parallelism(bench: Bench) -> None:
    """Never more at once than may be, never more in all than wanted."""
    job(bench, shell("sleep 0.2"), completions=4, parallelism=2)
    active: list[int] = []

    def is_complete(obj: Object) -> bool:
        active.append(obj.get("status", {}).get("active", 0))
        return "Complete" in conditions(obj)

    await bench.until(is_complete, JOB, "once")
    assert max(active) == 2
    assert len(bench.pods()) == 4


async def test_indexed_pods_know_their_index(bench: Bench) -> None:
    """Each index is done once."""
    job(bench, shell("echo $JOB_COMPLETION_INDEX"), completions=3, parallelism=3, completionMode="Indexed")
    ended = await finished(bench)
    assert ended["status"]["completedIndexes"] == "0-2"
    logs = [await bench.log(pod["metadata"]["name"]) for pod in bench.pods()]
    assert sorted(logs) == ["0\n", "1\n", "2\n"]


async def test_failures_are_tried_again_with_growing_pauses(clock: MockClock, bench: Bench) -> None:
    """Until the limit; then the job has failed and says why."""
    job(bench, shell("exit 3"), backoffLimit=1)
    await bench.until(lambda j: j.get("status", {}).get("failed") == 1, JOB, "once")
    assert len(bench.pods()) == 1
    clock.jump(11)
    ended = await finished(bench)
    assert condition_of(ended, "Failed")["reason"] == "BackoffLimitExceeded"
    assert ended["status"]["failed"] == 2


async def test_restarts_in_the_pod_count_too(clock: MockClock, bench: Bench) -> None:
    """With OnFailure there is one pod, which goes when the limit is reached."""
    job(bench, shell("exit 3"), restart="OnFailure", backoffLimit=0)
    await bench.until_any(lambda p: bool(p.get("status", {}).get("containerStatuses")))
    clock.jump(20)
    assert condition_of(await finished(bench), "Failed")["reason"] == "BackoffLimitExceeded"


async def test_a_deadline_ends_it(clock: MockClock, bench: Bench) -> None:
    """Running pods go."""
    job(bench, container(), activeDeadlineSeconds=60)
    await bench.until(lambda j: j.get("status", {}).get("ready") == 1, JOB, "once")
    (pod,) = bench.pods()
    clock.jump(61)
    assert condition_of(await finished(bench), "Failed")["reason"] == "DeadlineExceeded"
    await bench.until_gone(pod["metadata"]["name"])


async def test_a_suspended_job_waits(bench: Bench) -> None:
    """And goes on when it is resumed."""
    job(bench, shell("true"), suspend=True)
    await bench.until(lambda j: conditions(j).get("Suspended") == "True", JOB, "once")
    assert bench.pods() == ()
    bench.store.modify(JOB, "default", "once", lambda obj: obj["spec"].update(suspend=False))
    assert "Complete" in conditions(await finished(bench))


async def test_a_finished_job_is_removed_in_time(clock: MockClock, bench: Bench) -> None:
    """With its pods, if it is told to."""
    job(bench, shell("true"), ttlSecondsAfterFinished=100)
    await finished(bench)
    clock.jump(101)
    await bench.until_gone("once", JOB)
    for pod in bench.pods():
        await bench.until_gone(pod["metadata"]["name"], POD)
