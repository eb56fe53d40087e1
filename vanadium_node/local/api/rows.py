"""What fills the columns of a kind's table: cells behind the name, as the API server computes them for kubectl."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from vanadium_node.local.api.objects import Object
from vanadium_node.local.api.selectors import LabelSelector

NONE: Final = "<none>"
UNKNOWN: Final = "<unknown>"


def moment(text: str | None) -> datetime | None:
    """Read a time as the API writes it, with or without fractions of a second."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def short_duration(seconds: float) -> str:
    """Return a duration as kubectl writes it: `42s`, `3m10s`, `5h12m`, `2d3h`, `41d`, `3y12d`."""
    if seconds < -1:
        return "<invalid>"
    whole = max(0, int(seconds))
    if whole < 60 * 2:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        return _joined(minutes, "m", whole % 60, "s")
    if minutes < 60 * 3:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 8:
        return _joined(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if days < 8:
        return _joined(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    years = days // 365
    return _joined(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _joined(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def since(text: str | None, now: datetime) -> str:
    """Return how long ago a time was."""
    then = moment(text)
    return UNKNOWN if then is None else short_duration((now - then).total_seconds())


def age(obj: Object, now: datetime) -> str:
    """Return an object's age."""
    return since(obj["metadata"].get("creationTimestamp"), now)


def age_only(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a kind without columns of its own."""
    return [age(obj, now)]


def created_at(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a role."""
    return [obj["metadata"].get("creationTimestamp", "")]


def namespace(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a namespace."""
    return [obj.get("status", {}).get("phase", ""), age(obj, now)]


def secret(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a secret."""
    return [obj.get("type", ""), len(obj.get("data") or {}), age(obj, now)]


def config_map(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a config map."""
    return [len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), age(obj, now)]


def service_account(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a service account."""
    return [len(obj.get("secrets") or ()), age(obj, now)]


def lease(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a lease."""
    return [obj.get("spec", {}).get("holderIdentity", ""), age(obj, now)]


def node(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a node."""
    status, spec = obj.get("status", {}), obj.get("spec", {})
    ready: Object = next((c for c in status.get("conditions", ()) if c.get("type") == "Ready"), {})
    state = {"True": "Ready", "False": "NotReady"}.get(ready.get("status", ""), "Unknown")
    if spec.get("unschedulable"):
        state += ",SchedulingDisabled"
    role = "node-role.kubernetes.io/"
    roles = sorted(k.removeprefix(role) for k in obj["metadata"].get("labels", {}) if k.startswith(role))
    address = {a.get("type"): a.get("address") for a in reversed(status.get("addresses", ()))}
    info = status.get("nodeInfo", {})
    return [
        state,
        ",".join(roles) or NONE,
        age(obj, now),
        info.get("kubeletVersion", ""),
        address.get("InternalIP", NONE),
        address.get("ExternalIP", NONE),
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def service(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a service."""
    spec = obj.get("spec", {})
    ports = ",".join(_service_port(port) for port in spec.get("ports") or ()) or NONE
    selector = _pairs(spec.get("selector"))
    return [
        spec.get("type", ""),
        spec.get("clusterIP") or NONE,
        _external_address(obj),
        ports,
        age(obj, now),
        selector,
    ]


def _service_port(port: Object) -> str:
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port')}{node_port}/{port.get('protocol', 'TCP')}"


def _external_address(obj: Object) -> str:
    spec = obj.get("spec", {})
    given: list[str] = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "LoadBalancer":
            ingress = obj.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
            found = [i.get("ip") or i.get("hostname", "") for i in ingress]
            return ",".join([*found, *given]) or "<pending>"
        case "ExternalName":
            return str(spec.get("externalName", ""))
        case _:
            return ",".join(given) or NONE


def _pairs(labels: Object | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def endpoints(obj: Object, now: datetime) -> list[Any]:
    """Return the row of endpoints: at most three addresses, and how many more there are."""
    found = [
        f"{address.get('ip')}:{port.get('port')}" if port else str(address.get("ip"))
        for subset in obj.get("subsets") or ()
        for port in subset.get("ports") or (None,)
        for address in subset.get("addresses") or ()
    ]
    return [_at_most_three(found, " + {} more..."), age(obj, now)]


def endpoint_slice(obj: Object, now: datetime) -> list[Any]:
    """Return the row of an endpoint slice."""
    ports = [str(port.get("port", "*")) for port in obj.get("ports") or ()]
    addresses = [a for endpoint in obj.get("endpoints") or () for a in endpoint.get("addresses") or ()]
    more = " + {} more..."
    return [
        obj.get("addressType", ""),
        _at_most_three(ports, more) if ports else "<unset>",
        _at_most_three(addresses, more) if addresses else "<unset>",
        age(obj, now),
    ]


def _at_most_three(found: list[str], more: str) -> str:
    text = ",".join(found[:3]) or NONE
    return text + more.format(len(found) - 3) if len(found) > 3 else text


def containers(obj: Object) -> list[str]:
    """Return the cells with the names and images of a workload's containers."""
    template = obj.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or ()
    return [
        ",".join(str(container.get("name", "")) for container in template),
        ",".join(str(container.get("image", "")) for container in template),
    ]


def selector_of(obj: Object) -> str:
    """Return the cell with a workload's label selector."""
    selector = obj.get("spec", {}).get("selector")
    return str(LabelSelector.from_object(selector)) if selector else NONE


def deployment(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a deployment."""
    status = obj.get("status", {})
    wanted = obj.get("spec", {}).get("replicas", 1)
    return [
        f"{status.get('readyReplicas', 0)}/{wanted}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age(obj, now),
        *containers(obj),
        selector_of(obj),
    ]


def replica_set(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a replica set."""
    status = obj.get("status", {})
    return [
        obj.get("spec", {}).get("replicas", 1),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age(obj, now),
        *containers(obj),
        selector_of(obj),
    ]


def stateful_set(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a stateful set."""
    ready, wanted = obj.get("status", {}).get("readyReplicas", 0), obj.get("spec", {}).get("replicas", 1)
    return [f"{ready}/{wanted}", age(obj, now), *containers(obj)]


def daemon_set(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a daemon set."""
    status = obj.get("status", {})
    numbers = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
    nodes = obj.get("spec", {}).get("template", {}).get("spec", {}).get("nodeSelector")
    return [
        *(status.get(n, 0) for n in (*numbers, "numberAvailable")),
        _pairs(nodes),
        age(obj, now),
        *containers(obj),
        selector_of(obj),
    ]


def job(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a job."""
    status, spec = obj.get("status", {}), obj.get("spec", {})
    wanted = spec.get("completions")
    completions = f"{status.get('succeeded', 0)}/{wanted if wanted is not None else '1'}"
    start, end = moment(status.get("startTime")), moment(status.get("completionTime"))
    duration = short_duration(((end or now) - start).total_seconds()) if start else ""
    held = {c.get("type") for c in status.get("conditions", ()) if c.get("status") == "True"}
    state = next(
        (s for s in ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet") if s in held), ""
    )
    if not state:
        state = "Terminating" if obj["metadata"].get("deletionTimestamp") else "Running"
    return [state, completions, duration, age(obj, now), *containers(obj), selector_of(obj)]


def cron_job(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a cron job."""
    spec, status = obj.get("spec", {}), obj.get("status", {})
    last = status.get("lastScheduleTime")
    return [
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        "True" if spec.get("suspend") else "False",
        len(status.get("active") or ()),
        since(last, now) if last else NONE,
        age(obj, now),
        *containers({"spec": spec.get("jobTemplate", {}).get("spec", {})}),
        NONE,
    ]


def volume_claim(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a persistent volume claim."""
    spec, status = obj.get("spec", {}), obj.get("status", {})
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    bound = bool(spec.get("volumeName"))
    return [
        "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", ""),
        spec.get("volumeName", ""),
        status.get("capacity", {}).get("storage", "") if bound else "",
        ",".join(short.get(m, m) for m in status.get("accessModes") or ()) if bound else "",
        spec.get("storageClassName") or "",
        spec.get("volumeAttributesClassName") or "<unset>",
        age(obj, now),
        spec.get("volumeMode") or "<unset>",
    ]


def network_policy(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a network policy."""
    return [str(LabelSelector.from_object(obj.get("spec", {}).get("podSelector") or {})) or NONE, age(obj, now)]


def disruption_budget(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a disruption budget."""
    spec = obj.get("spec", {})
    return [
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        obj.get("status", {}).get("disruptionsAllowed", 0),
        age(obj, now),
    ]


def role_binding(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a role binding."""
    reference = obj.get("roleRef", {})
    subjects = obj.get("subjects") or ()
    named = {
        kind: ", ".join(
            f"{s['namespace']}/{s.get('name')}" if s.get("namespace") else str(s.get("name"))
            for s in subjects
            if s.get("kind") == kind
        )
        for kind in ("User", "Group", "ServiceAccount")
    }
    return [f"{reference.get('kind')}/{reference.get('name')}", age(obj, now), *named.values()]


def event(obj: Object, now: datetime) -> list[Any]:
    """Return all cells of an event, which begins with when it was last seen."""
    involved = obj.get("involvedObject", {})
    source = obj.get("source") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    last = obj.get("lastTimestamp") or (obj.get("series") or {}).get("lastObservedTime") or first
    reporter = source.get("component") or obj.get("reportingComponent") or ""
    return [
        since(last, now),
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{involved.get('kind', '').lower()}/{involved.get('name', '')}",
        involved.get("fieldPath", ""),
        f"{reporter}, {source['host']}" if source.get("host") else reporter,
        str(obj.get("message", "")).strip(),
        since(first, now),
        obj.get("count") or (obj.get("series") or {}).get("count") or 1,
        obj["metadata"]["name"],
    ]


def pod(obj: Object, now: datetime) -> list[Any]:
    """Return the row of a pod."""
    spec, status = obj.get("spec", {}), obj.get("status", {})
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    restarts, latest, ready = _restarts_and_ready(obj)
    gates = [g.get("conditionType") for g in spec.get("readinessGates") or ()]
    met = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    addresses = [a.get("ip") for a in status.get("podIPs") or ()] or [status.get("podIP")]
    return [
        f"{ready}/{len(spec.get('containers') or ()) + len(sidecars)}",
        _pod_state(obj),
        f"{restarts} ({short_duration((now - latest).total_seconds())} ago)" if restarts and latest else str(restarts),
        age(obj, now),
        addresses[0] or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{sum(g in met for g in gates)}/{len(gates)}" if gates else NONE,
    ]


def _sidecar_names(obj: Object) -> frozenset[str]:
    inits = obj.get("spec", {}).get("initContainers") or ()
    return frozenset(c.get("name", "") for c in inits if c.get("restartPolicy") == "Always")


def _restarts_and_ready(obj: Object) -> tuple[int, datetime | None, int]:
    """Return how often a pod's containers were restarted, when last, and how many are ready."""
    status = obj.get("status", {})
    sidecars = _sidecar_names(obj)
    inits = status.get("initContainerStatuses") or ()
    if _init_state(obj) is not None:
        counted = list(inits)
    else:
        counted = [*(s for s in inits if s.get("name") in sidecars), *(status.get("containerStatuses") or ())]
    ends = [moment(s.get("lastState", {}).get("terminated", {}).get("finishedAt")) for s in counted]
    ready_among = [*(s for s in inits if s.get("name") in sidecars), *(status.get("containerStatuses") or ())]
    ready = sum(bool(s.get("ready")) and "running" in s.get("state", {}) for s in ready_among)
    return sum(s.get("restartCount", 0) for s in counted), max((e for e in ends if e), default=None), ready


def _pod_state(obj: Object) -> str:
    """Return the word under STATUS: the most telling reason there is."""
    status = obj.get("status", {})
    state = status.get("reason") or status.get("phase") or "Pending"
    initializing = _init_state(obj)
    state = _container_state(obj, state) if initializing is None else initializing
    if obj["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        return state if status.get("phase") in ("Succeeded", "Failed") else "Terminating"
    return str(state)


def _init_state(obj: Object) -> str | None:
    """Return `Init:…` while an init container has not done its part; None when all have."""
    sidecars = _sidecar_names(obj)
    statuses = obj.get("status", {}).get("initContainerStatuses") or ()
    for index, found in enumerate(statuses):
        state = found.get("state", {})
        ended, waiting = state.get("terminated"), state.get("waiting")
        if (ended is not None and ended.get("exitCode") == 0) or (
            found.get("name") in sidecars and found.get("started")
        ):
            continue
        if ended is not None:
            return f"Init:{_end(ended)}"
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{len(obj.get('spec', {}).get('initContainers') or ())}"
    return None


def _container_state(obj: Object, state: str) -> str:
    running_and_ready = False
    for found in reversed(obj.get("status", {}).get("containerStatuses") or ()):
        now = found.get("state", {})
        if now.get("waiting", {}).get("reason"):
            state = now["waiting"]["reason"]
        elif "terminated" in now:
            state = _end(now["terminated"])
        elif found.get("ready") and "running" in now:
            running_and_ready = True
    if state == "Completed" and running_and_ready:
        conditions = obj.get("status", {}).get("conditions") or ()
        is_ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
        return "Running" if is_ready else "NotReady"
    return state


def _end(terminated: Object) -> str:
    """Return the word for how a container ended."""
    if terminated.get("reason"):
        return str(terminated["reason"])
    signal = terminated.get("signal")
    return f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode', 0)}"
