"""What a workload's objects say of what stands in the way of its rollout.

Pure functions over manifests; `kube.progress` tells how far it is, `kube.following` applies both to a cluster.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final

from vanadium_node.errors import clip
from vanadium_node.kube.progress import Progress, is_ready
from vanadium_node.kube.resources import Manifest, name_of, owner_uid, uid_of

REVISION: Final = "deployment.kubernetes.io/revision"
REVISION_HASH: Final = "controller-revision-hash"
DAEMON_GENERATION: Final = "deprecated.daemonset.template.generation"
POD_GENERATION: Final = "pod-template-generation"
"""On a DaemonSet and its pods: which template is the newest. Deprecated for years, and all that there is without its history."""

FAILED_CREATE: Final = "FailedCreate"
CREATIONS: Final = frozenset({FAILED_CREATE, "SuccessfulCreate"})


class Obstacle(Enum):
    """What can stand in the way of a rollout, and how long it may last before it counts as failure.

    The first time is short where nothing changes by waiting; it is there because the cause may just be going away: a registry
    that hiccups, a Secret made a moment later, quota that terminating pods still hold, a node that is being added.
    """

    IMAGE = ("cannot get its image", 15)
    IMAGE_NAME = ("has an image that cannot exist", 0)
    CONFIGURATION = ("cannot be set up", 15)
    CRASH_LOOP = ("ends again and again", 0)
    CRASH = ("ended", 60)
    QUOTA = ("may not be created", 15)
    UNSCHEDULABLE = ("finds no node", 60)
    FAILED = ("failed", 0)
    DEADLINE = ("exceeded its progress deadline", 0)

    def __init__(self, sentence: str, seconds: float) -> None:
        self.sentence = sentence
        self.grace = timedelta(seconds=seconds)


REASONS: Final[Mapping[str, Obstacle]] = {
    "ErrImagePull": Obstacle.IMAGE,
    "ImagePullBackOff": Obstacle.IMAGE,
    "RegistryUnavailable": Obstacle.IMAGE,
    "ErrImageNeverPull": Obstacle.IMAGE_NAME,
    "InvalidImageName": Obstacle.IMAGE_NAME,
    "CreateContainerConfigError": Obstacle.CONFIGURATION,
    "CreateContainerError": Obstacle.CONFIGURATION,
    "RunContainerError": Obstacle.CONFIGURATION,
}
"""A container's reason for waiting → what it means. CrashLoopBackOff depends on the number of restarts."""

NEVER_RAN: Final = frozenset({"StartError", "ContainerCannotRun"})
"""Reasons of an end before the beginning: the command is not there, or may not be executed."""

CRASH_LOOP_RESTARTS: Final = 2
"""Restarts after which a back-off counts as a loop: one crash at the start may be a race with what it depends on."""

NEXT_STEPS: Final[Mapping[Obstacle, str]] = {
    Obstacle.IMAGE: "check the image's name and tag, and that the cluster may pull it",
    Obstacle.IMAGE_NAME: "correct the image's name",
    Obstacle.CONFIGURATION: "correct the container's command, volumes, or the Secrets and ConfigMaps it needs",
    Obstacle.CRASH_LOOP: "correct the container's command or configuration",
    Obstacle.CRASH: "correct the container's command or configuration",
    Obstacle.QUOTA: "ask for more quota, or ask the pods to need less",
    Obstacle.UNSCHEDULABLE: "add nodes, or ask the pods to need less",
    Obstacle.FAILED: "correct its command or configuration, and start it again",
    Obstacle.DEADLINE: "look at its pods with 'kubectl describe'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that stands in the way: of which pod and container, the cluster's reason and words."""

    obstacle: Obstacle
    subject: str
    reason: str
    message: str
    pod: str = ""
    container: str = ""
    has_log: bool = False
    """The container ran and ended, so its last words may tell why."""
    is_restarted: bool = True
    """The log is that of the container before the last restart."""

    @property
    def key(self) -> tuple[Obstacle, str, str]:
        """What makes it the same problem a moment later, however the words change."""
        return (self.obstacle, self.subject, self.container)

    def __str__(self) -> str:
        """Return a sentence without an end."""
        words = f": {clip(self.message)}" if self.message else ""
        return f"{self.subject} {self.obstacle.sentence} ({self.reason}{words})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """What is known of a workload: itself, the replica sets and pods that its labels select, and events about it."""

    kind: str
    workload: Manifest
    replica_sets: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    events: tuple[Manifest, ...] = ()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return Progress.of(self.kind, self.workload, self.pods)


def newest_replica_set(deployment: Manifest, replica_sets: Sequence[Manifest]) -> Manifest | None:
    """Return the replica set of the Deployment's latest revision, None where the status is of an older spec."""
    if not Progress.of("Deployment", deployment).is_observed:
        return None
    own = [r for r in replica_sets if owner_uid(r) == uid_of(deployment)]
    newest = max(own, key=_revision, default=None)
    return newest if newest is None or _revision(newest) >= _revision(deployment) else None


def newest_pods(objects: Objects) -> list[Manifest]:
    """Return the pods of the workload's latest revision; none while that is not known."""
    workload = objects.workload
    if objects.kind == "Pod":
        return [workload]
    if objects.kind == "Deployment":
        newest = newest_replica_set(workload, objects.replica_sets)
        return [] if newest is None else [p for p in objects.pods if owner_uid(p) == uid_of(newest)]
    if not objects.progress.is_observed:
        return []
    return [p for p in objects.pods if owner_uid(p) == uid_of(workload) and _is_newest(objects.kind, workload, p)]


def problems(objects: Objects) -> tuple[Problem, ...]:
    """Return what stands in the way of the workload's latest revision, the worst first."""
    found: list[Problem] = []
    if objects.progress.is_observed:
        found += _workload_problems(objects)
    for pod in newest_pods(objects):
        if not pod["metadata"].get("deletionTimestamp"):
            found += _pod_problems(pod, ends_for_good=objects.kind == "Pod")
    return tuple(sorted(found, key=lambda p: (p.obstacle is Obstacle.DEADLINE, p.obstacle.grace, p.subject)))


def unready(objects: Objects) -> str:
    """Name a pod of the latest revision that is not ready, and why, for the message when the time is over."""
    own = newest_pods(objects)
    for pod in own:
        if is_ready(pod):
            continue
        status = pod.get("status") or {}
        waiting = (c.get("state", {}).get("waiting", {}).get("reason") for c in _container_statuses(status))
        message = _condition(status, "Ready").get("message")
        why = next((str(reason) for reason in waiting if reason), str(message or "")) or "no reason given"
        return f"pod {name_of(pod)} is {status.get('phase', 'Pending')} and not ready ({clip(why)})"
    return "" if own else "no new pod was created"


def label_selector(selector: Mapping[str, Any]) -> str:
    """Return a selector of a spec in the form of a query."""
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(expression.get("values") or ())
        match expression["operator"]:
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(str(key))
            case _:
                terms.append(f"!{key}")
    return ",".join(terms)


def _revision(manifest: Manifest) -> int:
    text = str((manifest["metadata"].get("annotations") or {}).get(REVISION, "0"))
    return int(text) if text.isdecimal() else 0


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def _is_newest(kind: str, workload: Manifest, pod: Manifest) -> bool:
    labels, metadata = pod["metadata"].get("labels") or {}, workload["metadata"]
    if kind == "StatefulSet":
        return bool(labels.get(REVISION_HASH) == (workload.get("status") or {}).get("updateRevision"))
    if kind == "DaemonSet":
        generation = (metadata.get("annotations") or {}).get(DAEMON_GENERATION)
        return generation is None or labels.get(POD_GENERATION, generation) == generation
    return True


def _workload_problems(objects: Objects) -> Iterator[Problem]:
    status = objects.workload.get("status") or {}
    subject = f"{objects.kind} {name_of(objects.workload)}"
    progressing = _condition(status, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        message = str(progressing.get("message", ""))
        yield Problem(obstacle=Obstacle.DEADLINE, subject=subject, reason="ProgressDeadlineExceeded", message=message)
    failure = _condition(status, "ReplicaFailure")
    if failure.get("status") == "True":
        yield _not_created(subject, failure)
    refused = _latest_creation(objects)
    if refused.get("reason") == FAILED_CREATE:
        yield _not_created(subject, refused)
    failed = _condition(status, "Failed")
    if objects.kind == "Job" and failed.get("status") == "True":
        yield _failed_job(objects, subject, failed)


def _not_created(subject: str, why: Mapping[str, Any]) -> Problem:
    reason, message = str(why.get("reason", "")), str(why.get("message", ""))
    return Problem(obstacle=Obstacle.QUOTA, subject=f"a pod of {subject}", reason=reason, message=message)


def _latest_creation(objects: Objects) -> Mapping[str, Any]:
    """Return the latest event about the creation of a pod: only Deployments have a condition that tells of failures."""
    uid = uid_of(objects.workload)
    about = [e for e in objects.events if e.get("reason") in CREATIONS and e["involvedObject"].get("uid") == uid]
    return max(about, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""), default={})


def _failed_job(objects: Objects, subject: str, failed: Mapping[str, Any]) -> Problem:
    """Name the pod that failed last, so that its log can be shown."""
    pods = [p for p in newest_pods(objects) if (p.get("status") or {}).get("phase") == "Failed"]
    last = max(pods, key=lambda p: str(p["metadata"].get("creationTimestamp", "")), default=None)
    ended = None if last is None else next(_ended(last), None)
    return Problem(
        obstacle=Obstacle.FAILED,
        subject=subject,
        reason=str(failed.get("reason", "")),
        message=str(failed.get("message", "")),
        pod="" if last is None else name_of(last),
        container="" if ended is None else str(ended["name"]),
        has_log=ended is not None,
        is_restarted=False,
    )


def _container_statuses(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _ended(pod: Manifest) -> Iterator[Mapping[str, Any]]:
    """Yield the status of each container that ended with an error and is not restarted."""
    for container in _container_statuses(pod.get("status") or {}):
        terminated = (container.get("state") or {}).get("terminated") or {}
        if int(terminated.get("exitCode") or 0) != 0:
            yield container


def _pod_problems(pod: Manifest, *, ends_for_good: bool) -> Iterator[Problem]:
    status = pod.get("status") or {}
    scheduled = _condition(status, "PodScheduled")
    name = name_of(pod)
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        message = str(scheduled.get("message", ""))
        yield Problem(
            obstacle=Obstacle.UNSCHEDULABLE, subject=f"pod {name}", reason="Unschedulable", message=message, pod=name
        )
    if ends_for_good and status.get("phase") == "Failed":
        yield _failed_pod(pod)
        return
    for container in _container_statuses(status):
        problem = _container_problem(name, container)
        if problem is not None:
            yield problem


def _failed_pod(pod: Manifest) -> Problem:
    status, ended = pod["status"], next(_ended(pod), None)
    reason = status.get("reason") or ("" if ended is None else ended["state"]["terminated"].get("reason")) or "Failed"
    words = "" if ended is None else f"exit status {ended['state']['terminated'].get('exitCode')}"
    return Problem(
        obstacle=Obstacle.FAILED,
        subject=f"pod {name_of(pod)}",
        reason=str(reason),
        message=str(status.get("message") or words),
        pod=name_of(pod),
        container="" if ended is None else str(ended["name"]),
        has_log=ended is not None,
        is_restarted=False,
    )


def _container_problem(pod: str, status: Mapping[str, Any]) -> Problem | None:
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason = str(waiting.get("reason", ""))
    restarts = int(status.get("restartCount") or 0)
    if reason == "CrashLoopBackOff" and _terminated(status).get("reason") in NEVER_RAN:
        obstacle = Obstacle.CONFIGURATION
    elif reason == "CrashLoopBackOff":
        obstacle = Obstacle.CRASH_LOOP if restarts >= CRASH_LOOP_RESTARTS else Obstacle.CRASH
    elif reason in REASONS:
        obstacle = REASONS[reason]
    else:
        return None
    container = str(status.get("name", ""))
    return Problem(
        obstacle=obstacle,
        subject=f"container '{container}' of pod {pod}",
        reason=reason,
        message=_last_words(status) or str(waiting.get("message", "")),
        pod=pod,
        container=container,
        has_log=reason == "CrashLoopBackOff" or restarts > 0,
    )


def _terminated(status: Mapping[str, Any]) -> Mapping[str, Any]:
    return (status.get("lastState") or {}).get("terminated") or {}


def _last_words(status: Mapping[str, Any]) -> str:
    """Return how the container ended the last time: more telling than 'back-off 20s restarting failed container'."""
    ended = _terminated(status)
    if not ended:
        return ""
    words = f"exit status {ended.get('exitCode')}"
    details = [str(ended[k]) for k in ("reason", "message") if ended.get(k) and ended[k] != "Error"]
    return ", ".join([words, *details])
