"""The Kubernetes objects that the controller makes, as pure functions of settings and names."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from vanadium_node.controller.settings import CLUSTER_AGENT_PORT, HEALTH_PORT, ClusterAgentSettings
from vanadium_node.kube.injection import GROUP, SECRET_KEY, restricted
from vanadium_node.kube.resources import Manifest

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
US: Final = "vanadium-node"
APPLICATION: Final = "vanadium.v.io/application"
"""On a Secret: the workload it was made for. An annotation, since names may be longer than labels."""

MADE_FOR: Final = "vanadium.v.io/made-for"
"""On a Secret, as a label: a digest of the same, by which the server finds it among thousands."""

CLUSTER_AGENT_DEPLOYMENT: Final = "cluster-agentd"
CLUSTER_AGENT_SERVICE: Final = "cluster-agent"
CLUSTER_AGENT_LABELS: Final[Mapping[str, str]] = {"application": "cluster-agentd"}
DATA_DIRECTORY: Final = "/data"
KEPT_ANNOTATIONS: Final = "deployment.kubernetes.io/"


def namespace(name: str) -> Manifest:
    """Return a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def secret(name: str, application: str, key: str) -> Manifest:
    """Return the Secret that holds an application's key to the cluster agent."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": {MANAGED_BY: US, MADE_FOR: digest_of(application)},
            "annotations": {APPLICATION: application},
        },
        "type": "Opaque",
        "data": {SECRET_KEY: base64.b64encode(key.encode()).decode()},
    }


def key_of(stored: Manifest) -> str | None:
    """Return the key that such a Secret holds, None where it holds none."""
    try:
        return base64.b64decode(stored["data"][SECRET_KEY], validate=True).decode()
    except (KeyError, TypeError, ValueError):
        return None


def application_name(kind: str, name: str) -> str:
    """Return how a Secret names the workload it was made for: a Deployment by its name alone, any other as `Job/NAME`."""
    return name if kind == "Deployment" else f"{kind}/{name}"


def digest_of(application: str) -> str:
    """Return the value of the label for an application's name: 128 bits of its SHA-256."""
    return hashlib.sha256(application.encode()).hexdigest()[:32]


def application_of(stored: Manifest) -> str:
    """Return the name of the application that a Secret was made for, `""` where it was made by somebody else."""
    return str((stored["metadata"].get("annotations") or {}).get(APPLICATION, ""))


def replacement(live: Manifest, wanted: Manifest) -> Manifest:
    """Return what to write over the live workload: the wanted labels, annotations and spec, in the live one's place.

    The number of replicas is kept where the file names none: somebody, or an autoscaler, may have chosen it.
    """
    old, new = live["metadata"], wanted["metadata"]
    kept = {k: v for k, v in (old.get("annotations") or {}).items() if k.startswith(KEPT_ANNOTATIONS)}
    metadata = {
        **{k: v for k, v in old.items() if k not in {"managedFields", "labels"}},
        "annotations": {**kept, **(new.get("annotations") or {})},
    }
    if new.get("labels"):
        metadata["labels"] = new["labels"]
    spec = dict(wanted["spec"])
    if spec.get("replicas") is None and live["spec"].get("replicas") is not None:
        spec["replicas"] = live["spec"]["replicas"]
    return {**{k: v for k, v in wanted.items() if k != "status"}, "metadata": metadata, "spec": spec}


def cluster_agent_deployment(settings: ClusterAgentSettings, *, root_blessings: str, claimer: str) -> Manifest:
    """Return the cluster agent: one replica, replaced by stopping it first, since two would share one disk."""
    resources = {"cpu": settings.cpu, "memory": settings.memory}
    # Not `/readyz`: one that is not ready, because its disk is full or it has no owner yet, serves what it can, and is claimed.
    connects = {"tcpSocket": {"port": CLUSTER_AGENT_PORT}}
    lives = {"httpGet": {"path": "/livez", "port": HEALTH_PORT}, "timeoutSeconds": 10}
    container = {
        "name": "cluster-agent",
        "image": settings.image,
        "args": ["cluster-agent"],
        "env": [
            {"name": "ROOT_BLESSINGS", "value": root_blessings},
            {"name": "CLAIMER", "value": claimer},
            {"name": "ADMIN", "value": ",".join(settings.admin)},
            {"name": "DATADIR", "value": DATA_DIRECTORY},
            {"name": "LISTEN", "value": f":{CLUSTER_AGENT_PORT}"},
            {"name": "HEALTH_LISTEN", "value": f":{HEALTH_PORT}"},
        ],
        "ports": [
            {"name": "agent", "containerPort": CLUSTER_AGENT_PORT},
            {"name": "health", "containerPort": HEALTH_PORT},
        ],
        "volumeMounts": [{"name": "data", "mountPath": DATA_DIRECTORY}],
        "startupProbe": {**connects, "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {**connects, "periodSeconds": 10},
        "livenessProbe": {**lives, "periodSeconds": 20, "failureThreshold": 3},
        "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": restricted(),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": CLUSTER_AGENT_DEPLOYMENT, "labels": {**CLUSTER_AGENT_LABELS, MANAGED_BY: US}},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": dict(CLUSTER_AGENT_LABELS)},
            "template": {
                "metadata": {"labels": dict(CLUSTER_AGENT_LABELS)},
                "spec": {
                    "automountServiceAccountToken": False,
                    "containers": [container],
                    "securityContext": {"fsGroup": GROUP},
                    "volumes": [{"name": "data", **_data_volume(settings)}],
                },
            },
        },
    }


def _data_volume(settings: ClusterAgentSettings) -> dict[str, Any]:
    if settings.persistent_disk is not None:
        return {"gcePersistentDisk": {"pdName": settings.persistent_disk, "fsType": "ext4"}}
    if settings.persistent_volume_claim is not None:
        return {"persistentVolumeClaim": {"claimName": settings.persistent_volume_claim}}
    return {"emptyDir": {}}


def cluster_agent_service(settings: ClusterAgentSettings) -> Manifest:
    """Return the Service in front of the cluster agent: a load balancer, unless it is internal.

    It leads to the one replica also when that is not ready, because its disk is full or a record of many is damaged: that is
    for people to see, and no reason to keep its blessings from everybody.
    """
    spec: dict[str, Any] = {
        "ports": [{"name": "agent", "port": CLUSTER_AGENT_PORT, "targetPort": CLUSTER_AGENT_PORT}],
        "selector": dict(CLUSTER_AGENT_LABELS),
        "publishNotReadyAddresses": True,
        "type": "ClusterIP" if settings.internal_only else "LoadBalancer",
    }
    if settings.external_ip is not None and not settings.internal_only:
        spec["loadBalancerIP"] = settings.external_ip
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": CLUSTER_AGENT_SERVICE, "labels": {**CLUSTER_AGENT_LABELS, MANAGED_BY: US}},
        "spec": spec,
    }
