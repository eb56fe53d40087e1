"""The kinds of workloads that can have an identity, and where each keeps the template of its pods.

Everything that differs from kind to kind and is not about progress is in one table here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vanadium_node.kube.client import ServerVersion
from vanadium_node.kube.resources import Manifest, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadKind:
    """A kind of workload.

    `template`: the keys that lead to the pod template; a Pod is its own. `selects`: it finds its pods by the labels that its
    manifest gives them. `is_fixed`: the cluster does not let its pods be changed. `old_versions`: API versions that are gone.
    """

    resource: Resource
    template: tuple[str, ...] = ("spec", "template")
    selects: bool = False
    is_fixed: bool = False
    old_versions: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The kind as manifests name it: `StatefulSet`."""
        return self.resource.kind


OLD_APPS: Final = frozenset({"extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"})
CRON_JOB_BETA: Final = Resource(api_version="batch/v1beta1", kind="CronJob", plural="cronjobs")


def _kind(api_version: str, kind: str, plural: str, **rest: Any) -> WorkloadKind:
    return WorkloadKind(resource=Resource(api_version=api_version, kind=kind, plural=plural), **rest)


KINDS: Final[Mapping[str, WorkloadKind]] = {
    kind.name: kind
    for kind in (
        _kind("apps/v1", "Deployment", "deployments", selects=True, old_versions=OLD_APPS),
        _kind("apps/v1", "StatefulSet", "statefulsets", selects=True, old_versions=OLD_APPS),
        _kind("apps/v1", "DaemonSet", "daemonsets", selects=True, old_versions=OLD_APPS),
        _kind("batch/v1", "Job", "jobs", is_fixed=True),
        _kind(
            "batch/v1",
            "CronJob",
            "cronjobs",
            template=("spec", "jobTemplate", "spec", "template"),
            old_versions=frozenset({CRON_JOB_BETA.api_version}),
        ),
        _kind("v1", "Pod", "pods", template=(), is_fixed=True),
    )
}
"""Kind → what there is to know about it; the order is the one in which people list them."""


def kind_of(workload: Manifest) -> WorkloadKind:
    """Return the kind of a workload's manifest.

    Raises:
        KeyError: it is no workload; readers of files have made sure that it is one.
    """
    return KINDS[str(workload["kind"])]


def template_of(workload: Manifest) -> Any:
    """Return the template of a workload's pods, a mapping with `metadata` and `spec`; changes of it change the workload."""
    found: Any = workload
    for key in kind_of(workload).template:
        found = found[key]
    return found


def resource_for(kind: WorkloadKind, server: ServerVersion) -> Resource:
    """Return how the server names the kind: CronJobs were in beta until 1.21."""
    if kind.name == CRON_JOB_BETA.kind and (server.major, server.minor) < (1, 21):
        return CRON_JOB_BETA
    return kind.resource


def title(workload: Manifest) -> str:
    """Return how messages name a workload: `StatefulSet db`."""
    return f"{workload['kind']} {workload['metadata']['name']}"


def keeps_old_pods(workload: Manifest) -> bool:
    """Tell whether pods of an older template may go on running for as long as they like after a change."""
    strategy = workload["spec"].get("updateStrategy") or {}
    has_partition = bool((strategy.get("rollingUpdate") or {}).get("partition"))
    return workload["kind"] == "CronJob" or strategy.get("type") == "OnDelete" or has_partition
