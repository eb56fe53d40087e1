"""What controllers ask about pods: are they alive, ready, available, and which one may go first."""

from __future__ import annotations

from datetime import datetime, timedelta

from vanadium_node.local.api.objects import Object, copied
from vanadium_node.local.machine.conditions import condition, is_true
from vanadium_node.local.machine.owned import reference_to

ENDED = ("Succeeded", "Failed")


def phase(pod: Object) -> str:
    """Return the pod's phase."""
    return str((pod.get("status") or {}).get("phase", "Pending"))


def is_ending(obj: Object) -> bool:
    """Tell whether somebody has asked for the object's deletion."""
    return "deletionTimestamp" in obj["metadata"]


def is_active(pod: Object) -> bool:
    """Tell whether the pod counts: it has not ended, and nobody has asked it to."""
    return phase(pod) not in ENDED and not is_ending(pod)


def is_ready(pod: Object) -> bool:
    """Tell whether the pod says of itself that it is ready."""
    return is_true(pod.get("status") or {}, "Ready")


def available_in(pod: Object, min_ready_seconds: int, now: datetime) -> float | None:
    """Return in how many seconds a ready pod will be available (0: it is), None for one that is not ready."""
    ready = condition(pod.get("status") or {}, "Ready")
    if ready is None or ready.get("status") != "True":
        return None
    if min_ready_seconds <= 0:
        return 0.0
    since = datetime.fromisoformat(str(ready["lastTransitionTime"]))
    return max(0.0, (since + timedelta(seconds=min_ready_seconds) - now).total_seconds())


def least_wanted_first(pod: Object) -> tuple[bool, int, bool, tuple[int, ...]]:
    """Order pods by how little is lost with them: not on a node, not running, not ready, then the youngest."""
    order = {"Pending": 0, "Unknown": 1, "Running": 2}
    age = tuple(-ord(c) for c in str(pod["metadata"].get("creationTimestamp", "")))
    return bool(pod["spec"].get("nodeName")), order.get(phase(pod), 2), is_ready(pod), age


def from_template(owner: Object, template: Object | None = None, *, name: str = "") -> Object:
    """Return a pod made from an owner's template, or another one, controlled by the owner and named after it if not otherwise."""
    template = owner["spec"]["template"] if template is None else template
    metadata = template.get("metadata") or {}
    pod: Object = {
        "metadata": {
            **({"name": name} if name else {"generateName": f"{owner['metadata']['name']}-"}),
            "namespace": owner["metadata"]["namespace"],
            "ownerReferences": [reference_to(owner)],
        },
        "spec": copied(template.get("spec") or {}),
        "status": {"phase": "Pending"},
    }
    for key in ("labels", "annotations", "finalizers"):
        if metadata.get(key):
            pod["metadata"][key] = copied(metadata[key])
    return pod
