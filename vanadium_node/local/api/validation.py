"""What an object must be like, kind by kind, and which changes it allows; faults in the real API server's words."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from vanadium_node.local.api import kinds, names
from vanadium_node.local.api.errors import Cause
from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import Object, copied
from vanadium_node.local.api.pod_validation import duplicates, pod_spec_faults
from vanadium_node.local.api.schedules import schedule_faults
from vanadium_node.local.api.selectors import LabelSelector

Faults: TypeAlias = Iterator[Cause]

MAX_DATA_BYTES: Final = 1024 * 1024
"""Bytes that a secret or config map may hold."""

MAX_ANNOTATION_BYTES: Final = 256 * 1024

_LABEL_NAMED: Final = frozenset({kinds.NAMESPACE})
_PATH_NAMED: Final = frozenset({kinds.ROLE, kinds.ROLE_BINDING, kinds.CLUSTER_ROLE, kinds.CLUSTER_ROLE_BINDING})
_STATEFUL_CHANGES: Final = frozenset(
    {
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    }
)


def faults(resource: ResourceType, obj: Object) -> tuple[Cause, ...]:
    """Return everything that is wrong with an object by itself."""
    check = _CHECKS.get(resource)
    return (*_metadata(resource, obj["metadata"]), *(check(obj) if check else ()))


def change_faults(resource: ResourceType, new: Object, old: Object) -> tuple[Cause, ...]:
    """Return everything that is wrong with an object as the successor of another."""
    check = _CHANGES.get(resource)
    return tuple(check(new, old)) if check else ()


def _metadata(resource: ResourceType, metadata: Object) -> Faults:
    name = metadata["name"]
    rule: Callable[[str], str | None] = names.subdomain_fault
    if resource is kinds.SERVICE:
        rule = names.service_fault
    elif resource in _LABEL_NAMED:
        rule = names.label_fault
    elif resource in _PATH_NAMED:
        rule = names.path_fault
    if fault := rule(name):
        yield Cause.wrong("metadata.name", name, fault)
    for key, fault in names.label_faults(metadata.get("labels") or {}):
        yield Cause.wrong("metadata.labels", key, fault)
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        if fault := names.key_fault(key.lower()):
            yield Cause.wrong("metadata.annotations", key, fault)
    if sum(len(k) + len(str(v)) for k, v in annotations.items()) > MAX_ANNOTATION_BYTES:
        yield Cause(
            field="metadata.annotations",
            reason="FieldValueTooLong",
            message=f"Too long: may not be more than {MAX_ANNOTATION_BYTES} bytes",
        )
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        if fault := names.key_fault(finalizer):
            yield Cause.wrong(f"metadata.finalizers[{index}]", finalizer, fault)


def shown(value: Any) -> str:
    """Return a structured value as a fault quotes it."""
    return json.dumps(value, separators=(",", ":"))


def _structured(field: str, value: Any, detail: str) -> Cause:
    return Cause(field=field, reason="FieldValueInvalid", message=f"Invalid value: {shown(value)}: {detail}")


def _at_least_zero(spec: Object, prefix: str, *fields: str) -> Faults:
    for field in fields:
        value = spec.get(field)
        if isinstance(value, int) and value < 0:
            yield Cause.wrong(f"{prefix}.{field}", value, "must be greater than or equal to 0")


def _workload(obj: Object, restart_policies: tuple[str, ...] = ("Always",)) -> Faults:
    """Check what all workloads with a selector and a template have."""
    spec = obj["spec"]
    yield from _at_least_zero(
        spec, "spec", "replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"
    )
    selector, template = spec.get("selector"), spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is None:
        yield Cause.required("spec.selector")
    elif not selector.get("matchLabels") and not selector.get("matchExpressions"):
        yield _structured("spec.selector", selector, "empty selector is invalid for deployment")
    elif not LabelSelector.from_object(selector).matches(labels):
        yield _structured("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    for key, fault in names.label_faults(labels):
        yield Cause.wrong("spec.template.metadata.labels", key, fault)
    claims = [str(c["metadata"].get("name")) for c in spec.get("volumeClaimTemplates") or ()]
    yield from _template(template, "spec.template", restart_policies, claims)


def _template(template: Object, prefix: str, restart_policies: tuple[str, ...], claims: Iterable[str] = ()) -> Faults:
    spec = template.get("spec") or {}
    yield from pod_spec_faults(spec, f"{prefix}.spec", claims)
    policy = spec.get("restartPolicy", "Always")
    if policy not in restart_policies:
        yield Cause.unsupported(f"{prefix}.spec.restartPolicy", policy, restart_policies)


def _deployment(obj: Object) -> Faults:
    yield from _workload(obj)
    strategy = obj["spec"]["strategy"]
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind not in ("Recreate", "RollingUpdate"):
        yield Cause.unsupported("spec.strategy.type", kind, ("Recreate", "RollingUpdate"))
    elif kind == "Recreate" and rolling is not None:
        yield Cause.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    elif rolling is not None:
        yield from _rolling(rolling)


def _rolling(rolling: Object) -> Faults:
    field = "spec.strategy.rollingUpdate"
    for name in ("maxUnavailable", "maxSurge"):
        value = rolling.get(name)
        if isinstance(value, str) and not (value.endswith("%") and value[:-1].isdigit()):
            detail = (
                "a valid percent string must be a numeric string followed by an ending '%' "
                "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            )
            yield Cause.wrong(f"{field}.{name}", value, detail)
        elif isinstance(value, int) and value < 0:
            yield Cause.wrong(f"{field}.{name}", value, "must be greater than or equal to 0")
    unavailable = str(rolling.get("maxUnavailable", 0)).rstrip("%")
    surge = str(rolling.get("maxSurge", 0)).rstrip("%")
    if unavailable == surge == "0":
        yield Cause.wrong(f"{field}.maxUnavailable", 0, "may not be 0 when `maxSurge` is 0")


def _job(obj: Object) -> Faults:
    spec = obj["spec"]
    yield from _at_least_zero(spec, "spec", "completions", "parallelism", "backoffLimit", "activeDeadlineSeconds")
    yield from _template(spec.get("template") or {}, "spec.template", ("OnFailure", "Never"))


def _cron_job(obj: Object) -> Faults:
    spec = obj["spec"]
    schedule = str(spec.get("schedule") or "")
    if not schedule:
        yield Cause.required("spec.schedule")
    else:
        yield from schedule_faults(schedule, spec.get("timeZone"))
    policies = ("Allow", "Forbid", "Replace")
    if spec.get("concurrencyPolicy") not in policies:
        yield Cause.unsupported("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), policies)
    template = (spec.get("jobTemplate") or {}).get("spec", {}).get("template") or {}
    yield from _template(template, "spec.jobTemplate.spec.template", ("OnFailure", "Never"))


def _pod(obj: Object) -> Faults:
    yield from pod_spec_faults(obj["spec"], "spec")


def _service(obj: Object) -> Faults:
    spec = obj["spec"]
    types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec.get("type") not in types:
        yield Cause.unsupported("spec.type", spec.get("type"), types)
    ports = spec.get("ports") or ()
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield Cause.required("spec.ports")
    if spec.get("type") == "ExternalName" and not spec.get("externalName"):
        yield Cause.required("spec.externalName")
    for index, port in enumerate(ports):
        yield from _service_port(port, f"spec.ports[{index}]", len(ports) > 1)
    yield from duplicates(ports, "name", "spec.ports")
    seen: list[tuple[Any, Any]] = []
    for index, port in enumerate(ports):
        pair = (port.get("port"), port.get("protocol"))
        if pair in seen:
            value = {"port": pair[0], "protocol": pair[1]}
            yield Cause(
                field=f"spec.ports[{index}]",
                reason="FieldValueDuplicate",
                message=f"Duplicate value: {shown(value)}",
            )
        seen.append(pair)
    for key, fault in names.label_faults(spec.get("selector") or {}):
        yield Cause.wrong("spec.selector", key, fault)


def _service_port(port: Object, field: str, has_others: bool) -> Faults:
    name = port.get("name")
    if not name and has_others:
        yield Cause.required(f"{field}.name")
    if name and (fault := names.label_fault(name)):
        yield Cause.wrong(f"{field}.name", name, fault)
    for key in ("port", "targetPort"):
        value = port.get(key)
        if key == "port" and value is None:
            yield Cause.wrong(f"{field}.port", 0, "must be between 1 and 65535, inclusive")
        if isinstance(value, int) and not 1 <= value <= 65535:
            yield Cause.wrong(f"{field}.{key}", value, "must be between 1 and 65535, inclusive")
    if port.get("protocol") not in ("SCTP", "TCP", "UDP"):
        yield Cause.unsupported(f"{field}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))


def _data(obj: Object, *fields: str) -> Faults:
    size = 0
    for field in fields:
        for key, value in (obj.get(field) or {}).items():
            if fault := names.config_key_fault(key):
                yield Cause.wrong(f"{field}[{key}]", key, fault)
            size += len(value)
    if size > MAX_DATA_BYTES * (4 / 3 if "binaryData" not in fields else 1):
        yield Cause(
            field="data", reason="FieldValueTooLong", message=f"Too long: may not be more than {MAX_DATA_BYTES} bytes"
        )


def _secret(obj: Object) -> Faults:
    yield from _data(obj, "data")
    for key, value in (obj.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            yield Cause(field=f"data[{key}]", reason="FieldValueInvalid", message="Invalid value: illegal base64 data")


def _config_map(obj: Object) -> Faults:
    yield from _data(obj, "data", "binaryData")
    for key in (obj.get("data") or {}).keys() & (obj.get("binaryData") or {}).keys():
        yield Cause.wrong(f"data[{key}]", key, "duplicate of key present in binaryData")


def _role_binding(obj: Object) -> Faults:
    for field in ("kind", "name"):
        if not (obj.get("roleRef") or {}).get(field):
            yield Cause.required(f"roleRef.{field}")


def _same_selector(new: Object, old: Object) -> Faults:
    if new["spec"].get("selector") != old["spec"].get("selector"):
        yield _structured("spec.selector", new["spec"].get("selector"), "field is immutable")


def _same_job(new: Object, old: Object) -> Faults:
    yield from _same_selector(new, old)
    if new["spec"].get("template") != old["spec"].get("template"):
        yield _structured("spec.template", new["spec"].get("template"), "field is immutable")


def _stateful_change(new: Object, old: Object) -> Faults:
    fixed = [{k: v for k, v in o["spec"].items() if k not in _STATEFUL_CHANGES} for o in (new, old)]
    if fixed[0] != fixed[1]:
        yield Cause.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
            "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )


def _pod_change(new: Object, old: Object) -> Faults:
    compared: list[Object] = []
    for obj in (new, old):
        spec: Object = copied(obj["spec"])
        for field in ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "schedulingGates"):
            spec.pop(field, None)
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            container.pop("image", None)
        if not old["spec"].get("nodeName"):
            spec.pop("nodeName", None)
        compared.append(spec)
    if compared[0] != compared[1]:
        yield Cause.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        )


def _service_change(new: Object, old: Object) -> Faults:
    address, before = new["spec"].get("clusterIP"), old["spec"].get("clusterIP")
    if before and address != before and "ExternalName" not in (new["spec"]["type"], old["spec"]["type"]):
        yield _structured("spec.clusterIPs[0]", [address], "may not change once set")


def _config_change(new: Object, old: Object) -> Faults:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        yield Cause.forbidden("immutable", "field is immutable when `immutable` is set")
    for field in ("data", "binaryData"):
        if new.get(field) != old.get(field):
            yield Cause.forbidden(field, "field is immutable when `immutable` is set")


def _secret_change(new: Object, old: Object) -> Faults:
    if new.get("type") != old.get("type"):
        yield Cause.wrong("type", new.get("type"), "field is immutable")
    yield from _config_change(new, old)


def _role_change(new: Object, old: Object) -> Faults:
    if new.get("roleRef") != old.get("roleRef"):
        yield _structured("roleRef", new.get("roleRef"), "cannot change roleRef")


_CHECKS: Final[Mapping[ResourceType, Callable[[Object], Faults]]] = MappingProxyType(
    {
        kinds.POD: _pod,
        kinds.DEPLOYMENT: _deployment,
        kinds.REPLICA_SET: _workload,
        kinds.STATEFUL_SET: _workload,
        kinds.DAEMON_SET: _workload,
        kinds.JOB: _job,
        kinds.CRON_JOB: _cron_job,
        kinds.SERVICE: _service,
        kinds.SECRET: _secret,
        kinds.CONFIG_MAP: _config_map,
        kinds.ROLE_BINDING: _role_binding,
        kinds.CLUSTER_ROLE_BINDING: _role_binding,
    }
)
_CHANGES: Final[Mapping[ResourceType, Callable[[Object, Object], Faults]]] = MappingProxyType(
    {
        kinds.POD: _pod_change,
        kinds.DEPLOYMENT: _same_selector,
        kinds.REPLICA_SET: _same_selector,
        kinds.STATEFUL_SET: _stateful_change,
        kinds.DAEMON_SET: _same_selector,
        kinds.JOB: _same_job,
        kinds.SERVICE: _service_change,
        kinds.SECRET: _secret_change,
        kinds.CONFIG_MAP: _config_change,
        kinds.ROLE_BINDING: _role_change,
        kinds.CLUSTER_ROLE_BINDING: _role_change,
    }
)
