"""The status of a pod as a kubelet writes it, made from what is known of its containers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from vanadium_node.local.api.objects import Object, copied
from vanadium_node.local.machine.conditions import set_condition
from vanadium_node.local.machine.images import normalized

DEFAULT_GRACE_SECONDS: Final = 30
CREATING: Final[Object] = {"waiting": {"reason": "ContainerCreating"}}


@dataclass(slots=True, kw_only=True)
class ContainerRecord:
    """What is known of one container; its runner writes it, the status is made from it."""

    name: str
    image: str
    is_init: bool = False
    is_sidecar: bool = False
    state: Object = field(default_factory=lambda: copied(CREATING))
    last_state: Object = field(default_factory=dict)
    restarts: int = 0
    is_ready: bool = False
    is_started: bool = False
    identifier: str = ""

    @property
    def field_path(self) -> str:
        """Return how events name the container."""
        return f"spec.{'initContainers' if self.is_init else 'containers'}{{{self.name}}}"

    @property
    def is_running(self) -> bool:
        """Tell whether its process runs."""
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        """Return how it ended, None while it has not ended for good."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    @property
    def is_initialized(self) -> bool:
        """Tell whether what comes after this init container may start."""
        return self.is_started if self.is_sidecar else self.exit_code == 0

    def to_status(self) -> Object:
        """Return the container's part of the pod's status."""
        status: Object = {
            "name": self.name,
            "state": copied(self.state),
            "lastState": copied(self.last_state),
            "ready": self.is_ready if not self.is_init or self.is_sidecar else self.exit_code == 0,
            "restartCount": self.restarts,
            "image": normalized(self.image),
            "imageID": f"local/{normalized(self.image)}" if self.identifier else "",
            "started": self.is_started,
        }
        if self.identifier:
            status["containerID"] = self.identifier
        return status


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What else a status tells: addresses, when it began (RFC 3339), whether its sandbox (directories, address) is there."""

    address: str
    node_address: str
    start_time: str
    is_set_up: bool = True


def phase_of(pod: Object, records: Sequence[ContainerRecord]) -> str:
    """Return a pod's phase from the states of its containers."""
    policy = pod["spec"].get("restartPolicy", "Always")
    inits = [record for record in records if record.is_init]
    apps = [record for record in records if not record.is_init]
    if any((r.exit_code or 0) != 0 and policy == "Never" for r in inits if not r.is_sidecar):
        return "Failed"
    if not all(record.is_initialized or (record.is_sidecar and record.last_state) for record in inits):
        started = any(record.is_running or record.exit_code is not None or record.last_state for record in apps)
        if not started:
            return "Pending"
    if any("waiting" in record.state and not record.last_state for record in apps):
        return "Pending"
    if any(record.is_running for record in apps):
        return "Running"
    if any("waiting" in record.state for record in apps):
        return "Running"
    if policy == "Always":
        return "Running"
    if all(record.exit_code == 0 for record in apps):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def pod_status(pod: Object, records: Sequence[ContainerRecord], facts: PodFacts, now: str) -> Object:
    """Return the whole status of a pod."""
    old = pod.get("status") or {}
    status: Object = copied(old)
    status["phase"] = phase_of(pod, records)
    status["hostIP"] = facts.node_address
    status["hostIPs"] = [{"ip": facts.node_address}]
    status["startTime"] = facts.start_time
    status.setdefault("qosClass", qos_class(pod))
    if facts.address:
        status["podIP"] = facts.address
        status["podIPs"] = [{"ip": facts.address}]
    for key, members in (("initContainerStatuses", True), ("containerStatuses", False)):
        statuses = [record.to_status() for record in records if record.is_init is members]
        if statuses:
            status[key] = statuses
    for made in _conditions(status["phase"], records, facts):
        set_condition(status, {"lastProbeTime": None, **made}, now)
    return status


def _conditions(phase: str, records: Sequence[ContainerRecord], facts: PodFacts) -> tuple[Object, ...]:
    waiting = [r.name for r in records if r.is_init and not r.is_initialized]
    unready = [r.name for r in records if (not r.is_init or r.is_sidecar) and not r.is_ready]
    has_begun = any(r.is_running or r.exit_code is not None or r.last_state for r in records if not r.is_init)
    ready = _condition("Ready", not unready and not waiting, "ContainersNotReady", _unready(unready))
    containers = {**ready, "type": "ContainersReady"}
    initialized = _condition(
        "Initialized",
        not waiting or has_begun,
        "ContainersNotInitialized",
        f"containers with incomplete status: [{' '.join(waiting)}]",
    )
    if phase in ("Succeeded", "Failed"):
        reason = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        ready = {"type": "Ready", "status": "False", "reason": reason}
        containers = {"type": "ContainersReady", "status": "False", "reason": reason}
        if phase == "Succeeded":
            initialized = {"type": "Initialized", "status": "True", "reason": reason}
    set_up = {
        "type": "PodReadyToStartContainers",
        "status": "True" if facts.is_set_up and phase not in ("Succeeded", "Failed") else "False",
    }
    return set_up, initialized, ready, containers, {"type": "PodScheduled", "status": "True"}


def _condition(kind: str, holds: bool, reason: str, message: str) -> Object:
    if holds:
        return {"type": kind, "status": "True"}
    return {"type": kind, "status": "False", "reason": reason, "message": message}


def _unready(names: Sequence[str]) -> str:
    return f"containers with unready status: [{' '.join(names)}]"


def grace_seconds(pod: Object) -> int:
    """Return how long a pod may take to end; 0 is a time, too."""
    given = pod["spec"].get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_SECONDS if given is None else int(given)


def qos_class(pod: Object) -> str:
    """Return the pod's quality of service class."""
    containers = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
    resources = [container.get("resources") or {} for container in containers]
    if not any(r.get("limits") or r.get("requests") for r in resources):
        return "BestEffort"
    for r in resources:
        limits, requests = r.get("limits") or {}, r.get("requests") or {}
        if not {"cpu", "memory"} <= limits.keys() or any(requests.get(k, v) != v for k, v in limits.items()):
            return "Burstable"
    return "Guaranteed"
