"""The one node of the cluster: this machine, as the API shows it."""

from __future__ import annotations

import os
import platform
import re
import socket
from typing import Final

from vanadium_node.local.api.kinds import NODE, SERVER_VERSION
from vanadium_node.local.api.objects import Object, ObjectStore, timestamp

FALLBACK_NAME: Final = "local"
MAX_PODS: Final = 110
_UNFIT: Final = re.compile(r"[^a-z0-9.-]+")
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def node_name() -> str:
    """Return this machine's name in the form that names of objects have."""
    return _UNFIT.sub("-", socket.gethostname().lower())[:63].strip("-.") or FALLBACK_NAME


def register_node(store: ObjectStore, address: str) -> str:
    """Put this machine into the store as a node that is ready, and return its name."""
    name, architecture = node_name(), _ARCHITECTURES.get(platform.machine(), platform.machine())
    labels = {
        "beta.kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    }
    node: Object = {
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": _status(store, name, address, architecture),
    }
    if store.find(NODE, None, name) is not None:
        store.delete(NODE, None, name)
    store.create(NODE, node)
    return name


def _status(store: ObjectStore, name: str, address: str, architecture: str) -> Object:
    size = {"cpu": str(os.cpu_count() or 1), "memory": f"{_memory_bytes() // 1024}Ki", "pods": str(MAX_PODS)}
    now = timestamp(store.now())
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux") if _has_release() else platform.system()
    return {
        "capacity": size,
        "allocatable": dict(size),
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "the embedded cluster runs pods as processes of this machine",
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }
        ],
        "nodeInfo": {
            "architecture": architecture,
            "bootID": "",
            "containerRuntimeVersion": "process://1",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": SERVER_VERSION,
            "kubeletVersion": SERVER_VERSION,
            "machineID": "",
            "operatingSystem": platform.system().lower(),
            "osImage": system,
            "systemUUID": "",
        },
    }


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _has_release() -> bool:
    try:
        platform.freedesktop_os_release()
    except OSError:
        return False
    return True
