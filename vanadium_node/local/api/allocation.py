"""Addresses and ports for services: unique, given when a service is made, freed when it is gone.

What is in use is read from the services that are there, so nothing can leak.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from vanadium_node.local.api.errors import ApiError, Cause
from vanadium_node.local.api.kinds import SERVICE
from vanadium_node.local.api.objects import Object, ObjectStore

SERVICE_NETWORK: Final = IPv4Network("127.96.0.0/16")
"""The addresses of services: on the loopback interface, where every process of this machine can listen and dial."""

NODE_PORTS: Final = range(30000, 32768)
_ATTEMPTS: Final = 100


def give(store: ObjectStore, service: Object, old: Object | None) -> None:
    """Give a service the addresses and ports that it wants and has not got; keep those that it had.

    Raises:
        ApiError: it asks for one that is taken or out of range (422), or none is left (500).
    """
    spec, before = service["spec"], (old or {}).get("spec") or {}
    if spec.get("type") == "ExternalName":
        for field in ("clusterIP", "clusterIPs"):
            spec.pop(field, None)
        return
    address = spec.get("clusterIP") or (spec.get("clusterIPs") or [""])[0] or before.get("clusterIP")
    if not address:
        address = _free_address(store)
    elif address != "None" and address != before.get("clusterIP"):
        _check_address(store, service, address)
    spec["clusterIP"], spec["clusterIPs"] = address, [address]
    wants_ports = spec["type"] == "NodePort" or (
        spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    )
    _give_ports(store, service, before, wants_ports)


def _give_ports(store: ObjectStore, service: Object, before: Object, wants_ports: bool) -> None:
    had = {(p.get("port"), p.get("protocol")): p.get("nodePort") for p in before.get("ports") or ()}
    used = set(_used_ports(store, service))
    for index, port in enumerate(service["spec"].get("ports") or ()):
        if not wants_ports:
            port.pop("nodePort", None)
            continue
        if not port.get("nodePort"):
            port["nodePort"] = had.get((port.get("port"), port.get("protocol"))) or _free_port(used)
        _check_port(service, f"spec.ports[{index}].nodePort", port["nodePort"], used)
        used.add(port["nodePort"])


def _others(store: ObjectStore, service: Object | None) -> Iterator[Object]:
    uid = service["metadata"].get("uid") if service else None
    return (other for other in store.list(SERVICE) if other["metadata"]["uid"] != uid)


def _used_ports(store: ObjectStore, service: Object) -> Iterator[int]:
    for other in _others(store, service):
        for port in other["spec"].get("ports") or ():
            if port.get("nodePort"):
                yield port["nodePort"]


def _free_address(store: ObjectStore) -> str:
    used = {other["spec"].get("clusterIP") for other in store.list(SERVICE)}
    for _ in range(_ATTEMPTS):
        offset = 256 + secrets.randbelow(SERVICE_NETWORK.num_addresses - 512)
        address = str(SERVICE_NETWORK.network_address + offset)
        if address not in used:
            return address
    raise ApiError(500, "InternalError", "failed to allocate a serviceIP: range is full")


def _check_address(store: ObjectStore, service: Object, address: str) -> None:
    name = service["metadata"]["name"]
    try:
        is_ours = IPv4Address(address) in SERVICE_NETWORK
    except ValueError:
        is_ours = False
    if not is_ours:
        detail = (
            "failed to allocate IP "
            f"{address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {SERVICE_NETWORK}"
        )
        raise ApiError.invalid(SERVICE, name, (Cause.wrong("spec.clusterIPs", address, detail),))
    if any(other["spec"].get("clusterIP") == address for other in _others(store, service)):
        detail = f"failed to allocate IP {address}: provided IP is already allocated"
        raise ApiError.invalid(SERVICE, name, (Cause.wrong("spec.clusterIPs", address, detail),))


def _free_port(used: set[int]) -> int:
    for _ in range(_ATTEMPTS):
        port = NODE_PORTS.start + secrets.randbelow(len(NODE_PORTS))
        if port not in used:
            return port
    raise ApiError(500, "InternalError", "failed to allocate a nodePort: range is full")


def _check_port(service: Object, field: str, port: int, used: set[int]) -> None:
    if port not in NODE_PORTS:
        detail = "provided port is not in the valid range. The range of valid ports is 30000-32767"
    elif port in used:
        detail = "provided port is already allocated"
    else:
        return
    raise ApiError.invalid(SERVICE, service["metadata"]["name"], (Cause.wrong(field, port, detail),))
