"""Objects as rows for people: the columns that kubectl shows for each kind, as the API server computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from vanadium_node.local.api import kinds, rows
from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import Object

Row: TypeAlias = Callable[[Object, datetime], list[Any]]
"""Returns the cells of an object behind its name, with the age in the right place."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind's columns behind the name (`*` before those that only `-o wide` shows) and what fills them."""

    columns: tuple[str, ...]
    row: Row


_SHAPES: Final[Mapping[ResourceType, Shape]] = MappingProxyType(
    {
        kinds.NAMESPACE: Shape(("Status", "Age"), rows.namespace),
        kinds.NODE: Shape(
            (
                "Status",
                "Roles",
                "Age",
                "Version",
                "*Internal-IP",
                "*External-IP",
                "*OS-Image",
                "*Kernel-Version",
                "*Container-Runtime",
            ),
            rows.node,
        ),
        kinds.SECRET: Shape(("Type", "Data", "Age"), rows.secret),
        kinds.CONFIG_MAP: Shape(("Data", "Age"), rows.config_map),
        kinds.SERVICE: Shape(("Type", "Cluster-IP", "External-IP", "Port(s)", "Age", "*Selector"), rows.service),
        kinds.ENDPOINTS: Shape(("Endpoints", "Age"), rows.endpoints),
        kinds.ENDPOINT_SLICE: Shape(("AddressType", "Ports", "Endpoints", "Age"), rows.endpoint_slice),
        kinds.POD: Shape(
            (
                "Ready",
                "Status",
                "Restarts",
                "Age",
                "*IP",
                "*Node",
                "*Nominated Node",
                "*Readiness Gates",
            ),
            rows.pod,
        ),
        kinds.SERVICE_ACCOUNT: Shape(("Secrets", "Age"), rows.service_account),
        kinds.PERSISTENT_VOLUME_CLAIM: Shape(
            (
                "Status",
                "Volume",
                "Capacity",
                "Access Modes",
                "StorageClass",
                "VolumeAttributesClass",
                "Age",
                "*VolumeMode",
            ),
            rows.volume_claim,
        ),
        kinds.DEPLOYMENT: Shape(
            ("Ready", "Up-to-date", "Available", "Age", "*Containers", "*Images", "*Selector"), rows.deployment
        ),
        kinds.REPLICA_SET: Shape(
            ("Desired", "Current", "Ready", "Age", "*Containers", "*Images", "*Selector"), rows.replica_set
        ),
        kinds.STATEFUL_SET: Shape(("Ready", "Age", "*Containers", "*Images"), rows.stateful_set),
        kinds.DAEMON_SET: Shape(
            (
                "Desired",
                "Current",
                "Ready",
                "Up-to-date",
                "Available",
                "Node Selector",
                "Age",
                "*Containers",
                "*Images",
                "*Selector",
            ),
            rows.daemon_set,
        ),
        kinds.JOB: Shape(("Status", "Completions", "Duration", "Age", "*Containers", "*Images", "*Selector"), rows.job),
        kinds.CRON_JOB: Shape(
            (
                "Schedule",
                "Timezone",
                "Suspend",
                "Active",
                "Last Schedule",
                "Age",
                "*Containers",
                "*Images",
                "*Selector",
            ),
            rows.cron_job,
        ),
        kinds.LEASE: Shape(("Holder", "Age"), rows.lease),
        kinds.NETWORK_POLICY: Shape(("Pod-Selector", "Age"), rows.network_policy),
        kinds.DISRUPTION_BUDGET: Shape(
            ("Min Available", "Max Unavailable", "Allowed Disruptions", "Age"), rows.disruption_budget
        ),
        kinds.ROLE: Shape(("Created At",), rows.created_at),
        kinds.CLUSTER_ROLE: Shape(("Created At",), rows.created_at),
        kinds.ROLE_BINDING: Shape(("Role", "Age", "*Users", "*Groups", "*ServiceAccounts"), rows.role_binding),
        kinds.CLUSTER_ROLE_BINDING: Shape(("Role", "Age", "*Users", "*Groups", "*ServiceAccounts"), rows.role_binding),
    }
)
_EVENT_COLUMNS: Final = (
    "Last Seen",
    "Type",
    "Reason",
    "Object",
    "*Subobject",
    "*Source",
    "Message",
    "*First Seen",
    "*Count",
    "*Name",
)
_PLAIN: Final = Shape(("Age",), rows.age_only)
_NUMBERS: Final = frozenset(
    {"Data", "Up-to-date", "Available", "Desired", "Current", "Secrets", "Active", "Allowed Disruptions", "Count"}
)


def columns(resource: ResourceType) -> list[dict[str, Any]]:
    """Return the column definitions of a kind's table."""
    if resource.kind == "Event":
        return [_column(name, resource) for name in _EVENT_COLUMNS]
    first = {"name": "Name", "type": "string", "format": "name", "description": "Name of the object", "priority": 0}
    return [first, *(_column(name, resource) for name in _SHAPES.get(resource, _PLAIN).columns)]


def cells(resource: ResourceType, obj: Object, now: datetime) -> list[Any]:
    """Return the cells of an object's row; `now` is what ages are counted to."""
    if resource.kind == "Event":
        return rows.event(obj, now)
    return [obj["metadata"]["name"], *_SHAPES.get(resource, _PLAIN).row(obj, now)]


def _column(name: str, resource: ResourceType) -> dict[str, Any]:
    plain = name.removeprefix("*")
    is_number = plain in _NUMBERS or (plain == "Ready" and resource in (kinds.REPLICA_SET, kinds.DAEMON_SET))
    return {
        "name": plain,
        "type": "integer" if is_number else "string",
        "format": "",
        "description": f"{plain} of the {resource.kind}",
        "priority": 1 if name.startswith("*") else 0,
    }
