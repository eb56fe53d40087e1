"""Finding the cluster agent through its Service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import trio

from vanadium_node.controller.endpoint import find_cluster_agent, inner_addresses, is_pending, public_addresses
from vanadium_node.errors import InputError, UnreachableError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import SERVICE, Manifest


def service(kind: str = "LoadBalancer", *, ingress: Any = (), **spec: Any) -> dict[str, Any]:
    """A Service of the cluster agent."""
    ports = [{"name": "agent", "port": 8193, "targetPort": 8193, **spec.pop("port", {})}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "cluster-agent"},
        "spec": {"type": kind, "ports": ports, **spec},
        "status": {"loadBalancer": {"ingress": list(ingress)}},
    }


def test_public_addresses() -> None:
    """External addresses, the load balancer's IP or name; IPv6 in brackets."""
    found = public_addresses(
        service(externalIPs=["1.2.3.4"], ingress=[{"ip": "fd00::1"}, {"hostname": "lb.example.org"}])
    )
    assert found == ("1.2.3.4:8193", "[fd00::1]:8193", "lb.example.org:8193")


def test_pending() -> None:
    """Only a load balancer's address is waited for."""
    assert is_pending(service())
    assert not is_pending(service(ingress=[{"ip": "1.2.3.4"}]))
    assert not is_pending(service("ClusterIP"))


def test_inner_addresses() -> None:
    """The cluster's own address, then the node ports; a headless Service has none."""
    addresses = [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.7"}]
    node: Manifest = {"status": {"addresses": addresses}}
    assert inner_addresses(service(clusterIP="10.1.1.1", port={"nodePort": 30001}), (node,)) == (
        "10.1.1.1:8193",
        "10.0.0.7:30001",
    )
    assert inner_addresses(service("ClusterIP", clusterIP="None"), (node,)) == ()


@asynccontextmanager
async def listening(host: str) -> AsyncIterator[None]:
    """Accept connections at the port of cluster agents."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(8193, host=host)
        nursery.start_soon(trio.serve_listeners, lambda stream: stream.aclose(), listeners)
        yield
        nursery.cancel_scope.cancel()


async def test_the_address_inside_where_that_is_reachable(client: KubeClient, said: Any) -> None:
    """A load balancer without an address does not matter when the cluster's network is at hand (as on a node)."""
    await client.create(SERVICE, client.namespace, service())
    stored = await client.get(SERVICE, client.namespace, "cluster-agent")
    address = stored["spec"]["clusterIP"]
    if not address.startswith("127."):
        pytest.skip("this API server's services have no addresses that a test can listen on")
    async with listening(address):
        assert await find_cluster_agent(client, client.namespace, report=said.reports.append) == f"{address}:8193"
    assert said.reports == []


@pytest.mark.kubernetes
async def test_a_pending_address_is_waited_for(client: KubeClient, said: Any) -> None:
    """The user is told, and the address is used as soon as it is there."""
    await client.create(SERVICE, client.namespace, service())
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "127.8.9.10"}]}}}
    async with listening("127.8.9.10"), trio.open_nursery() as nursery:

        async def give_address(told: str) -> None:
            await client.patch(SERVICE, client.namespace, "cluster-agent", status, subresource="status")

        def report(line: str) -> None:
            said.reports.append(line)
            nursery.start_soon(give_address, line)

        with trio.fail_after(120):
            assert await find_cluster_agent(client, client.namespace, report=report) == "127.8.9.10:8193"
    assert said.reports == ["waiting for the address of the cluster agent's load balancer"]


async def test_no_way_there(client: KubeClient, said: Any) -> None:
    """What was tried, and how to get there all the same."""
    with pytest.raises(InputError, match=r"there is no cluster agent .*start-cluster-agent"):
        await find_cluster_agent(client, client.namespace, report=said.reports.append)
    await client.create(SERVICE, client.namespace, service())
    with pytest.raises(UnreachableError, match=r"kubectl port-forward -n .*--cluster-agent-address 127\.0\.0\.1:8193"):
        await find_cluster_agent(client, client.namespace, report=said.reports.append, patience=timedelta(seconds=0.5))
