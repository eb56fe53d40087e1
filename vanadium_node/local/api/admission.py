"""What happens to an object before it is kept: defaults are filled in, faults refused, addresses given out."""

from __future__ import annotations

from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import Object, ObjectStore


class StandardAdmission:
    """The admission of a cluster that behaves like a real one."""

    def creating(self, store: ObjectStore, resource: ResourceType, obj: Object) -> None:
        """Prepare an object that is about to be made, or raise ApiError."""

    def updating(self, store: ObjectStore, resource: ResourceType, obj: Object, old: Object) -> None:
        """Prepare the next version of an object, or raise ApiError."""
