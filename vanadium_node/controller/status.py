"""What state each application is in, and what left it so: a pure function of a survey and of what the cluster agent keeps.

A command that was killed half-way leaves a Secret without a workload, a second Secret, a key that nobody holds, or a rollout that
nobody follows. Each is named here with the command that goes on from it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from vanadium_node.controller.marks import operation_of, starting_of
from vanadium_node.controller.objects import (
    CLUSTER_AGENT_DEPLOYMENT,
    application_name,
    application_of,
    key_of,
)
from vanadium_node.controller.survey import Survey
from vanadium_node.kube.injection import ANNOTATION, CONTAINER, is_injected, secret_in_use, secret_of_pod
from vanadium_node.kube.pod_state import PodState
from vanadium_node.kube.progress import Progress, is_ready
from vanadium_node.kube.resources import Manifest, name_of, owner_uid, uid_of
from vanadium_node.kube.rollout import NEXT_STEPS, Objects, newest_pods, problems
from vanadium_node.kube.workloads import template_of
from vanadium_node.secret_store import KnownSecret, key_of_secret

GC: Final = "run 'gc', or the command that was interrupted again"
RENEW: Final = "run 'update' with an EXTENSION, so that it gets a new secret"


class State(StrEnum):
    """In one word, what an application does."""

    RUNNING = "running"
    FINISHED = "finished"
    ROLLING_OUT = "rolling out"
    FAILING = "failing"
    LEFT_OVER = "left over"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about an application that a person should look at, and the next step."""

    text: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One pod of an application, and the pattern of the names that its pod agent has."""

    state: PodState
    is_new: bool
    names: tuple[str, ...]
    address: str
    node: str
    created: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """One application at one moment. `names`, `expires`, …: as the cluster agent tells them; empty where it does not."""

    namespace: str
    kind: str
    name: str
    state: State
    progress: Progress | None = None
    has_identity: bool = False
    secret: str | None = None
    secret_created: datetime | None = None
    known: KnownSecret | None = None
    images: tuple[str, ...] = ()
    replicas: tuple[Replica, ...] = ()
    findings: tuple[Finding, ...] = field(default=())

    @property
    def title(self) -> str:
        """How people name it: `Deployment/cart`."""
        return f"{self.kind}/{self.name}"


@dataclass(slots=True)
class _Index:
    """A survey by who belongs to whom, so that each application is looked at once."""

    replica_sets: Mapping[str, Sequence[Manifest]]
    pods: Mapping[str, Sequence[Manifest]]
    secrets: Mapping[tuple[str, str], Manifest]
    made_for: Mapping[tuple[str, str], Sequence[Manifest]]
    used_by_pods: frozenset[tuple[str, str]]
    known: Mapping[bytes, KnownSecret] | None

    @classmethod
    def of(cls, survey: Survey, known: Mapping[bytes, KnownSecret] | None) -> "_Index":
        pods = [w for w in survey.workloads if w["kind"] == "Pod"]
        made_for = defaultdict(list)
        for secret in survey.secrets:
            made_for[_namespace(secret), application_of(secret)].append(secret)
        living = [p for p in pods if (p.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}]
        used = {(_namespace(pod), secret_of_pod(pod["spec"]) or "") for pod in living}
        return cls(
            replica_sets=_by_owner(survey.replica_sets),
            pods=_by_owner(pods),
            secrets={(_namespace(s), name_of(s)): s for s in survey.secrets},
            made_for=made_for,
            used_by_pods=frozenset(used),
            known=known,
        )

    def objects(self, workload: Manifest) -> Objects:
        replica_sets = self.replica_sets.get(uid_of(workload), ())
        owners = [workload, *replica_sets]
        pods = [pod for owner in owners for pod in self.pods.get(uid_of(owner), ())]
        return Objects(
            kind=workload["kind"], workload=workload, replica_sets=tuple(replica_sets), pods=tuple(pods), events=()
        )

    def known_of(self, secret: Manifest | None) -> KnownSecret | None:
        key = None if secret is None else key_of(secret)
        return None if key is None or self.known is None else self.known.get(key_of_secret(key))


def applications(survey: Survey, known: Mapping[bytes, KnownSecret] | None) -> tuple[Application, ...]:
    """Return the applications of a survey: what the controller started or gave an identity, and what is left of others.

    `known`: what the cluster agent keeps, None where it does not tell.
    """
    index = _Index.of(survey, known)
    ours = [w for w in survey.workloads if _is_application(w)]
    found = [_application(workload, index) for workload in ours]
    there = {(_namespace(w), application_name(w["kind"], name_of(w))) for w in ours}
    for (namespace, made_for), secrets in index.made_for.items():
        if made_for and (namespace, made_for) not in there:
            found.append(_left_over(namespace, made_for, secrets))
    return tuple(sorted(found, key=lambda a: (a.namespace, a.kind, a.name)))


def _is_application(workload: Manifest) -> bool:
    if owner_uid(workload) or name_of(workload) == CLUSTER_AGENT_DEPLOYMENT:
        return False
    return bool(operation_of(workload)) or is_injected(workload)


def _application(workload: Manifest, index: _Index) -> Application:
    namespace, kind = _namespace(workload), str(workload["kind"])
    objects, secret_name = index.objects(workload), secret_in_use(workload)
    secret = None if secret_name is None else index.secrets.get((namespace, secret_name))
    known = index.known_of(secret)
    stuck = problems(objects)
    findings = [Finding(text=str(p), next_step=NEXT_STEPS[p.obstacle]) for p in stuck[:1]]
    findings += _of_identity(workload, secret_name, secret, index)
    if starting_of(workload) is not None:
        text = "its start is under way, or was interrupted"
        findings.append(
            Finding(text=text, next_step="if nobody waits for it, run the same 'start' again: it finishes it")
        )
    findings += _of_leftovers(namespace, workload, secret_name, index)
    findings += _of_pods(objects)
    names = known.names if known is not None else ()
    pod = template_of(workload)["spec"]
    return Application(
        namespace=namespace,
        kind=kind,
        name=name_of(workload),
        state=_state(objects, bool(stuck)),
        progress=objects.progress,
        has_identity=is_injected(workload),
        secret=secret_name,
        secret_created=None if secret is None else _created(secret),
        known=known,
        images=tuple(str(c.get("image", "")) for c in pod["containers"] if c["name"] != CONTAINER),
        replicas=tuple(_replicas(objects, names)),
        findings=tuple(findings),
    )


def _state(objects: Objects, is_stuck: bool) -> State:
    status = objects.workload.get("status") or {}
    conditions = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    if is_stuck:
        return State.FAILING
    if status.get("phase") == "Succeeded" or (objects.kind == "Job" and "Complete" in conditions):
        return State.FINISHED
    return State.RUNNING if objects.progress.is_complete else State.ROLLING_OUT


def _of_identity(
    workload: Manifest, secret_name: str | None, secret: Manifest | None, index: _Index
) -> Iterator[Finding]:
    """Say what is wrong with the secret that new replicas need."""
    if not is_injected(workload):
        return
    pod = template_of(workload)["spec"]
    if all(c["name"] != CONTAINER for c in [*(pod.get("initContainers") or ()), *pod["containers"]]):
        yield Finding(
            text="it is marked as having a pod agent, and somebody took that out", next_step="run 'update' again"
        )
    elif secret_name is None or secret is None:
        yield Finding(text=f"its Secret {secret_name or ''} is not there: new replicas cannot start", next_step=RENEW)
    elif index.known is not None and index.known_of(secret) is None:
        yield Finding(
            text="the cluster agent does not know its secret: new replicas get no blessings, and old ones cannot renew theirs",
            next_step=RENEW,
        )


def _of_leftovers(namespace: str, workload: Manifest, in_use: str | None, index: _Index) -> Iterator[Finding]:
    """Say which Secrets an interrupted command left; those that older pods still use are not left over."""
    made = index.made_for.get((namespace, application_name(workload["kind"], name_of(workload))), ())
    left = [s for s in made if name_of(s) != in_use and (namespace, name_of(s)) not in index.used_by_pods]
    if left:
        yield Finding(text=_unused(left), next_step=GC)


def _of_pods(objects: Objects) -> Iterator[Finding]:
    """Say which pods are marked as having a pod agent and have none: a webhook or a hand took it out."""
    for pod in objects.pods if objects.kind != "Pod" else ():
        containers = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
        is_marked = ANNOTATION in (pod["metadata"].get("annotations") or {})
        if is_marked and all(c["name"] != CONTAINER for c in containers):
            yield Finding(
                text=f"pod {name_of(pod)} is marked as having a pod agent, and has none",
                next_step="delete the pod, and see what changes pods when they are created ('kubectl get mutatingwebhookconfigurations')",
            )


def _replicas(objects: Objects, names: Sequence[str]) -> Iterator[Replica]:
    new = {uid_of(pod) for pod in newest_pods(objects)}
    for pod in objects.pods or ((objects.workload,) if objects.kind == "Pod" else ()):
        status = pod.get("status") or {}
        address = str(status.get("podIP") or "")
        yield Replica(
            state=PodState.of(pod),
            is_new=uid_of(pod) in new,
            names=tuple(f"{name}:{address}" for name in names if address and is_ready(pod)),
            address=address,
            node=str(pod["spec"].get("nodeName") or ""),
            created=_created(pod),
        )


def _left_over(namespace: str, made_for: str, secrets: Sequence[Manifest]) -> Application:
    kind, _, name = made_for.rpartition("/")
    return Application(
        namespace=namespace,
        kind=kind or "Deployment",
        name=name,
        state=State.LEFT_OVER,
        secret=name_of(secrets[0]),
        secret_created=_created(secrets[0]),
        findings=(Finding(text=_unused(secrets), next_step="run 'stop' or 'gc'"),),
    )


def _unused(secrets: Sequence[Manifest]) -> str:
    names = ", ".join(f"Secret {name_of(secret)}" for secret in secrets)
    return f"nothing uses {names}, and its key is still good: a command is at work, or was interrupted"


def _by_owner(items: Sequence[Manifest]) -> Mapping[str, Sequence[Manifest]]:
    found = defaultdict(list)
    for item in items:
        found[owner_uid(item)].append(item)
    return found


def _namespace(item: Manifest) -> str:
    return str(item["metadata"].get("namespace") or "")


def _created(item: Manifest) -> datetime | None:
    text = item["metadata"].get("creationTimestamp")
    return None if text is None else datetime.fromisoformat(str(text))
