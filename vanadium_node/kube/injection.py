"""Adding the pod agent to a workload, and taking it away again: pure functions from manifest to manifest.

The pod agent runs beside the application's containers, with the secret that only it can read, and serves the replica's
principal on a unix socket in a memory-backed volume that the others mount read-only. Everything the user wrote stays; where
one of our names is taken, the workload is refused rather than changed.

Who may use the socket. It has mode 0660 in a volume that all containers of the pod see. Containers run as users we do not
know, so membership decides: with the pod's `fsGroup` Kubernetes gives the volume that group and every container is in it;
without one the pod agent runs with a group of its own and the pod gets that as a supplemental group. That needs no
privilege, changes no ownership of the user's volumes, and Pod Security "restricted" allows it.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vanadium_node.errors import InputError, clip
from vanadium_node.kube.resources import Manifest
from vanadium_node.kube.workloads import template_of, title

ANNOTATION: Final = "vanadium.v.io/pod-agent"
"""On a pod template: the pod agent in it is ours. Its value names the form, so that it can be undone exactly."""

FORM: Final = "1"
FORM_WITH_GROUP: Final = "1+group"
"""The same, and the pod got our supplemental group."""

GROUP: Final = 65532
"""User and group of the project's image, and the supplemental group that may use the socket."""

CONTAINER: Final = "pod-agent"
LOGS: Final = "agent-logs"
SECRET_VOLUME: Final = "agent-secret"  # noqa: S105 - a name
SOCKET: Final = "agent-socket"
STARTUP_SECONDS: Final = 3600
"""How long a native sidecar may wait for its first identity before it is started again: an hour, since that helps nobody."""

VOLUMES: Final = (LOGS, SECRET_VOLUME, SOCKET)
AGENT_PATH: Final = "V23_AGENT_PATH"
LOGS_DIRECTORY: Final = "/agent/logs"
SECRET_DIRECTORY: Final = "/agent/secret"  # noqa: S105 - a path
SOCKET_DIRECTORY: Final = "/agent/socket"
SOCKET_PATH: Final = f"{SOCKET_DIRECTORY}/agent.sock"
SECRET_KEY: Final = "secret"  # noqa: S105 - a key of the Secret's data, not a secret
ROOTS_VARIABLE: Final = "ROOT_BLESSINGS"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodAgent:
    """What a pod agent is told: its image, the Secret with its key to the cluster agent, and whom to trust there."""

    image: str
    secret_name: str
    agent_name: str
    root_blessings: str
    native_sidecar: bool


def inject(workload: Manifest, agent: PodAgent) -> Manifest:
    """Return the workload with the pod agent in its pod template; one that has an older pod agent of ours gets this one.

    Raises:
        InputError: the pod template uses one of the names that the pod agent needs.
    """
    result = copy.deepcopy(dict(uninject(workload)))
    template = template_of(result)
    pod = template["spec"]
    _refuse_taken_names(title(result), pod)
    if not agent.native_sidecar:
        _refuse_pods_that_end(title(result), pod)
    metadata = template["metadata"] = dict(template.get("metadata") or {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION: FORM}
    pod["volumes"] = [*(pod.get("volumes") or ()), *_volumes(agent.secret_name)]
    for container in pod["containers"]:
        _give_identity(container)
    if agent.native_sidecar:  # it is up before the other init containers, so these can have the identity too
        for container in pod.get("initContainers") or ():
            _give_identity(container)
        pod["initContainers"] = [_container(agent), *(pod.get("initContainers") or ())]
    else:
        pod["containers"] = [*pod["containers"], _container(agent)]
    security = dict(pod.get("securityContext") or {})
    if security.get("fsGroup") is None and GROUP not in (security.get("supplementalGroups") or ()):
        security["supplementalGroups"] = [*(security.get("supplementalGroups") or ()), GROUP]
        pod["securityContext"] = security
        metadata["annotations"][ANNOTATION] = FORM_WITH_GROUP
    return result


def is_injected(workload: Manifest) -> bool:
    """Tell whether the workload's pod agent is ours."""
    metadata = template_of(workload).get("metadata") or {}
    return ANNOTATION in (metadata.get("annotations") or {})


def uninject(workload: Manifest) -> Manifest:
    """Return the workload without the pod agent that `inject` added; any other workload as it is."""
    if not is_injected(workload):
        return workload
    result = copy.deepcopy(dict(workload))
    template = template_of(result)
    pod = template["spec"]
    form = template["metadata"]["annotations"].pop(ANNOTATION)
    _drop_if_empty(template["metadata"], "annotations")
    for key in ("initContainers", "containers"):
        if key in pod:
            pod[key] = [c for c in pod[key] if c["name"] != CONTAINER]
            for container in pod[key]:
                _take_identity(container)
            _drop_if_empty(pod, key)
    pod["volumes"] = [v for v in pod.get("volumes") or () if v["name"] not in VOLUMES]
    _drop_if_empty(pod, "volumes")
    if form == FORM_WITH_GROUP:
        security = pod["securityContext"]
        security["supplementalGroups"] = [g for g in security["supplementalGroups"] if g != GROUP]
        _drop_if_empty(security, "supplementalGroups")
        _drop_if_empty(pod, "securityContext")
    return result


def secret_in_use(workload: Manifest) -> str | None:
    """Return the name of the Secret that the workload's pod agent reads, None where there is no pod agent of ours."""
    if not is_injected(workload):
        return None
    return secret_of_pod(template_of(workload)["spec"])


def secret_of_pod(pod: Mapping[str, Any]) -> str | None:
    """Return the name of the Secret that the pod agent in a pod's spec reads, None where there is none."""
    volumes = pod.get("volumes") or ()
    names = (v.get("secret", {}).get("secretName") for v in volumes if v.get("name") == SECRET_VOLUME)
    return next((str(name) for name in names if name), None)


def roots_in_use(workload: Manifest, container: str = CONTAINER, variable: str = ROOTS_VARIABLE) -> str | None:
    """Return the root blessings that a container of the workload is told to trust, None where it is told none."""
    pod = template_of(workload)["spec"]
    for candidate in [*(pod.get("initContainers") or ()), *pod["containers"]]:
        if candidate["name"] == container:
            values = (e.get("value") for e in candidate.get("env") or () if e["name"] == variable)
            return next((str(value) for value in values if value), None)
    return None


def restricted(image_group: int = GROUP) -> dict[str, Any]:
    """Return a container's security context that Pod Security "restricted" accepts, whatever the pod's says."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": image_group,
        "runAsGroup": image_group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _volumes(secret_name: str) -> list[dict[str, Any]]:
    return [
        {"name": LOGS, "emptyDir": {"sizeLimit": "64Mi"}},
        {
            "name": SECRET_VOLUME,
            "secret": {"secretName": secret_name, "defaultMode": 0o444},
        },  # only the pod agent mounts it
        {"name": SOCKET, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]


def _container(agent: PodAgent) -> dict[str, Any]:
    healthcheck = ["vanadium-node", "healthcheck", "--socket", SOCKET_PATH]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": agent.image,
        "args": ["pod-agent"],
        "env": [
            {"name": "AGENT_NAME", "value": agent.agent_name},
            {"name": ROOTS_VARIABLE, "value": agent.root_blessings},
            {"name": "SOCKET_PATH", "value": SOCKET_PATH},
            {"name": "SECRET_KEY_FILE", "value": f"{SECRET_DIRECTORY}/{SECRET_KEY}"},
        ],
        "volumeMounts": [
            {"name": LOGS, "mountPath": LOGS_DIRECTORY},
            {"name": SECRET_VOLUME, "mountPath": SECRET_DIRECTORY, "readOnly": True},
            {"name": SOCKET, "mountPath": SOCKET_DIRECTORY},
        ],
        "livenessProbe": {
            "exec": {
                "command": [*healthcheck, "--live"]
            },  # whoever waits for an identity gets none sooner by being killed
            "timeoutSeconds": 10,
            "periodSeconds": 30,
            "failureThreshold": 4,
            "initialDelaySeconds": 30,
        },
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "500m", "memory": "128Mi"},
        },
        "securityContext": restricted(),
    }
    if agent.native_sidecar:  # the application starts when the probe has passed: started means the identity is there
        container["restartPolicy"] = "Always"
        container["startupProbe"] = {
            "exec": {"command": healthcheck},
            "timeoutSeconds": 10,
            "periodSeconds": 1,
            "failureThreshold": STARTUP_SECONDS,
        }
        del container["livenessProbe"]["initialDelaySeconds"]
    return container


def _give_identity(container: dict[str, Any]) -> None:
    container["env"] = [*(container.get("env") or ()), {"name": AGENT_PATH, "value": SOCKET_PATH}]
    mount = {"name": SOCKET, "mountPath": SOCKET_DIRECTORY, "readOnly": True}
    container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]


def _take_identity(container: dict[str, Any]) -> None:
    container["env"] = [e for e in container.get("env") or () if e["name"] != AGENT_PATH]
    container["volumeMounts"] = [m for m in container.get("volumeMounts") or () if m["name"] != SOCKET]
    _drop_if_empty(container, "env")
    _drop_if_empty(container, "volumeMounts")


def _drop_if_empty(mapping: dict[str, Any], key: str) -> None:
    if not mapping.get(key):
        mapping.pop(key, None)


def _refuse_pods_that_end(workload: str, pod: Mapping[str, Any]) -> None:
    """Without native sidecars a pod ends only when its pod agent does, which never happens by itself."""
    if pod.get("restartPolicy", "Always") != "Always":
        raise InputError(
            f"the pod agent cannot be added to {clip(workload)}: on a cluster older than Kubernetes 1.29 it would keep "
            f"the pods, which are to end, running for ever",
            hint="use a newer cluster, which has native sidecars, or start it with --noblessings",
        )


def _refuse_taken_names(workload: str, pod: Mapping[str, Any]) -> None:
    taken = next(_taken_names(pod), None)
    if taken is not None:
        raise InputError(
            f"the pod agent cannot be added to {clip(workload)}: {taken}",
            hint="rename it, or start the application with --noblessings",
        )


def _taken_names(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each name of ours that the user's pod template uses."""
    for volume in pod.get("volumes") or ():
        if volume.get("name") in VOLUMES:
            yield f"it has a volume '{volume['name']}' of its own"
    for container in [*pod["containers"], *(pod.get("initContainers") or ())]:
        name = container.get("name")
        if name == CONTAINER:
            yield f"it has a container '{CONTAINER}' of its own"
        if any(e.get("name") == AGENT_PATH for e in container.get("env") or ()):
            yield f"its container '{clip(str(name))}' sets {AGENT_PATH} itself"
        if any(_is_ours(str(m.get("mountPath", ""))) for m in container.get("volumeMounts") or ()):
            yield f"its container '{clip(str(name))}' mounts something at {SOCKET_DIRECTORY}"


def _is_ours(mount_path: str) -> bool:
    path = mount_path.rstrip("/")
    return (
        path == SOCKET_DIRECTORY or path.startswith(f"{SOCKET_DIRECTORY}/") or SOCKET_DIRECTORY.startswith(f"{path}/")
    )
