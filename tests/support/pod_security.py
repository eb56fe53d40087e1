"""The Pod Security Standard "restricted", as published by Kubernetes: pod spec → what in it violates the standard.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ with the controls of "baseline", which it includes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
Spec = Mapping[str, Any]


def violations(pod: Spec) -> set[str]:
    """Return what violates the standard, each as a path and what it should be."""
    found = set(_of_pod(pod))
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod.get(key) or ():
            where = f"{key}[{container['name']}]"
            found |= {f"{where}: {what}" for what in _of_container(container, pod.get("securityContext") or {})}
    return found


def _of_pod(pod: Spec) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} must be false"
    for volume in pod.get("volumes") or ():
        for kind in set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']} must not be of type {kind}"
    security = pod.get("securityContext") or {}
    yield from _of_either(security)
    for sysctl in security.get("sysctls") or ():
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']} is not safe"


def _of_either(security: Spec) -> Iterator[str]:
    """Check the fields that pods and containers have in common."""
    if (security.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess must be false"
    options = security.get("seLinuxOptions") or {}
    if options.get("type", "") not in SELINUX_TYPES or options.get("user") or options.get("role"):
        yield "seLinuxOptions must be of a container's type"
    if (security.get("appArmorProfile") or {}).get("type", "RuntimeDefault") not in {"RuntimeDefault", "Localhost"}:
        yield "appArmorProfile must confine"
    if security.get("runAsUser") == 0:
        yield "runAsUser must not be 0"


def _of_container(container: Spec, pod: Spec) -> Iterator[str]:
    security = container.get("securityContext") or {}
    yield from _of_either(security)
    if security.get("privileged"):
        yield "privileged must be false"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation must be false"
    if security.get("procMount", "Default") != "Default":
        yield "procMount must be Default"
    if not security.get("runAsNonRoot", pod.get("runAsNonRoot")):
        yield "runAsNonRoot must be true"
    profile = security.get("seccompProfile") or pod.get("seccompProfile") or {}
    if profile.get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "seccompProfile must be RuntimeDefault or Localhost"
    capabilities = security.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "capabilities must drop ALL"
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield "capabilities must add nothing but NET_BIND_SERVICE"
    if any(port.get("hostPort") for port in container.get("ports") or ()):
        yield "hostPort must not be used"
    yield from _of_handlers(container)


def _of_handlers(container: Spec) -> Iterator[str]:
    """Check probes and lifecycle hooks, which must not connect to another host (since 1.34)."""
    lifecycle = container.get("lifecycle") or {}
    probes: Sequence[Any] = [container.get(f"{kind}Probe") for kind in ("liveness", "readiness", "startup")]
    for handler in (*probes, lifecycle.get("preStop"), lifecycle.get("postStart")):
        for kind in ("httpGet", "tcpSocket"):
            if ((handler or {}).get(kind) or {}).get("host"):
                yield f"{kind} must not name a host"
