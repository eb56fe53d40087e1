"""The load balancer controller: an address of this machine for every service that asks for one."""

from __future__ import annotations

from vanadium_node.local.api.kinds import SERVICE
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.machine.addresses import Addresses
from vanadium_node.local.machine.controllers import Controller, Key, itself
from vanadium_node.local.machine.recorder import Recorder


class LoadBalancers:
    """Gives services of type LoadBalancer an address."""

    def __init__(self, store: ObjectStore, recorder: Recorder, addresses: Addresses) -> None:
        self._store = store
        self._events = recorder
        self._addresses = addresses
        self._given: dict[Key, tuple[str, str]] = {}

    def controller(self) -> Controller:
        """Return the controller to run."""
        return Controller(name="load-balancer", reconcile=self.reconcile, watches={SERVICE: itself})

    def reconcile(self, namespace: str, name: str) -> None:
        """Give an address to a service, or take back one that it no longer needs."""
        key = (namespace, name)
        service = self._store.find(SERVICE, namespace, name)
        uid = "" if service is None else str(service["metadata"]["uid"])
        if key in self._given and self._given[key][0] != uid:
            self._addresses.give_back(self._given.pop(key)[1])
        if service is None:
            return
        if service["spec"].get("type") != "LoadBalancer":
            if key in self._given:
                self._addresses.give_back(self._given.pop(key)[1])
                self._write(service, None)
        elif key not in self._given:
            self._events.normal(service, "EnsuringLoadBalancer", "Ensuring load balancer")
            address = self._addresses.take()
            self._given[key] = (uid, address)
            self._write(service, address)
            self._events.normal(service, "EnsuredLoadBalancer", "Ensured load balancer")

    def _write(self, service: Object, address: str | None) -> None:
        ingress = {} if address is None else {"ingress": [{"ip": address, "ipMode": "VIP"}]}

        def edit(status: Object) -> None:
            status["loadBalancer"] = ingress

        self._store.modify_status(SERVICE, service["metadata"]["namespace"], service["metadata"]["name"], edit)
