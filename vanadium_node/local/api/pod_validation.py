"""What a pod's spec must be like: containers, ports, environment, volumes, probes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from vanadium_node.local.api import names
from vanadium_node.local.api.errors import Cause
from vanadium_node.local.api.objects import Object

Faults: TypeAlias = Iterator[Cause]

_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc")
_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")


def duplicates(items: Iterable[Object], key: str, field: str) -> Faults:
    """Find the items whose key an earlier one has already."""
    seen: set[Any] = set()
    for index, item in enumerate(items):
        value = item.get(key)
        if value is not None and value in seen:
            yield Cause.duplicate(f"{field}[{index}].{key}", value)
        seen.add(value)


def pod_spec_faults(spec: Object, field: str, claims: Iterable[str] = ()) -> Faults:
    """Find what is wrong with a pod's spec; `field` is where it stands, `claims` names volumes that its owner adds."""
    if not spec.get("containers"):
        yield Cause.required(f"{field}.containers")
    volumes = spec.get("volumes") or ()
    known = frozenset(str(v.get("name")) for v in volumes) | frozenset(claims)
    containers = spec.get("containers") or ()
    inits = spec.get("initContainers") or ()
    for kind, group in (("initContainers", inits), ("containers", containers)):
        for index, container in enumerate(group):
            yield from _container(container, f"{field}.{kind}[{index}]", known, is_init=kind == "initContainers")
    yield from duplicates([*inits, *containers], "name", f"{field}.containers")
    yield from _volumes(volumes, f"{field}.volumes")
    if spec.get("restartPolicy", "Always") not in _RESTART_POLICIES:
        yield Cause.unsupported(f"{field}.restartPolicy", spec["restartPolicy"], _RESTART_POLICIES)
    for name in ("terminationGracePeriodSeconds", "activeDeadlineSeconds"):
        value = spec.get(name)
        if isinstance(value, int) and value < 0:
            yield Cause.wrong(f"{field}.{name}", value, "must be greater than or equal to 0")


def _container(container: Object, field: str, volumes: frozenset[str], *, is_init: bool) -> Faults:
    name = container.get("name")
    if not name:
        yield Cause.required(f"{field}.name")
    elif fault := names.label_fault(name):
        yield Cause.wrong(f"{field}.name", name, fault)
    image = container.get("image")
    if not image:
        yield Cause.required(f"{field}.image")
    elif image.strip() != image:
        yield Cause.wrong(f"{field}.image", image, "must not have leading or trailing whitespace")
    if container.get("imagePullPolicy") not in _PULL_POLICIES:
        yield Cause.unsupported(f"{field}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES)
    if "restartPolicy" in container and (not is_init or container["restartPolicy"] != "Always"):
        if is_init:
            yield Cause.unsupported(f"{field}.restartPolicy", container["restartPolicy"], ("Always",))
        else:
            yield Cause.forbidden(f"{field}.restartPolicy", "may not be set for non-init containers")
    yield from _ports(container.get("ports") or (), f"{field}.ports")
    yield from _environment(container.get("env") or (), f"{field}.env")
    yield from _mounts(container.get("volumeMounts") or (), f"{field}.volumeMounts", volumes)
    yield from _probes(container, field, is_init=is_init and container.get("restartPolicy") != "Always")


def _ports(ports: Iterable[Object], field: str) -> Faults:
    for index, port in enumerate(ports):
        where = f"{field}[{index}]"
        number = port.get("containerPort")
        if number is None:
            yield Cause.required(f"{where}.containerPort")
        elif not 1 <= number <= 65535:
            yield Cause.wrong(f"{where}.containerPort", number, "must be between 1 and 65535, inclusive")
        if port.get("protocol", "TCP") not in ("SCTP", "TCP", "UDP"):
            yield Cause.unsupported(f"{where}.protocol", port["protocol"], ("SCTP", "TCP", "UDP"))
        name = port.get("name")
        if name and (len(name) > 15 or names.label_fault(name)):
            fault = "must be no more than 15 characters" if len(name) > 15 else names.label_fault(name)
            yield Cause.wrong(f"{where}.name", name, str(fault))
    yield from duplicates(ports, "name", field)


def _environment(variables: Iterable[Object], field: str) -> Faults:
    for index, variable in enumerate(variables):
        where, name = f"{field}[{index}]", variable.get("name")
        if not name:
            yield Cause.required(f"{where}.name")
        elif fault := names.environment_fault(name):
            yield Cause.wrong(f"{where}.name", name, fault)
        source = variable.get("valueFrom")
        if source is not None and len(source) != 1:
            detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            if source:
                detail = "may not have more than one field specified at a time"
            yield Cause.wrong(f"{where}.valueFrom", "", detail)
        if source and variable.get("value"):
            yield Cause.wrong(f"{where}.valueFrom", "", "may not be specified when `value` is not empty")


def _mounts(mounts: Iterable[Object], field: str, volumes: frozenset[str]) -> Faults:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        where, path = f"{field}[{index}]", mount.get("mountPath")
        if mount.get("name") not in volumes:
            yield Cause(
                field=f"{where}.name", reason="FieldValueNotFound", message=f'Not found: "{mount.get("name", "")}"'
            )
        if not path:
            yield Cause.required(f"{where}.mountPath")
        elif path in seen:
            yield Cause.wrong(f"{where}.mountPath", path, "must be unique")
        seen.add(str(path))
        if ".." in str(mount.get("subPath", "")).split("/"):
            yield Cause.wrong(f"{where}.subPath", mount["subPath"], "must not contain '..'")


def _volumes(volumes: Iterable[Object], field: str) -> Faults:
    for index, volume in enumerate(volumes):
        where, name = f"{field}[{index}]", volume.get("name")
        if not name:
            yield Cause.required(f"{where}.name")
        elif fault := names.label_fault(name):
            yield Cause.wrong(f"{where}.name", name, fault)
        sources = [key for key in volume if key != "name"]
        for source in sources[1:]:
            yield Cause.forbidden(f"{where}.{source}", "may not specify more than 1 volume type")
        path = (volume.get("hostPath") or {}).get("path", "/")
        if ".." in str(path).split("/"):
            yield Cause.wrong(f"{where}.hostPath.path", path, "must not contain '..'")
    yield from duplicates(volumes, "name", field)


def _probes(container: Mapping[str, Any], field: str, *, is_init: bool) -> Faults:
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is None:
            continue
        where = f"{field}.{name}"
        if is_init:
            yield Cause.forbidden(where, "may not be set for init containers without restartPolicy=Always")
        handlers = [handler for handler in _HANDLERS if handler in probe]
        if not handlers:
            yield Cause.required(where, "must specify a handler type")
        for handler in handlers[1:]:
            yield Cause.forbidden(f"{where}.{handler}", "may not specify more than 1 handler type")
        if "exec" in probe and not probe["exec"].get("command"):
            yield Cause.required(f"{where}.exec.command")
        for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "failureThreshold", "successThreshold"):
            value = probe.get(key)
            if isinstance(value, int) and value < 0:
                yield Cause.wrong(f"{where}.{key}", value, "must be greater than or equal to 0")
        if name != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            yield Cause.wrong(f"{where}.successThreshold", probe["successThreshold"], "must be 1")
