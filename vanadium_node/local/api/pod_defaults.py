"""The defaults of pods and of the templates that make them."""

from __future__ import annotations

from typing import Any, Final

from vanadium_node.local.api.objects import Object

_FILE_MODE: Final = 0o644
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS: Final = ("postStart", "preStop")


def fill_pod(obj: Object) -> None:
    """Fill in the defaults of a pod: those of every template, and those that only a pod itself gets."""
    spec = obj.setdefault("spec", {})
    fill_pod_spec(spec)
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    _set(spec, enableServiceLinks=True, serviceAccountName=account, serviceAccount=account, priority=0)
    _set(spec, preemptionPolicy="PreemptLowerPriority")
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = container["resources"]
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def fill_pod_spec(spec: Object) -> None:
    """Fill in the defaults of a pod's or a template's spec, in place."""
    _set(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", terminationGracePeriodSeconds=30)
    _set(spec, schedulerName="default-scheduler", securityContext={})
    if spec.get("serviceAccountName"):
        _set(spec, serviceAccount=spec["serviceAccountName"])
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        _container(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _set(target: Object, **values: Any) -> None:
    for key, value in values.items():
        target.setdefault(key, value)


def _container(container: Object) -> None:
    _set(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy=_pull_policy(str(container.get("image", ""))),
    )
    for port in container.get("ports") or ():
        _set(port, protocol="TCP")
    for variable in container.get("env") or ():
        field = (variable.get("valueFrom") or {}).get("fieldRef")
        if field is not None:
            _set(field, apiVersion="v1")
    for name in _PROBES:
        if name in container:
            _probe(container[name])
    for name in _HANDLERS:
        _http((container.get("lifecycle") or {}).get(name) or {})


def _pull_policy(image: str) -> str:
    """Return Always for the tag `latest`, which is also the one of an image without tag or digest."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "Always" if not digest and tag in ("", "latest") else "IfNotPresent"


def _probe(probe: Object) -> None:
    _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    _http(probe)
    if "grpc" in probe:
        _set(probe["grpc"], service="")


def _http(handler: Object) -> None:
    if "httpGet" in handler:
        _set(handler["httpGet"], path="/", scheme="HTTP")


def _volume(volume: Object) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    for kind in ("secret", "configMap", "downwardAPI", "projected"):
        if kind in volume:
            _set(volume[kind], defaultMode=_FILE_MODE)
    if "hostPath" in volume:
        _set(volume["hostPath"], type="")
    sources = (volume.get("projected") or {}).get("sources") or ()
    for source in sources:
        if "serviceAccountToken" in source:
            _set(source["serviceAccountToken"], expirationSeconds=3600)
    for downward in ((volume.get("downwardAPI") or {}), *((s.get("downwardAPI") or {}) for s in sources)):
        for item in downward.get("items") or ():
            if "fieldRef" in item:
                _set(item["fieldRef"], apiVersion="v1")
