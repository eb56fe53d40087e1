"""The kinds of objects that the embedded API stores: one table, and the look-ups that requests need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

SERVER_MINOR: Final = 33
SERVER_VERSION: Final = f"v1.{SERVER_MINOR}.0"
"""The release of Kubernetes whose behaviour the embedded cluster follows (native sidecars included)."""

VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceType:
    """A kind of object and where it is served.

    `subresources` are the writable or readable parts with a path of their own, such as `status` and `scale`;
    `has_generation` says that a change of anything but metadata and status counts as a new generation.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = field(default_factory=frozenset)
    has_generation: bool = False

    @property
    def api_version(self) -> str:
        """Return the `apiVersion` of the kind's objects: `apps/v1`, `v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """Return the resource's name as error messages have it: `deployments.apps`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        """Return the name that people may use for one object."""
        return self.kind.lower()

    @property
    def has_status(self) -> bool:
        """Tell whether the status is written through a path of its own."""
        return "status" in self.subresources

    @property
    def path(self) -> str:
        """Return the path under which the group's version is served: `/api/v1`, `/apis/apps/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def _kind(
    api_version: str,
    kind: str,
    plural: str,
    *short_names: str,
    namespaced: bool = True,
    categories: Iterable[str] = (),
    subresources: Iterable[str] = (),
    generation: bool = False,
) -> ResourceType:
    group, _, version = api_version.rpartition("/")
    return ResourceType(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        namespaced=namespaced,
        short_names=short_names,
        categories=tuple(categories),
        subresources=frozenset(subresources),
        has_generation=generation,
    )


_STATUS: Final = ("status",)
_SCALED: Final = ("status", "scale")
_ALL: Final = ("all",)

NAMESPACE: Final = _kind("v1", "Namespace", "namespaces", "ns", namespaced=False, subresources=_STATUS)
NODE: Final = _kind("v1", "Node", "nodes", "no", namespaced=False, subresources=_STATUS)
SECRET: Final = _kind("v1", "Secret", "secrets")
CONFIG_MAP: Final = _kind("v1", "ConfigMap", "configmaps", "cm")
SERVICE: Final = _kind("v1", "Service", "services", "svc", categories=_ALL, subresources=_STATUS)
ENDPOINTS: Final = _kind("v1", "Endpoints", "endpoints", "ep")
EVENT: Final = _kind("v1", "Event", "events", "ev")
POD: Final = _kind(
    "v1", "Pod", "pods", "po", categories=_ALL, subresources=("status", "log", "binding", "eviction"), generation=True
)
REPLICATION_CONTROLLER: Final = _kind(
    "v1",
    "ReplicationController",
    "replicationcontrollers",
    "rc",
    categories=_ALL,
    subresources=_SCALED,
    generation=True,
)
SERVICE_ACCOUNT: Final = _kind("v1", "ServiceAccount", "serviceaccounts", "sa")
PERSISTENT_VOLUME_CLAIM: Final = _kind(
    "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", subresources=_STATUS
)
PERSISTENT_VOLUME: Final = _kind(
    "v1", "PersistentVolume", "persistentvolumes", "pv", namespaced=False, subresources=_STATUS
)
RESOURCE_QUOTA: Final = _kind("v1", "ResourceQuota", "resourcequotas", "quota", subresources=_STATUS)
LIMIT_RANGE: Final = _kind("v1", "LimitRange", "limitranges", "limits")
DEPLOYMENT: Final = _kind(
    "apps/v1", "Deployment", "deployments", "deploy", categories=_ALL, subresources=_SCALED, generation=True
)
REPLICA_SET: Final = _kind(
    "apps/v1", "ReplicaSet", "replicasets", "rs", categories=_ALL, subresources=_SCALED, generation=True
)
STATEFUL_SET: Final = _kind(
    "apps/v1", "StatefulSet", "statefulsets", "sts", categories=_ALL, subresources=_SCALED, generation=True
)
DAEMON_SET: Final = _kind(
    "apps/v1", "DaemonSet", "daemonsets", "ds", categories=_ALL, subresources=_STATUS, generation=True
)
CONTROLLER_REVISION: Final = _kind("apps/v1", "ControllerRevision", "controllerrevisions")
JOB: Final = _kind("batch/v1", "Job", "jobs", categories=_ALL, subresources=_STATUS, generation=True)
CRON_JOB: Final = _kind("batch/v1", "CronJob", "cronjobs", "cj", categories=_ALL, subresources=_STATUS, generation=True)
AUTOSCALER: Final = _kind(
    "autoscaling/v2",
    "HorizontalPodAutoscaler",
    "horizontalpodautoscalers",
    "hpa",
    categories=_ALL,
    subresources=_STATUS,
)
NEW_EVENT: Final = _kind("events.k8s.io/v1", "Event", "events")
"""The events of the core group in the newer form; kept as core events."""
LEASE: Final = _kind("coordination.k8s.io/v1", "Lease", "leases")
ENDPOINT_SLICE: Final = _kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
NETWORK_POLICY: Final = _kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", generation=True)
INGRESS: Final = _kind("networking.k8s.io/v1", "Ingress", "ingresses", "ing", subresources=_STATUS, generation=True)
DISRUPTION_BUDGET: Final = _kind(
    "policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", subresources=_STATUS, generation=True
)
ROLE: Final = _kind("rbac.authorization.k8s.io/v1", "Role", "roles")
ROLE_BINDING: Final = _kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE: Final = _kind("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING: Final = _kind(
    "rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
PRIORITY_CLASS: Final = _kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", namespaced=False)
STORAGE_CLASS: Final = _kind("storage.k8s.io/v1", "StorageClass", "storageclasses", "sc", namespaced=False)

RESOURCES: Final[tuple[ResourceType, ...]] = (
    NAMESPACE,
    NODE,
    SECRET,
    CONFIG_MAP,
    SERVICE,
    ENDPOINTS,
    EVENT,
    POD,
    REPLICATION_CONTROLLER,
    SERVICE_ACCOUNT,
    PERSISTENT_VOLUME_CLAIM,
    PERSISTENT_VOLUME,
    RESOURCE_QUOTA,
    LIMIT_RANGE,
    DEPLOYMENT,
    REPLICA_SET,
    STATEFUL_SET,
    DAEMON_SET,
    CONTROLLER_REVISION,
    JOB,
    CRON_JOB,
    AUTOSCALER,
    NEW_EVENT,
    LEASE,
    ENDPOINT_SLICE,
    NETWORK_POLICY,
    INGRESS,
    DISRUPTION_BUDGET,
    ROLE,
    ROLE_BINDING,
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    PRIORITY_CLASS,
    STORAGE_CLASS,
)
"""Every kind that is stored, in the order of discovery."""

_BY_PLURAL: Final[Mapping[tuple[str, str, str], ResourceType]] = MappingProxyType(
    {(r.group, r.version, r.plural): r for r in RESOURCES}
)
_BY_KIND: Final[Mapping[tuple[str, str], ResourceType]] = MappingProxyType(
    {(r.api_version, r.kind): r for r in RESOURCES}
)


def by_plural(group: str, version: str, plural: str) -> ResourceType | None:
    """Return the resource that is served under these parts of a path."""
    return _BY_PLURAL.get((group, version, plural))


def by_kind(api_version: str, kind: str) -> ResourceType | None:
    """Return the resource of an object's `apiVersion` and `kind`."""
    return _BY_KIND.get((api_version, kind))


def group_versions() -> tuple[tuple[str, str], ...]:
    """Return every (group, version) served, the core group first."""
    return tuple(dict.fromkeys((r.group, r.version) for r in RESOURCES))
