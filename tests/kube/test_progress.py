"""How far a rollout is, with the semantics of `kubectl rollout status`."""

from typing import Any

import pytest

from vanadium_node.kube.progress import Progress


def workload(spec: dict[str, Any], status: dict[str, Any], generation: int = 2) -> dict[str, Any]:
    """A workload whose status speaks of its current generation unless told otherwise."""
    metadata = {"name": "cart", "uid": "w", "generation": generation}
    return {"metadata": metadata, "spec": spec, "status": {"observedGeneration": generation} | status}


def deployment(replicas: int | None = 2, **status: Any) -> Progress:
    """How far a Deployment is."""
    return Progress.of("Deployment", workload({} if replicas is None else {"replicas": replicas}, status))


@pytest.mark.parametrize(
    ("status", "complete"),
    [
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}, True),
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}, False),
        ({"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}, False),
        ({"replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}, False),
        ({"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "observedGeneration": 1}, False),
        ({}, False),
    ],
)
def test_a_deployment(status: dict[str, Any], complete: bool) -> None:
    """All replicas new and available, no old one left, and the status is of this specification."""
    assert deployment(**status).is_complete is complete


def test_no_replicas_wanted_is_complete_and_none_said_is_one() -> None:
    """`replicas: 0` needs nothing; an absent number means one."""
    assert deployment(replicas=0).is_complete
    assert deployment(replicas=None).desired == 1


def test_the_line_for_people() -> None:
    """Generation, then desired, current, updated and available."""
    line = str(deployment(updatedReplicas=1, availableReplicas=2))
    assert line == "Deployment cart: generation 2, desired 2, current 0, updated 1, available 2"
    assert "generation 2 (not yet observed: 1)" in str(deployment(observedGeneration=1))


def test_progress_counts_once() -> None:
    """Marks compare one by one: available replicas that flap do not raise any mark above its best."""
    one = deployment(updatedReplicas=1, availableReplicas=1).marks
    none = deployment(updatedReplicas=1, availableReplicas=0).marks
    assert one > none
    assert all(a >= b for a, b in zip(one, none, strict=True))


NEW = {"currentRevision": "b", "updateRevision": "b"}
GOING = {"currentRevision": "a", "updateRevision": "b"}


@pytest.mark.parametrize(
    ("strategy", "status", "complete"),
    [
        ({}, NEW | {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 3}, True),
        ({}, NEW | {"replicas": 2, "readyReplicas": 2, "updatedReplicas": 2}, False),
        ({}, GOING | {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 2}, False),
        ({}, GOING | {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 3}, False),
        ({"rollingUpdate": {"partition": 2}}, GOING | {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 1}, True),
        ({"rollingUpdate": {"partition": 2}}, GOING | {"replicas": 3, "readyReplicas": 3}, False),
        ({"type": "OnDelete"}, GOING | {"replicas": 3, "readyReplicas": 3}, True),
    ],
)
def test_a_stateful_set(strategy: dict[str, Any], status: dict[str, Any], complete: bool) -> None:
    """Ready replicas, the new revision current; a partition and the strategy OnDelete leave replicas as they are."""
    spec = {"replicas": 3, "updateStrategy": strategy}
    assert Progress.of("StatefulSet", workload(spec, status)).is_complete is complete


@pytest.mark.parametrize(
    ("strategy", "updated", "available", "complete"),
    [
        ("RollingUpdate", 2, 2, True),
        ("RollingUpdate", 1, 2, False),
        ("RollingUpdate", 2, 1, False),
        ("OnDelete", 0, 2, True),
    ],
)
def test_a_daemon_set(strategy: str, updated: int, available: int, complete: bool) -> None:
    """One new and available pod on each node that should have one."""
    counts = {"desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberAvailable": available}
    status = counts | {"updatedNumberScheduled": updated}
    progress = Progress.of("DaemonSet", workload({"updateStrategy": {"type": strategy}}, status))
    assert progress.is_complete is complete


def pod(phase: str, *, ready: bool = False) -> dict[str, Any]:
    """A pod of the workload."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    owners = [{"uid": "w", "controller": True}]
    return {"metadata": {"name": "p", "ownerReferences": owners}, "status": {"phase": phase, "conditions": conditions}}


@pytest.mark.parametrize(
    ("spec", "status", "pods", "complete"),
    [
        ({}, {}, [], False),
        ({}, {"startTime": "t"}, [], False),
        ({}, {"startTime": "t", "active": 1}, [pod("Pending")], False),
        ({}, {"startTime": "t", "active": 1}, [pod("Running", ready=True)], True),
        ({}, {"startTime": "t", "succeeded": 1}, [pod("Succeeded")], True),
        ({"parallelism": 2}, {"startTime": "t", "active": 2}, [pod("Running", ready=True), pod("Pending")], False),
        ({"parallelism": 2, "completions": 1}, {"startTime": "t"}, [pod("Running", ready=True)], True),
        ({"suspend": True}, {}, [], True),
    ],
)
def test_a_job(spec: dict[str, Any], status: dict[str, Any], pods: list[Any], complete: bool) -> None:
    """It has got going when as many pods as may run at once are ready or have succeeded; a suspended one wants none."""
    assert Progress.of("Job", workload(spec, status), pods).is_complete is complete


def test_a_cron_job_and_a_pod() -> None:
    """The one waits for its schedule, the other for itself."""
    assert Progress.of("CronJob", {"metadata": {"name": "c", "generation": 3}, "spec": {}}).is_complete
    assert Progress.of("Pod", pod("Running", ready=True) | {"spec": {}}).is_complete
    assert Progress.of("Pod", pod("Succeeded") | {"spec": {}}).is_complete
    assert not Progress.of("Pod", pod("Running") | {"spec": {}}).is_complete
