"""What a pod is doing, in the words of `kubectl get pods`: one word, how many containers are ready, how often they restarted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vanadium_node.errors import clip
from vanadium_node.kube.resources import Manifest, name_of

_Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """One pod at one moment. `word`: the most telling reason there is; `containers`: those that are to be ready."""

    name: str
    word: str
    ready: int
    containers: int
    restarts: int

    @classmethod
    def of(cls, pod: Manifest) -> "PodState":
        """Read a pod's status. Native sidecars count among its containers."""
        spec, status = pod["spec"], pod.get("status") or {}
        initial = [c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") != "Always"]
        statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        lasting = [c for c in statuses if c.get("name") not in initial]
        return cls(
            name=name_of(pod),
            word=_word(pod, initial),
            ready=sum(bool(c.get("ready")) for c in lasting),
            containers=len(spec.get("initContainers") or ()) + len(spec["containers"]) - len(initial),
            restarts=sum(int(c.get("restartCount") or 0) for c in statuses),
        )

    def __str__(self) -> str:
        """Return one line for people."""
        restarts = f", {self.restarts} restart{'s' * (self.restarts > 1)}" if self.restarts else ""
        return f"pod {self.name}: {self.word}, {self.ready}/{self.containers} ready{restarts}"


def _word(pod: Manifest, initial: Sequence[str]) -> str:
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    word = _initializing(status, initial) or next(filter(None, map(_reason, _containers(status))), None)
    return clip(str(word or status.get("reason") or _unscheduled(status) or status.get("phase") or "Pending"), 60)


def _containers(status: _Status) -> list[_Status]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _initializing(status: _Status, initial: Sequence[str]) -> str | None:
    """Return `Init:…` while an init container has not done its part, a sidecar among them cannot start; None otherwise."""
    for container in status.get("initContainerStatuses") or ():
        reason, state = _reason(container), container.get("state") or {}
        if reason is not None:
            return f"Init:{reason}"
        if container.get("name") in initial and "terminated" not in state:
            return f"Init:{initial.index(container['name'])}/{len(initial)}"
    return None


def _reason(container: _Status) -> str | None:
    """Return why the container does not run; None where it does, or ended well."""
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    if waiting.get("reason") not in {None, "", "PodInitializing"}:
        return str(waiting["reason"])
    if ended.get("exitCode"):
        return str(ended.get("reason") or f"ExitCode:{ended['exitCode']}")
    return None


def _unscheduled(status: _Status) -> str | None:
    conditions = status.get("conditions") or ()
    refused = (c for c in conditions if c.get("type") == "PodScheduled" and c.get("status") == "False")
    return next((str(c["reason"]) for c in refused if c.get("reason")), None)
