"""What a Deployment's objects say about its rollout: how far it is, whether it is done, and what stands in its way.

Pure functions over manifests, with the semantics of `kubectl rollout status`; `kube.following` applies them to a cluster.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Final

from vanadium_node.errors import clip
from vanadium_node.kube.resources import Manifest, name_of, owner_uid, uid_of

REVISION: Final = "deployment.kubernetes.io/revision"


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
    Obstacle.DEADLINE: "look at its pods with 'kubectl describe'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a rollout is, in replicas."""

    name: str
    generation: int
    observed: int
    desired: int
    current: int
    updated: int
    available: int

    @classmethod
    def from_deployment(cls, deployment: Manifest) -> "Progress":
        """Read the counts of a Deployment's spec and status."""
        status = deployment.get("status") or {}
        replicas = deployment["spec"].get("replicas")
        return cls(
            name=name_of(deployment),
            generation=int(deployment["metadata"].get("generation") or 0),
            observed=int(status.get("observedGeneration") or 0),
            desired=1 if replicas is None else int(replicas),
            current=int(status.get("replicas") or 0),
            updated=int(status.get("updatedReplicas") or 0),
            available=int(status.get("availableReplicas") or 0),
        )

    @property
    def is_observed(self) -> bool:
        """Tell whether the status speaks of the spec as it is now."""
        return self.observed >= self.generation

    @property
    def is_complete(self) -> bool:
        """Tell whether all replicas are new and available, and no old one is left."""
        counts = self.updated >= self.desired and self.current <= self.updated and self.available >= self.updated
        return self.is_observed and counts

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
            f"Deployment {self.name}: generation {self.generation}{seen}, desired {self.desired}, "
            f"current {self.current}, updated {self.updated}, available {self.available}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that stands in the way: of which pod and container, the cluster's reason and words."""

    obstacle: Obstacle
    subject: str
    reason: str
    message: str
    pod: str = ""
    container: str = ""
    has_crashed: bool = False

    @property
    def key(self) -> tuple[Obstacle, str, str]:
        """What makes it the same problem a moment later, however the words change."""
        return (self.obstacle, self.subject, self.container)

    def __str__(self) -> str:
        """Return a sentence without an end."""
        words = f": {clip(self.message)}" if self.message else ""
        return f"{self.subject} {self.obstacle.sentence} ({self.reason}{words})"


def newest_replica_set(deployment: Manifest, replica_sets: Sequence[Manifest]) -> Manifest | None:
    """Return the replica set of the Deployment's latest revision, None where the status is of an older spec."""
    if not Progress.from_deployment(deployment).is_observed:
        return None
    own = [r for r in replica_sets if owner_uid(r) == uid_of(deployment)]
    newest = max(own, key=_revision, default=None)
    return newest if newest is None or _revision(newest) >= _revision(deployment) else None


def problems(deployment: Manifest, replica_sets: Sequence[Manifest], pods: Sequence[Manifest]) -> tuple[Problem, ...]:
    """Return what stands in the way of the Deployment's latest revision, the worst first."""
    found = list(_deployment_problems(deployment))
    newest = newest_replica_set(deployment, replica_sets)
    if newest is not None:
        for pod in pods:
            if owner_uid(pod) == uid_of(newest) and not pod["metadata"].get("deletionTimestamp"):
                found += _pod_problems(pod)
    return tuple(sorted(found, key=lambda p: (p.obstacle is Obstacle.DEADLINE, p.obstacle.grace, p.subject)))


def unready(deployment: Manifest, replica_sets: Sequence[Manifest], pods: Sequence[Manifest]) -> str:
    """Name a pod of the latest revision that is not ready, and why, for the message when the time is over."""
    newest = newest_replica_set(deployment, replica_sets)
    own = [p for p in pods if newest is not None and owner_uid(p) == uid_of(newest)]
    for pod in own:
        status = pod.get("status") or {}
        ready = _condition(status, "Ready")
        if ready.get("status") == "True":
            continue
        waiting = (c.get("state", {}).get("waiting", {}).get("reason") for c in _container_statuses(status))
        why = next((str(reason) for reason in waiting if reason), str(ready.get("message") or "")) or "no reason given"
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


def _deployment_problems(deployment: Manifest) -> Iterator[Problem]:
    if not Progress.from_deployment(deployment).is_observed:
        return
    status = deployment.get("status") or {}
    subject = f"Deployment {name_of(deployment)}"
    progressing = _condition(status, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        message = str(progressing.get("message", ""))
        yield Problem(obstacle=Obstacle.DEADLINE, subject=subject, reason="ProgressDeadlineExceeded", message=message)
    failure = _condition(status, "ReplicaFailure")
    if failure.get("status") == "True":
        reason, message = str(failure.get("reason", "")), str(failure.get("message", ""))
        yield Problem(obstacle=Obstacle.QUOTA, subject=f"a pod of {subject}", reason=reason, message=message)


def _container_statuses(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _pod_problems(pod: Manifest) -> Iterator[Problem]:
    status = pod.get("status") or {}
    scheduled = _condition(status, "PodScheduled")
    name = name_of(pod)
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        message = str(scheduled.get("message", ""))
        yield Problem(
            obstacle=Obstacle.UNSCHEDULABLE, subject=f"pod {name}", reason="Unschedulable", message=message, pod=name
        )
    for container in _container_statuses(status):
        problem = _container_problem(name, container)
        if problem is not None:
            yield problem


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
        has_crashed=reason == "CrashLoopBackOff" or restarts > 0,
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
