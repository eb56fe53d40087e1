"""A small manifest of each kind of workload."""

from typing import Any

CONTAINER = {"name": "app", "image": "example.org/app:1", "command": ["sleep", "3600"]}
LABELS = {"application": "app"}


def workload(kind: str, name: str = "app", *, restart: str = "Always", **spec: Any) -> dict[str, Any]:
    """A workload of a kind; `spec` adds to what it needs."""
    pod = {"containers": [dict(CONTAINER)], "restartPolicy": restart}
    template = {"metadata": {"labels": dict(LABELS)}, "spec": pod}
    metadata: dict[str, Any] = {"name": name}
    match kind:
        case "Pod":
            return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": pod | spec}
        case "Job":
            return {"apiVersion": "batch/v1", "kind": kind, "metadata": metadata, "spec": {"template": template} | spec}
        case "CronJob":
            job = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}
            return {"apiVersion": "batch/v1", "kind": kind, "metadata": metadata, "spec": job | spec}
    selecting: dict[str, Any] = {"selector": {"matchLabels": dict(LABELS)}, "template": template}
    if kind == "StatefulSet":
        selecting["serviceName"] = name
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": selecting | spec}


def workloads_of_each_kind(has_native_sidecars: bool) -> list[dict[str, Any]]:
    """A workload of each kind that can have an identity on a cluster with or without native sidecars."""
    found = [workload(kind) for kind in ("Deployment", "StatefulSet", "DaemonSet", "Pod")]
    if has_native_sidecars:
        found += [workload(kind, restart="Never") for kind in ("Job", "CronJob")]
    return found
