"""Fields of a pod that its containers may be told: `fieldRef` and `resourceFieldRef`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from vanadium_node.local.api.objects import Object
from vanadium_node.local.machine.quantities import in_units_of

_SUBSCRIPT: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_PLAIN: Final = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "metadata.uid": ("metadata", "uid"),
    "spec.nodeName": ("spec", "nodeName"),
    "spec.serviceAccountName": ("spec", "serviceAccountName"),
    "status.hostIP": ("status", "hostIP"),
    "status.podIP": ("status", "podIP"),
}
_LISTS: Final = {"status.podIPs": ("podIPs", "ip"), "status.hostIPs": ("hostIPs", "ip")}


def pod_field(pod: Object, path: str) -> str | None:
    """Return the value of a field, None for a path that cannot be referred to."""
    if path in _PLAIN:
        part, key = _PLAIN[path]
        return str((pod.get(part) or {}).get(key, ""))
    if path in _LISTS:
        key, inner = _LISTS[path]
        return ",".join(str(entry[inner]) for entry in (pod.get("status") or {}).get(key) or ())
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        return str((pod["metadata"].get(subscript[1]) or {}).get(subscript[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        values: Mapping[str, str] = pod["metadata"].get(path.partition(".")[2]) or {}
        return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted(values.items()))
    return None


def resource_field(pod: Object, container: str, reference: Mapping[str, Any]) -> str | None:
    """Return a container's request or limit in units of the reference's divisor; what is not limited counts as 0."""
    name = str(reference.get("containerName") or container)
    spec = pod["spec"]
    every = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    found = next((c for c in every if c.get("name") == name), None)
    part, _, resource = str(reference.get("resource", "")).partition(".")
    if found is None or part not in ("limits", "requests"):
        return None
    resources = found.get("resources") or {}
    value = str((resources.get(part) or {}).get(resource) or (resources.get("limits") or {}).get(resource) or "0")
    return in_units_of(value, str(reference.get("divisor") or "1"))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
