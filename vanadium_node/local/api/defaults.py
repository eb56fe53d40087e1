"""The values that the API fills in where an object says nothing, kind by kind, as the real API server does."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from vanadium_node.local.api import kinds
from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import Object
from vanadium_node.local.api.pod_defaults import fill_pod, fill_pod_spec

_WITHOUT_STATUS_AT_FIRST: Final = frozenset(
    {
        kinds.POD,
        kinds.SERVICE,
        kinds.DEPLOYMENT,
        kinds.REPLICA_SET,
        kinds.STATEFUL_SET,
        kinds.DAEMON_SET,
        kinds.JOB,
        kinds.CRON_JOB,
        kinds.AUTOSCALER,
        kinds.DISRUPTION_BUDGET,
        kinds.INGRESS,
    }
)
"""Kinds whose status a client cannot set when it makes an object."""


def set_all(target: Object, **values: Any) -> None:
    """Set the fields that are not there."""
    for key, value in values.items():
        target.setdefault(key, value)


def fill(resource: ResourceType, obj: Object) -> None:
    """Fill in the defaults of an object's kind, in place."""
    filler = _FILLERS.get(resource)
    if filler is not None:
        filler(obj)


def begin(resource: ResourceType, obj: Object) -> None:
    """Give a new object the status it begins with, in place."""
    if resource in _WITHOUT_STATUS_AT_FIRST:
        obj.pop("status", None)
    if resource.has_status:
        obj.setdefault("status", {})
    if resource is kinds.NAMESPACE:
        obj["status"] = {"phase": "Active"}
    elif resource is kinds.POD:
        obj["status"] = {"phase": "Pending", "qosClass": quality_of_service(obj)}
    elif resource is kinds.SERVICE:
        obj["status"] = {"loadBalancer": {}}
    elif resource is kinds.PERSISTENT_VOLUME_CLAIM:
        set_all(obj["status"], phase="Pending")


def quality_of_service(pod: Object) -> str:
    """Return the class of a pod by its requests and limits: Guaranteed, Burstable or BestEffort."""
    containers = [*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ())]
    resources = [c.get("resources") or {} for c in containers]
    if not any(r.get("requests") or r.get("limits") for r in resources):
        return "BestEffort"
    is_guaranteed = all(
        {"cpu", "memory"} <= (r.get("limits") or {}).keys() and (r.get("requests") or r["limits"]) == r["limits"]
        for r in resources
    )
    return "Guaranteed" if is_guaranteed else "Burstable"


def _deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    set_all(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.setdefault("strategy", {})
    set_all(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        set_all(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")
    _template(spec)


def _replica_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    set_all(spec, replicas=1)
    _template(spec)


def _stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    set_all(spec, replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady", serviceName="")
    strategy = spec.setdefault("updateStrategy", {})
    set_all(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        set_all(strategy.setdefault("rollingUpdate", {}), partition=0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    set_all(retention, whenDeleted="Retain", whenScaled="Retain")
    for claim in spec.get("volumeClaimTemplates") or ():
        set_all(claim, apiVersion="v1", kind="PersistentVolumeClaim", status={"phase": "Pending"})
        set_all(claim.setdefault("spec", {}), volumeMode="Filesystem")
    _template(spec)


def _daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    set_all(spec, revisionHistoryLimit=10)
    strategy = spec.setdefault("updateStrategy", {})
    set_all(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        set_all(strategy.setdefault("rollingUpdate", {}), maxUnavailable=1, maxSurge=0)
    _template(spec)


def _job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    set_all(spec, parallelism=1, backoffLimit=6, completionMode="NonIndexed", suspend=False)
    set_all(spec, podReplacementPolicy="TerminatingOrFailed", manualSelector=False)
    _template(spec)
    uid = obj["metadata"].get("uid")
    if uid and not spec["manualSelector"]:
        name = obj["metadata"]["name"]
        marks = {"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid}
        named = {"batch.kubernetes.io/job-name": name, "job-name": name}
        spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
        labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        set_all(labels, **marks, **named)


def _cron_job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    set_all(spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1)
    template = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
    _template(template)


def _template(spec: Object) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    fill_pod_spec(template.setdefault("spec", {}))


def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    set_all(spec, type="ClusterIP", sessionAffinity="None")
    for port in spec.get("ports") or ():
        set_all(port, protocol="TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port")
    if spec["type"] == "ExternalName":
        return
    set_all(spec, internalTrafficPolicy="Cluster", ipFamilyPolicy="SingleStack", ipFamilies=["IPv4"])
    if spec["type"] in ("NodePort", "LoadBalancer"):
        set_all(spec, externalTrafficPolicy="Cluster")
    if spec["type"] == "LoadBalancer":
        set_all(spec, allocateLoadBalancerNodePorts=True)
    if spec["sessionAffinity"] == "ClientIP":
        set_all(spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {}), timeoutSeconds=10800)


def _secret(obj: Object) -> None:
    set_all(obj, type="Opaque")
    for key, text in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(str(text).encode()).decode()


def _namespace(obj: Object) -> None:
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]


def _network_policy(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    set_all(spec, policyTypes=["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def _binding(obj: Object) -> None:
    set_all(obj.setdefault("roleRef", {}), apiGroup="rbac.authorization.k8s.io")
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            set_all(subject, apiGroup="rbac.authorization.k8s.io")


def _volume_claim(obj: Object) -> None:
    set_all(obj.setdefault("spec", {}), volumeMode="Filesystem")


def _volume(obj: Object) -> None:
    set_all(obj.setdefault("spec", {}), volumeMode="Filesystem", persistentVolumeReclaimPolicy="Retain")


def _storage_class(obj: Object) -> None:
    set_all(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")


def _priority_class(obj: Object) -> None:
    set_all(obj, preemptionPolicy="PreemptLowerPriority")


def _autoscaler(obj: Object) -> None:
    set_all(obj.setdefault("spec", {}), minReplicas=1)


_FILLERS: Final[Mapping[ResourceType, Callable[[Object], None]]] = MappingProxyType(
    {
        kinds.NAMESPACE: _namespace,
        kinds.SECRET: _secret,
        kinds.SERVICE: _service,
        kinds.POD: fill_pod,
        kinds.PERSISTENT_VOLUME_CLAIM: _volume_claim,
        kinds.PERSISTENT_VOLUME: _volume,
        kinds.DEPLOYMENT: _deployment,
        kinds.REPLICA_SET: _replica_set,
        kinds.STATEFUL_SET: _stateful_set,
        kinds.DAEMON_SET: _daemon_set,
        kinds.JOB: _job,
        kinds.CRON_JOB: _cron_job,
        kinds.AUTOSCALER: _autoscaler,
        kinds.NETWORK_POLICY: _network_policy,
        kinds.ROLE_BINDING: _binding,
        kinds.CLUSTER_ROLE_BINDING: _binding,
        kinds.PRIORITY_CLASS: _priority_class,
        kinds.STORAGE_CLASS: _storage_class,
    }
)
