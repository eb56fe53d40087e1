"""The kinds of Kubernetes objects that the project handles: how the API names them and where their addresses are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote

Manifest: TypeAlias = Mapping[str, Any]
"""A Kubernetes object as JSON has it. Users' objects are never pushed through models, which drop fields they do not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind of object: its API version (`apps/v1`, `v1`), kind, plural name, and whether it lives in namespaces."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the address of the collection, of the object `name` or of one of its subresources."""
        root = "/api" if "/" not in self.api_version else "/apis"
        parts = [root, self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)

    def title(self, namespace: str | None, name: str | None) -> str:
        """Return how a message names the object: `Deployment shop/cart`."""
        if name is None:
            return f"{self.plural} in namespace '{namespace}'" if self.namespaced and namespace else self.plural
        return f"{self.kind} {namespace}/{name}" if self.namespaced else f"{self.kind} {name}"


DEPLOYMENT: Final = Resource(api_version="apps/v1", kind="Deployment", plural="deployments")
REPLICA_SET: Final = Resource(api_version="apps/v1", kind="ReplicaSet", plural="replicasets")
POD: Final = Resource(api_version="v1", kind="Pod", plural="pods")
SECRET: Final = Resource(api_version="v1", kind="Secret", plural="secrets")
EVENT: Final = Resource(api_version="v1", kind="Event", plural="events")
SERVICE: Final = Resource(api_version="v1", kind="Service", plural="services")
CLAIM: Final = Resource(api_version="v1", kind="PersistentVolumeClaim", plural="persistentvolumeclaims")
NODE: Final = Resource(api_version="v1", kind="Node", plural="nodes", namespaced=False)
NAMESPACE: Final = Resource(api_version="v1", kind="Namespace", plural="namespaces", namespaced=False)


def name_of(manifest: Manifest) -> str:
    """Return the object's name, `""` where it has none."""
    return str((manifest.get("metadata") or {}).get("name") or "")


def uid_of(manifest: Manifest) -> str:
    """Return the object's unique id, `""` where it has none yet."""
    return str((manifest.get("metadata") or {}).get("uid") or "")


def resource_version_of(manifest: Manifest) -> str:
    """Return the version of the stored object, or of a list."""
    return str((manifest.get("metadata") or {}).get("resourceVersion") or "")


def owner_uid(manifest: Manifest) -> str:
    """Return the unique id of the object's controller, `""` where it has none."""
    owners = (manifest.get("metadata") or {}).get("ownerReferences") or ()
    return next((str(o.get("uid", "")) for o in owners if o.get("controller")), "")
