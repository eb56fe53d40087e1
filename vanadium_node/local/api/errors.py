"""Refusals of the embedded API, as values that render themselves as Kubernetes `Status` objects.

Messages follow the real API server's word for word where users and programs read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vanadium_node.errors import KubernetesError

if TYPE_CHECKING:
    from vanadium_node.local.api.kinds import ResourceType


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing that is wrong with an object: where, what kind of fault, and the sentence about it."""

    field: str
    reason: str
    message: str

    @classmethod
    def required(cls, field: str, detail: str = "") -> Cause:
        """Return the cause for a field that is missing."""
        return cls(
            field=field, reason="FieldValueRequired", message="Required value" + (f": {detail}" if detail else "")
        )

    @classmethod
    def wrong(cls, field: str, value: object, detail: str) -> Cause:
        """Return the cause for a value that cannot be, whatever the rest of the object says."""
        return cls(field=field, reason="FieldValueInvalid", message=f"Invalid value: {_shown(value)}: {detail}")

    @classmethod
    def unsupported(cls, field: str, value: object, allowed: Sequence[str]) -> Cause:
        """Return the cause for a value that is not one of the allowed ones."""
        listed = ", ".join(f'"{a}"' for a in allowed)
        return cls(
            field=field,
            reason="FieldValueNotSupported",
            message=f"Unsupported value: {_shown(value)}: supported values: {listed}",
        )

    @classmethod
    def duplicate(cls, field: str, value: object) -> Cause:
        """Return the cause for a value that must be unique and is not."""
        return cls(field=field, reason="FieldValueDuplicate", message=f"Duplicate value: {_shown(value)}")

    @classmethod
    def forbidden(cls, field: str, detail: str) -> Cause:
        """Return the cause for a field that may not be set or changed."""
        return cls(field=field, reason="FieldValueForbidden", message=f"Forbidden: {detail}")


class ApiError(KubernetesError):
    """A request that the API refuses.

    `status` is the HTTP status, `reason` the machine-readable reason, `details` the `details` of the Status object.
    """

    def __init__(
        self, status: int, reason: str, message: str, details: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.details = MappingProxyType(dict(details))

    def to_status(self) -> dict[str, Any]:
        """Return the `Status` object that a client gets."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details:
            body["details"] = dict(self.details)
        return body | {"code": self.status}

    @classmethod
    def not_found(cls, resource: ResourceType, name: str) -> ApiError:
        """Return the refusal for an object that is not there."""
        return cls(
            404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource.plural, resource, name)
        )

    @classmethod
    def already_exists(cls, resource: ResourceType, name: str) -> ApiError:
        """Return the refusal to create what is there already."""
        details = _details(resource.plural, resource, name)
        return cls(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', details)

    @classmethod
    def modified(cls, resource: ResourceType, name: str) -> ApiError:
        """Return the refusal to write over a version that the writer has not seen."""
        return cls.conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )

    @classmethod
    def conflict(cls, resource: ResourceType, name: str, why: str) -> ApiError:
        """Return the refusal of an operation that meets an object in another state."""
        message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
        return cls(409, "Conflict", message, _details(resource.plural, resource, name))

    @classmethod
    def forbidden(cls, resource: ResourceType, name: str, why: str, causes: Sequence[Cause] = ()) -> ApiError:
        """Return the refusal of what nobody may do in this state."""
        message = f'{resource.qualified} "{name}" is forbidden: {why}'
        return cls(403, "Forbidden", message, _details(resource.plural, resource, name, causes))

    @classmethod
    def invalid(cls, resource: ResourceType, name: str, causes: Sequence[Cause]) -> ApiError:
        """Return the refusal of an object with faults, all of them named."""
        faults = [f"{cause.field}: {cause.message}" for cause in causes]
        text = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
        group = f".{resource.group}" if resource.group else ""
        message = f'{resource.kind}{group} "{name}" is invalid: {text}'
        return cls(422, "Invalid", message, _details(resource.kind, resource, name, causes))

    @classmethod
    def bad_request(cls, message: str) -> ApiError:
        """Return the refusal of a request that makes no sense."""
        return cls(400, "BadRequest", message)

    @classmethod
    def expired(cls, requested: int, oldest: int) -> ApiError:
        """Return the refusal to go on from a version that is too long ago."""
        return cls(410, "Expired", f"too old resource version: {requested} ({oldest})")


def _shown(value: object) -> str:
    """Return a value as the API server quotes it in a fault."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _details(kind: str, resource: ResourceType, name: str, causes: Sequence[Cause] = ()) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = kind
    if causes:
        details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return details
