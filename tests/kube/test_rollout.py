"""What the objects of a workload say about what stands in the way of its rollout."""

from typing import Any

import pytest

from vanadium_node.kube.rollout import Objects, Obstacle, Problem, label_selector, newest_replica_set, problems, unready


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


def test_the_newest_replica_set_is_the_deployments_own() -> None:
    """Not another Deployment's, not an older one's, and none before the controller has seen the new specification."""
    sets = [replica_set(1, "old"), replica_set(2, "new"), replica_set(9, "other", owner="x")]
    assert newest_replica_set(deployment(), sets) is sets[1]
    assert newest_replica_set(deployment(observedGeneration=1), sets) is None
    assert newest_replica_set(deployment(), sets[:1]) is None


def of_deployment(workload: Any, replica_sets: Any, pods: Any) -> Objects:
    """The objects of a Deployment."""
    return Objects(kind="Deployment", workload=workload, replica_sets=tuple(replica_sets), pods=tuple(pods))


def problems_in(workload: Any, replica_sets: Any, pods: Any) -> tuple[Problem, ...]:
    """What stands in the way of a Deployment."""
    return problems(of_deployment(workload, replica_sets, pods))


def unready_in(workload: Any, replica_sets: Any, pods: Any) -> str:
    """Why a Deployment is not ready."""
    return unready(of_deployment(workload, replica_sets, pods))


def of(kind: str, pods: Any = (), events: Any = (), **workload: Any) -> Objects:
    """The objects of a workload of another kind."""
    made = {"metadata": {"name": "cart", "uid": "w", "generation": 1}, "spec": {}} | workload
    made["status"] = {"observedGeneration": 1, "startTime": "2026-01-01T00:00:00Z"} | made.get("status", {})
    return Objects(kind=kind, workload=made, pods=tuple(pods), events=tuple(events))


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
    found = problems_in(deployment(), [replica_set(2, "new")], [pod("new", waiting=waiting, restarts=restarts)])
    assert [(p.obstacle, p.pod, p.container, p.reason) for p in found] == [(obstacle, "new-1", "app", waiting)]
    assert "container 'app' of pod new-1" in str(found[0])


def test_pods_of_older_revisions_and_leaving_pods_do_not_count() -> None:
    """What is going away may well be broken: that is why it is replaced."""
    leaving = pod("new", waiting="ErrImagePull")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    sets = [replica_set(1, "old"), replica_set(2, "new")]
    assert problems_in(deployment(), sets, [pod("old", waiting="ErrImagePull"), leaving]) == ()


def test_waiting_for_a_first_container_is_no_problem() -> None:
    """`ContainerCreating` and `PodInitializing` are how every pod begins."""
    for reason in ("ContainerCreating", "PodInitializing"):
        assert problems_in(deployment(), [replica_set(2, "new")], [pod("new", waiting=reason)]) == ()


def test_how_a_container_ended_is_told() -> None:
    """The exit status says more than the back-off."""
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    crashed = pod("new", waiting="CrashLoopBackOff", restarts=3, lastState=ended)
    [problem] = problems_in(deployment(), [replica_set(2, "new")], [crashed])
    assert "(CrashLoopBackOff: exit status 137, OOMKilled)" in str(problem)


def test_a_command_that_is_not_there_is_a_matter_of_configuration() -> None:
    """The runtime could not start it: no number of restarts makes a difference."""
    ended = {"terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file"}}
    crashed = pod("new", waiting="CrashLoopBackOff", restarts=1, lastState=ended)
    [problem] = problems_in(deployment(), [replica_set(2, "new")], [crashed])
    assert problem.obstacle is Obstacle.CONFIGURATION
    assert "StartError, no such file" in str(problem)


def test_unschedulable_quota_and_deadline() -> None:
    """What is known without any container."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    conditions = [
        {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"},
    ]
    found = problems_in(
        deployment(conditions=conditions), [replica_set(2, "new")], [pod("new", conditions=[condition])]
    )
    assert [p.obstacle for p in found] == [Obstacle.QUOTA, Obstacle.UNSCHEDULABLE, Obstacle.DEADLINE]
    assert "exceeded quota: small" in str(found[0])


def test_a_status_of_an_older_specification_says_nothing() -> None:
    """The failure of the rollout before must not fail this one."""
    conditions = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    assert problems_in(deployment(conditions=conditions, observedGeneration=1), [], []) == ()


def test_why_a_pod_is_not_ready() -> None:
    """For the message when the time is over: the container's reason, else the condition's words."""
    sets = [replica_set(2, "new")]
    assert "ContainerCreating" in unready_in(deployment(), sets, [pod("new", waiting="ContainerCreating")])
    not_ready = {"type": "Ready", "status": "False", "message": "containers with unready status: [app]"}
    assert "unready status" in unready_in(deployment(), sets, [pod("new", conditions=[not_ready])])
    assert unready_in(deployment(), sets, []) == "no new pod was created"


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


def event(reason: str, time: str, uid: str = "w") -> dict[str, Any]:
    """An event about a workload."""
    return {"reason": reason, "message": "exceeded quota: small", "lastTimestamp": time, "involvedObject": {"uid": uid}}


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "Job"])
def test_a_pod_that_may_not_be_created_is_known_from_the_latest_event(kind: str) -> None:
    """Only Deployments have a condition for it. A success after the failure, or an event about something else, ends it."""
    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
    [problem] = problems(of(kind, events=[event("FailedCreate", late), event("SuccessfulCreate", early)]))
    assert problem.obstacle is Obstacle.QUOTA
    assert str(problem) == f"a pod of {kind} cart may not be created (FailedCreate: exceeded quota: small)"
    assert problems(of(kind, events=[event("FailedCreate", early), event("SuccessfulCreate", late)])) == ()
    assert problems(of(kind, events=[event("FailedCreate", late, uid="other")])) == ()


def test_only_pods_of_the_latest_revision_count() -> None:
    """A stateful set names it in its status, a daemon set in an annotation."""
    old, new = pod("w", waiting="ErrImagePull"), pod("w")
    old["metadata"]["labels"] = {"controller-revision-hash": "one", "pod-template-generation": "1"}
    new["metadata"]["labels"] = {"controller-revision-hash": "two", "pod-template-generation": "2"}
    assert problems(of("StatefulSet", [old, new], status={"updateRevision": "two"})) == ()
    assert len(problems(of("StatefulSet", [old, new], status={"updateRevision": "one"}))) == 1
    metadata = {"name": "cart", "uid": "w", "generation": 1}
    for generation, count in (("1", 1), ("2", 0)):
        metadata["annotations"] = {"deprecated.daemonset.template.generation": generation}
        assert len(problems(of("DaemonSet", [old, new], metadata=metadata))) == count


def test_a_job_that_failed_names_its_last_pod() -> None:
    """So that its log can be shown: of the container that ended, which nothing restarted."""
    failed = pod("w", state={"terminated": {"exitCode": 3, "reason": "Error"}})
    failed["status"]["phase"] = "Failed"
    conditions = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too many"}]
    [problem] = problems(of("Job", [failed], status={"conditions": conditions}))
    assert str(problem) == "Job cart failed (BackoffLimitExceeded: too many)"
    assert (problem.pod, problem.container, problem.has_log, problem.is_restarted) == ("w-1", "app", True, False)
    assert problems(of("Job", [failed])) == ()  # while it tries again


def test_a_pod_that_failed() -> None:
    """Nothing replaces a bare pod: how its container ended is the end."""
    failed = pod("", state={"terminated": {"exitCode": 3, "reason": "Error"}})
    failed["status"]["phase"] = "Failed"
    [problem] = problems(Objects(kind="Pod", workload=failed))
    assert str(problem) == "pod -1 failed (Error: exit status 3)"
    assert problems(Objects(kind="Pod", workload=pod("", waiting="ErrImagePull")))[0].obstacle is Obstacle.IMAGE
