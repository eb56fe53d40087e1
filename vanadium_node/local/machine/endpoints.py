"""The endpoints controller: which pods stand behind a service, as Endpoints and as EndpointSlice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vanadium_node.local.api.kinds import ENDPOINT_SLICE, ENDPOINTS, POD, SERVICE, ResourceType
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.api.selectors import LabelSelector
from vanadium_node.local.machine.controllers import Controller, Key, itself
from vanadium_node.local.machine.owned import reference_to
from vanadium_node.local.machine.pods import ENDED, is_ending, is_ready, phase

SERVICE_LABEL: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A pod behind a service, and the ports it serves there: (name, number, protocol)."""

    pod: Object
    ports: tuple[tuple[str, int, str], ...]

    @property
    def address(self) -> str:
        """Return the pod's address."""
        return str(self.pod["status"]["podIP"])

    @property
    def is_ready(self) -> bool:
        """Tell whether the pod may get connections."""
        return is_ready(self.pod) and not is_ending(self.pod)


def backends(store: ObjectStore, service: Object) -> tuple[Backend, ...]:
    """Return the pods that a service selects and that have an address."""
    selector = service["spec"].get("selector")
    if not selector:
        return ()
    pods = store.list(POD, service["metadata"]["namespace"], LabelSelector.from_labels(selector))
    return tuple(
        Backend(pod=pod, ports=_ports(service, pod))
        for pod in pods
        if (pod.get("status") or {}).get("podIP") and phase(pod) not in ENDED
    )


class EndpointsController:
    """Keeps the endpoints of every service with a selector."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def controller(self) -> Controller:
        """Return the controller to run."""
        watches = {SERVICE: itself, POD: self._concerned}
        return Controller(name="endpoints", reconcile=self.reconcile, watches=watches)

    def _concerned(self, pod: Object) -> Iterable[Key]:
        for service in self._store.list(SERVICE, pod["metadata"]["namespace"]):
            yield from itself(service)

    def reconcile(self, namespace: str, name: str) -> None:
        """Write down which pods stand behind a service now."""
        service = self._store.find(SERVICE, namespace, name)
        if service is None:
            for kind in (ENDPOINTS, ENDPOINT_SLICE):
                self._delete(kind, namespace, name)
            return
        if not service["spec"].get("selector") or is_ending(service):
            return
        found = backends(self._store, service)
        self._write(ENDPOINTS, service, {"subsets": _subsets(service, found)})
        self._write(ENDPOINT_SLICE, service, _slice(service, found))

    def _write(self, kind: ResourceType, service: Object, content: Object) -> None:
        metadata = service["metadata"]
        labels = dict(metadata.get("labels") or {})
        if kind is ENDPOINT_SLICE:
            labels |= {SERVICE_LABEL: metadata["name"], MANAGED_BY: "endpointslice-controller.k8s.io"}
        head: Object = {"name": metadata["name"], "namespace": metadata["namespace"], "labels": labels}
        if kind is ENDPOINT_SLICE:
            head["ownerReferences"] = [reference_to(service)]
        old = self._store.find(kind, metadata["namespace"], metadata["name"])
        if old is None:
            self._store.create(kind, {"metadata": head, **content})
        elif any(old.get(key) != value for key, value in content.items()):
            self._store.update(kind, {"metadata": head, **content})

    def _delete(self, kind: ResourceType, namespace: str, name: str) -> None:
        if self._store.find(kind, namespace, name) is not None:
            self._store.delete(kind, namespace, name)


def _ports(service: Object, pod: Object) -> tuple[tuple[str, int, str], ...]:
    found: list[tuple[str, int, str]] = []
    for port in service["spec"].get("ports") or ():
        number = _target(port, pod)
        if number:
            found.append((str(port.get("name") or ""), number, str(port.get("protocol") or "TCP")))
    return tuple(found)


def _target(port: Mapping[str, Any], pod: Object) -> int | None:
    """Return the port of the pod that a port of the service leads to; None where the pod has none of that name."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
        for candidate in container.get("ports") or ():
            if candidate.get("name") == target:
                return int(candidate["containerPort"])
    return None


def _subsets(service: Object, found: tuple[Backend, ...]) -> list[Object]:
    """Return the subsets of an Endpoints object: pods with the same ports together."""
    early = bool(service["spec"].get("publishNotReadyAddresses"))
    groups: dict[tuple[tuple[str, int, str], ...], Object] = {}
    for backend in found:
        if is_ending(backend.pod) and not early:
            continue
        subset = groups.setdefault(backend.ports, {})
        key = "addresses" if backend.is_ready or early else "notReadyAddresses"
        address = {"ip": backend.address, "nodeName": backend.pod["spec"].get("nodeName"), "targetRef": _pod(backend)}
        subset.setdefault(key, []).append(address | _hostname(service, backend))
    return [{**subset, "ports": [_port(*port) for port in ports]} for ports, subset in groups.items()]


def _slice(service: Object, found: tuple[Backend, ...]) -> Object:
    early = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoints = [
        {
            "addresses": [backend.address],
            "conditions": {
                "ready": backend.is_ready or early,
                "serving": is_ready(backend.pod),
                "terminating": is_ending(backend.pod),
            },
            "nodeName": backend.pod["spec"].get("nodeName"),
            "targetRef": _pod(backend),
            **_hostname(service, backend),
        }
        for backend in found
    ]
    ports = sorted({port for backend in found for port in backend.ports})
    return {
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": name, "port": number, "protocol": protocol} for name, number, protocol in ports],
    }


def _pod(backend: Backend) -> Object:
    metadata = backend.pod["metadata"]
    return {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}


def _hostname(service: Object, backend: Backend) -> Object:
    spec = backend.pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        return {"hostname": spec["hostname"]}
    return {}


def _port(name: str, number: int, protocol: str) -> Object:
    port: Object = {"port": number, "protocol": protocol}
    return {"name": name, **port} if name else port
