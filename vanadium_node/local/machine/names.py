"""Names of services: a file in the form of /etc/hosts for the pods of each namespace, written whole at each change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from vanadium_node.local.api.kinds import ENDPOINTS, NAMESPACE, SERVICE
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.machine.controllers import Controller, everything

CLUSTER_DOMAIN = "cluster.local"


class Names:
    """Keeps the files of names."""

    def __init__(self, store: ObjectStore, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._written: dict[str, str] = {}

    def file(self, namespace: str) -> Path:
        """Return the file for the pods of a namespace."""
        return self._directory / namespace

    def controller(self) -> Controller:
        """Return the controller to run."""
        watches = dict.fromkeys((NAMESPACE, SERVICE, ENDPOINTS), everything)
        return Controller(name="names", reconcile=lambda *_: self.write(), watches=watches)

    def write(self) -> None:
        """Write every file that would say something else than it does."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [entry for service in self._store.list(SERVICE) for entry in self._entries(service)]
        for namespace in self._store.list(NAMESPACE):
            own = namespace["metadata"]["name"]
            text = "127.0.0.1 localhost\n" + "".join(_line(*entry, own=own) for entry in lines)
            if self._written.get(own) != text:
                _rewrite(self.file(own), text)
                self._written[own] = text

    def _entries(self, service: Object) -> Iterator[tuple[str, str, str]]:
        """Yield (address, name within the namespace, namespace) of a service and of its pods that have a name there."""
        metadata, address = service["metadata"], service["spec"].get("clusterIP")
        namespace = metadata["namespace"]
        if address and address != "None":
            yield str(address), metadata["name"], namespace
            return
        endpoints = self._store.find(ENDPOINTS, namespace, metadata["name"]) or {}
        for subset in endpoints.get("subsets") or ():
            for entry in subset.get("addresses") or ():
                yield entry["ip"], metadata["name"], namespace
                if entry.get("hostname"):
                    yield entry["ip"], f"{entry['hostname']}.{metadata['name']}", namespace


def _rewrite(file: Path, text: str) -> None:
    """Write a file in its place: pods have this very file bound over their /etc/hosts, and would not see another one.

    The new text goes over the old one in one call and the rest is cut off, so that there is never less than one of the two.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        data = text.encode()
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def _line(address: str, name: str, namespace: str, *, own: str) -> str:
    full = f"{name}.{namespace}"
    names = [full, f"{full}.svc", f"{full}.svc.{CLUSTER_DOMAIN}"]
    return " ".join([address, *([name] if namespace == own else []), *names]) + "\n"
