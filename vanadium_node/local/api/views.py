"""Kinds that are another kind's objects in another form: events of events.k8s.io are kept as core events."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vanadium_node.local.api.kinds import EVENT, NEW_EVENT, ResourceType
from vanadium_node.local.api.objects import Object

_NEW_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "message": "note",
        "involvedObject": "regarding",
        "source": "deprecatedSource",
        "firstTimestamp": "deprecatedFirstTimestamp",
        "lastTimestamp": "deprecatedLastTimestamp",
        "count": "deprecatedCount",
        "reportingComponent": "reportingController",
    }
)
_OLD_NAMES: Final[Mapping[str, str]] = MappingProxyType({new: old for old, new in _NEW_NAMES.items()})


def stored_as(resource: ResourceType) -> ResourceType:
    """Return the kind under which the objects of a kind are kept."""
    return EVENT if resource is NEW_EVENT else resource


def outgoing(resource: ResourceType, obj: Object) -> Object:
    """Return a kept object in the form of the kind that was asked for."""
    if resource is not NEW_EVENT:
        return obj
    renamed = {_NEW_NAMES.get(key, key): value for key, value in obj.items()}
    return renamed | {"apiVersion": NEW_EVENT.api_version, "kind": NEW_EVENT.kind}


def incoming(resource: ResourceType, obj: Object) -> Object:
    """Return an object in the form in which it is kept."""
    if resource is not NEW_EVENT:
        return obj
    renamed = {_OLD_NAMES.get(key, key): value for key, value in obj.items()}
    return renamed | {"apiVersion": EVENT.api_version, "kind": EVENT.kind}
