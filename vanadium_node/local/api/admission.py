"""What happens to an object before it is kept: defaults are filled in, faults refused, addresses given out."""

from __future__ import annotations

from typing import Final

from vanadium_node.local.api import allocation, defaults, validation
from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import NAMESPACE, SERVICE, SERVICE_ACCOUNT, ResourceType
from vanadium_node.local.api.objects import Object, ObjectStore

PROTECTED: Final = frozenset({"default", "kube-system", "kube-public"})
"""Namespaces that cannot be deleted."""


class StandardAdmission:
    """The admission of a cluster that behaves like a real one."""

    def creating(self, store: ObjectStore, resource: ResourceType, obj: Object) -> None:
        """Prepare an object that is about to be made.

        Raises:
            ApiError: it is not valid (422).
        """
        defaults.fill(resource, obj)
        defaults.begin(resource, obj)
        self._refuse(resource, obj, None)
        if resource is SERVICE:
            allocation.give(store, obj, None)

    def created(self, store: ObjectStore, resource: ResourceType, obj: Object) -> None:
        """Give a new namespace the account that its pods have."""
        if resource is NAMESPACE:
            store.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": obj["metadata"]["name"]}})

    def updating(self, store: ObjectStore, resource: ResourceType, obj: Object, old: Object) -> None:
        """Prepare the next version of an object.

        Raises:
            ApiError: it is not valid, or changes what must stay (422).
        """
        defaults.fill(resource, obj)
        if resource is SERVICE:
            allocation.give(store, obj, old)
        self._refuse(resource, obj, old)

    def deleting(self, resource: ResourceType, obj: Object) -> None:
        """Refuse the deletion of what the cluster cannot be without.

        Raises:
            ApiError: it is such an object (403).
        """
        name = obj["metadata"]["name"]
        if resource is NAMESPACE and name in PROTECTED:
            raise ApiError.forbidden(resource, name, "this namespace may not be deleted")

    def _refuse(self, resource: ResourceType, obj: Object, old: Object | None) -> None:
        causes = validation.faults(resource, obj)
        if old is not None:
            causes = (*causes, *validation.change_faults(resource, obj, old))
        if causes:
            raise ApiError.invalid(resource, obj["metadata"]["name"], causes)
