"""What the objects of a Deployment say about its rollout, with kubectl's semantics."""

from typing import Any

import pytest

from vanadium_node.kube.rollout import Obstacle, Progress, label_selector, newest_replica_set, problems, unready


def deployment(*, replicas: int | None = 2, generation: int = 2, revision: int = 2, **status: Any) -> dict[str, Any]:
    """A Deployment whose status speaks of its current generation unless told otherwise."""
    metadata = {"name": "cart", "uid": "d", "generation": generation}
    metadata["annotations"] = {"deployment.kubernetes.io/revision": str(revision)}
    spec = {} if replicas is None else {"replicas": replicas}
    return {"metadata": metadata, "spec": spec, "status": {"observedGeneration": generation, **status}}


def replica_set(revision: int, uid: str, owner: str = "d") -> dict[str, Any]:
    """A replica set of that revision."""
    owners = [{"uid": owner, "controller": True}]
    annotations = {"deployment.kubernetes.io/revision": str(revision)}
    return {"metadata": {"name": uid, "uid": uid, "ownerReferences": owners, "annotations": annotations}}


def pod(owner: str, *, waiting: str = "", restarts: int = 0, conditions: Any = (), **more: Any) -> dict[str, Any]:
    """A pod of a replica set, with one container."""
    state = {"waiting": {"reason": waiting, "message": "words"}} if waiting else {"running": {}}
    container = {"name": "app", "state": state, "restartCount": restarts, **more}
    return {
        "metadata": {"name": f"{owner}-1", "uid": "p", "ownerReferences": [{"uid": owner, "controller": True}]},
        "status": {"phase": "Pending", "containerStatuses": [container], "conditions": list(conditions)},
    }


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
def test_complete(status: dict[str, Any], complete: bool) -> None:
    """All replicas new and available, no old one left, and the status is of this specification."""
    assert Progress.from_deployment(deployment(**status)).is_complete is complete


def test_no_replicas_wanted_is_complete_and_none_said_is_one() -> None:
    """`replicas: 0` needs nothing; an absent number means one."""
    assert Progress.from_deployment(deployment(replicas=0)).is_complete
    assert Progress.from_deployment(deployment(replicas=None)).desired == 1


def test_the_line_for_people() -> None:
    """Generation, then desired, current, updated and available."""
    line = str(Progress.from_deployment(deployment(replicas=2, updatedReplicas=1, availableReplicas=2)))
    assert line == "Deployment cart: generation 2, desired 2, current 0, updated 1, available 2"
    late = Progress.from_deployment(deployment(observedGeneration=1))
    assert "generation 2 (not yet observed: 1)" in str(late)


def test_the_newest_replica_set_is_the_deployments_own() -> None:
    """Not another Deployment's, not an older one's, and none before the controller has seen the new specification."""
    sets = [replica_set(1, "old"), replica_set(2, "new"), replica_set(9, "other", owner="x")]
    assert newest_replica_set(deployment(), sets) is sets[1]
    assert newest_replica_set(deployment(observedGeneration=1), sets) is None
    assert newest_replica_set(deployment(), sets[:1]) is None


@pytest.mark.parametrize(
    ("waiting", "restarts", "obstacle"),
    [
        ("ErrImagePull", 0, Obstacle.IMAGE),
        ("ImagePullBackOff", 0, Obstacle.IMAGE),
        ("InvalidImageName", 0, Obstacle.IMAGE_NAME),
        ("CreateContainerConfigError", 0, Obstacle.CONFIGURATION),
        ("RunContainerError", 0, Obstacle.CONFIGURATION),
        ("CrashLoopBackOff", 1, Obstacle.CRASH),
        ("CrashLoopBackOff", 2, Obstacle.CRASH_LOOP),
    ],
)
def test_a_containers_problem(waiting: str, restarts: int, obstacle: Obstacle) -> None:
    """The reason for waiting tells what it is; a crash becomes a loop with the second restart."""
    found = problems(deployment(), [replica_set(2, "new")], [pod("new", waiting=waiting, restarts=restarts)])
    assert [(p.obstacle, p.pod, p.container, p.reason) for p in found] == [(obstacle, "new-1", "app", waiting)]
    assert "container 'app' of pod new-1" in str(found[0])


def test_pods_of_older_revisions_and_leaving_pods_do_not_count() -> None:
    """What is going away may well be broken: that is why it is replaced."""
    leaving = pod("new", waiting="ErrImagePull")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    sets = [replica_set(1, "old"), replica_set(2, "new")]
    assert problems(deployment(), sets, [pod("old", waiting="ErrImagePull"), leaving]) == ()


def test_waiting_for_a_first_container_is_no_problem() -> None:
    """`ContainerCreating` and `PodInitializing` are how every pod begins."""
    for reason in ("ContainerCreating", "PodInitializing"):
        assert problems(deployment(), [replica_set(2, "new")], [pod("new", waiting=reason)]) == ()


def test_how_a_container_ended_is_told() -> None:
    """The exit status says more than the back-off."""
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    crashed = pod("new", waiting="CrashLoopBackOff", restarts=3, lastState=ended)
    [problem] = problems(deployment(), [replica_set(2, "new")], [crashed])
    assert "(CrashLoopBackOff: exit status 137, OOMKilled)" in str(problem)


def test_a_command_that_is_not_there_is_a_matter_of_configuration() -> None:
    """The runtime could not start it: no number of restarts makes a difference."""
    ended = {"terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file"}}
    crashed = pod("new", waiting="CrashLoopBackOff", restarts=1, lastState=ended)
    [problem] = problems(deployment(), [replica_set(2, "new")], [crashed])
    assert problem.obstacle is Obstacle.CONFIGURATION
    assert "StartError, no such file" in str(problem)


def test_unschedulable_quota_and_deadline() -> None:
    """What is known without any container."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    conditions = [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"},
    ]
    found = problems(deployment(conditions=conditions), [replica_set(2, "new")], [pod("new", conditions=[condition])])
    assert [p.obstacle for p in found] == [Obstacle.QUOTA, Obstacle.UNSCHEDULABLE, Obstacle.DEADLINE]
    assert "exceeded quota: small" in str(found[0])


def test_a_status_of_an_older_specification_says_nothing() -> None:
    """The failure of the rollout before must not fail this one."""
    conditions = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    assert problems(deployment(conditions=conditions, observedGeneration=1), [], []) == ()


def test_why_a_pod_is_not_ready() -> None:
    """For the message when the time is over: the container's reason, else the condition's words."""
    sets = [replica_set(2, "new")]
    assert "ContainerCreating" in unready(deployment(), sets, [pod("new", waiting="ContainerCreating")])
    not_ready = {"type": "Ready", "status": "False", "message": "containers with unready status: [app]"}
    assert "unready status" in unready(deployment(), sets, [pod("new", conditions=[not_ready])])
    assert unready(deployment(), sets, []) == "no new pod was created"


def test_progress_counts_once() -> None:
    """Marks compare one by one: available replicas that flap do not raise any mark above its best."""
    one = Progress.from_deployment(deployment(replicas=2, updatedReplicas=1, availableReplicas=1)).marks
    none = Progress.from_deployment(deployment(replicas=2, updatedReplicas=1, availableReplicas=0)).marks
    assert one > none
    assert all(a >= b for a, b in zip(one, none, strict=True))


def test_label_selectors() -> None:
    """Selectors of a specification in the form of a query."""
    expressions = [
        {"key": "a", "operator": "In", "values": ["x", "y"]},
        {"key": "b", "operator": "NotIn", "values": ["z"]},
        {"key": "c", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ]
    assert (
        label_selector({"matchLabels": {"k": "v"}, "matchExpressions": expressions})
        == "k=v,a in (x,y),b notin (z),c,!d"
    )
