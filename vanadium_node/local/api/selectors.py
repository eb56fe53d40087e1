"""Label and field selectors: text → a value that tells which objects match."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import ResourceType

_KEY: Final = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET: Final = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EQUALITY: Final = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_PRESENCE: Final = re.compile(rf"(!?)\s*({_KEY})")
_NUMERIC: Final = re.compile(rf"({_KEY})\s*([<>])\s*(-?[0-9]+)")
_COMMA_OUTSIDE_PARENTHESES: Final = re.compile(r",(?![^()]*\))")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label: `operator` is one of `in`, `notin`, `exists`, `absent`, `gt`, `lt`."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether an object with these labels meets the condition."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case _:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        if value is None or not re.fullmatch(r"-?[0-9]+", value):
            return False
        bound = int(next(iter(self.values)))
        return int(value) > bound if self.operator == "gt" else int(value) < bound


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A conjunction of conditions on labels; an empty one matches everything."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """Read `a=b,c!=d,e in (f,g),h,!i`.

        Raises:
            ApiError: it is not a selector (400).
        """
        parts = [part.strip() for part in _COMMA_OUTSIDE_PARENTHESES.split(text)] if text.strip() else []
        return cls(tuple(_requirement(part, text) for part in parts))

    @classmethod
    def from_object(cls, selector: Mapping[str, Any] | None) -> LabelSelector:
        """Read the `matchLabels` and `matchExpressions` of an object's selector; None matches nothing."""
        if selector is None:
            return cls((Requirement("", "exists"),))
        equal = [Requirement(k, "in", frozenset({str(v)})) for k, v in (selector.get("matchLabels") or {}).items()]
        return cls((*equal, *(_expression(e) for e in selector.get("matchExpressions") or ())))

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> LabelSelector:
        """Return the selector that wants exactly these values, as services and replication controllers have it."""
        return cls(tuple(Requirement(k, "in", frozenset({v})) for k, v in labels.items()))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether an object with these labels meets every condition."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def matches_object(self, obj: Mapping[str, Any]) -> bool:
        """Tell whether an object's labels meet every condition."""
        return not self.requirements or self.matches(obj["metadata"].get("labels") or {})

    def __str__(self) -> str:
        return ",".join(_written(requirement) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """A conjunction of `path=value` and `path!=value`; an empty one matches everything."""

    requirements: tuple[tuple[str, bool, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """Read `metadata.name=x,status.phase!=Running`.

        Raises:
            ApiError: it is not a selector (400).
        """
        found: list[tuple[str, bool, str]] = []
        for part in (p.strip() for p in text.split(",") if p.strip()):
            path, operator, value = _field_requirement(part, text)
            found.append((path, operator != "!=", value))
        return cls(tuple(found))

    def matches_object(self, obj: Mapping[str, Any]) -> bool:
        """Tell whether the object's fields are (or are not) as wanted; a field that is not there is the empty string."""
        return all((_value_at(obj, path) == value) is equal for path, equal, value in self.requirements)

    @property
    def name(self) -> str | None:
        """Return the object's name where the selector asks for a single one."""
        return next((v for path, equal, v in self.requirements if equal and path == "metadata.name"), None)


EVERYTHING: Final = LabelSelector()
ANY_FIELDS: Final = FieldSelector()


def _requirement(part: str, text: str) -> Requirement:
    if found := _SET.fullmatch(part):
        key, operator, values = found.groups()
        return Requirement(key, operator, frozenset(v.strip() for v in values.split(",")))
    if found := _EQUALITY.fullmatch(part):
        key, operator, value = found.groups()
        return Requirement(key, "notin" if operator == "!=" else "in", frozenset({value}))
    if found := _NUMERIC.fullmatch(part):
        key, operator, value = found.groups()
        return Requirement(key, "gt" if operator == ">" else "lt", frozenset({value}))
    if found := _PRESENCE.fullmatch(part):
        return Requirement(found[2], "absent" if found[1] else "exists")
    raise ApiError.bad_request(f"unable to parse requirement: {part!r} in the label selector {text!r}")


def _expression(expression: Mapping[str, Any]) -> Requirement:
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    operator = operators.get(expression.get("operator", ""))
    if operator is None:
        raise ApiError.bad_request(f"{expression.get('operator')!r} is not a valid label selector operator")
    return Requirement(str(expression.get("key", "")), operator, frozenset(expression.get("values") or ()))


def _written(requirement: Requirement) -> str:
    values = sorted(requirement.values)
    match requirement.operator:
        case "exists":
            return requirement.key
        case "absent":
            return f"!{requirement.key}"
        case "in" if len(values) == 1:
            return f"{requirement.key}={values[0]}"
        case "gt" | "lt":
            return f"{requirement.key}{'>' if requirement.operator == 'gt' else '<'}{values[0]}"
        case operator:
            return f"{requirement.key} {operator} ({','.join(values)})"


def _field_requirement(part: str, text: str) -> tuple[str, str, str]:
    for operator in ("!=", "==", "="):
        path, found, value = part.partition(operator)
        if found:
            return path, operator, value
    raise ApiError.bad_request(f"invalid field selector: {text!r}; can't understand {part!r}")


def _value_at(obj: Mapping[str, Any], path: str) -> str:
    value: Any = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None or (isinstance(value, Mapping | Sequence) and not isinstance(value, str)) else str(value)


_FIELDS_OF_ALL: Final = frozenset({"metadata.name", "metadata.namespace"})
_FIELDS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "Pod": frozenset(
            {
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            }
        ),
        "Event": frozenset(
            {
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            }
        ),
        "Secret": frozenset({"type"}),
        "Namespace": frozenset({"status.phase"}),
        "Node": frozenset({"spec.unschedulable"}),
        "ReplicaSet": frozenset({"status.replicas"}),
        "Job": frozenset({"status.successful"}),
        "Service": frozenset({"spec.clusterIP", "spec.type"}),
    }
)


def check_fields(resource: ResourceType, fields: FieldSelector) -> None:
    """Check that the API selects objects of a kind by these fields.

    Raises:
        ApiError: it does not (400).
    """
    known = _FIELDS_OF_ALL | _FIELDS.get(resource.kind, frozenset())
    for path, _equal, _value in fields.requirements:
        if path not in known:
            raise ApiError.bad_request(f"field label not supported: {path}")
