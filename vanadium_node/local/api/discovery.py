"""What the API says about itself: version, groups, resources."""

from __future__ import annotations

import platform
from typing import Any

from vanadium_node.local.api.kinds import RESOURCES, SERVER_MINOR, SERVER_VERSION, VERBS, ResourceType, group_versions
from vanadium_node.local.api.reviews import REVIEWS

Document = dict[str, Any]

_PART_KINDS = {
    "scale": ("autoscaling", "v1", "Scale", ("get", "patch", "update")),
    "log": ("", "", "Pod", ("get",)),
    "binding": ("", "", "Binding", ("create",)),
    "eviction": ("policy", "v1", "Eviction", ("create",)),
}


def version() -> Document:
    """Return the answer to `/version`."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": "1",
        "minor": str(SERVER_MINOR),
        "gitVersion": SERVER_VERSION,
        "gitCommit": "vanadium-node",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": f"{platform.system().lower()}/{machine}",
    }


def core_versions(address: str) -> Document:
    """Return the answer to `/api`; `address` is the server's `host:port`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups() -> Document:
    """Return the answer to `/apis`."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in group_names()]}


def group(name: str) -> Document | None:
    """Return the answer to `/apis/GROUP`, or None where there is no such group."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)} if name in group_names() else None


def group_names() -> tuple[str, ...]:
    """Return the names of all groups but the core one."""
    served = (*(g for g, _ in group_versions()), *(r.group for r in REVIEWS))
    return tuple(name for name in dict.fromkeys(served) if name)


def _versions(name: str) -> tuple[str, ...]:
    served = (*group_versions(), *((r.group, r.version) for r in REVIEWS))
    return tuple(dict.fromkeys(v for g, v in served if g == name))


def _group(name: str) -> Document:
    versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in _versions(name)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def resources(group_name: str, api_version: str) -> Document | None:
    """Return the resources of a group's version, or None where it is not served."""
    if api_version not in _versions(group_name):
        return None
    listed: list[Document] = []
    for resource in RESOURCES:
        if (resource.group, resource.version) == (group_name, api_version):
            listed.append(_resource(resource))
            listed += [_part(resource, part) for part in sorted(resource.subresources)]
    listed += [_review(r) for r in REVIEWS if (r.group, r.version) == (group_name, api_version)]
    name = f"{group_name}/{api_version}" if group_name else api_version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}


def _resource(resource: ResourceType) -> Document:
    document: Document = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(VERBS),
    }
    if resource.short_names:
        document["shortNames"] = list(resource.short_names)
    if resource.categories:
        document["categories"] = list(resource.categories)
    return document


def _part(resource: ResourceType, part: str) -> Document:
    group_name, api_version, kind, verbs = _PART_KINDS.get(part, ("", "", resource.kind, ("get", "patch", "update")))
    document: Document = {
        "name": f"{resource.plural}/{part}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": kind,
        "verbs": list(verbs),
    }
    return document | ({"group": group_name, "version": api_version} if api_version else {})


def _review(review: ResourceType) -> Document:
    return {
        "name": review.plural,
        "singularName": review.singular,
        "namespaced": review.namespaced,
        "kind": review.kind,
        "verbs": ["create"],
    }
