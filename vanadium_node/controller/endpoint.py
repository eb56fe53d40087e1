"""Where the cluster agent can be reached from here: found through its Service, and tried.

Who answers there is for the caller to check: an address proves nothing.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

import trio

from vanadium_node.controller.objects import CLUSTER_AGENT_SERVICE
from vanadium_node.controller.settings import CLUSTER_AGENT_PORT
from vanadium_node.errors import InputError, KubernetesError, UnreachableError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import NODE, SERVICE, Manifest
from vanadium_node.kube.watch import Scope, following

CONNECT_SECONDS: Final = 3.0
ADDRESS_PATIENCE: Final = timedelta(minutes=3)
"""How long a load balancer may take to get its address; clouds need about one minute."""


def public_addresses(service: Manifest) -> tuple[str, ...]:
    """Return the addresses, as HOST:PORT, that the Service has outside the cluster."""
    spec, status = service["spec"], service.get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    hosts = [*(spec.get("externalIPs") or ()), *(i.get("ip") or i.get("hostname") for i in ingress)]
    return tuple(address(str(host), CLUSTER_AGENT_PORT) for host in hosts if host)


def is_pending(service: Manifest) -> bool:
    """Tell whether the Service waits for the address of its load balancer."""
    return service["spec"].get("type") == "LoadBalancer" and not public_addresses(service)


def inner_addresses(service: Manifest, nodes: tuple[Manifest, ...]) -> tuple[str, ...]:
    """Return the Service's addresses that are good inside the cluster, and on networks that reach its nodes."""
    spec = service["spec"]
    cluster_ip = spec.get("clusterIP")
    found = [address(cluster_ip, CLUSTER_AGENT_PORT)] if cluster_ip and cluster_ip != "None" else []
    port = next((p.get("nodePort") for p in spec.get("ports") or () if p.get("port") == CLUSTER_AGENT_PORT), None)
    if port is not None:
        places = (a for node in nodes for a in (node.get("status") or {}).get("addresses") or ())
        found += [
            address(str(a["address"]), int(port)) for a in places if a.get("type") in {"ExternalIP", "InternalIP"}
        ]
    return tuple(found)


def address(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def is_reachable(endpoint: str) -> bool:
    """Tell whether something accepts connections there."""
    host, _, port = endpoint.rpartition(":")
    try:
        with trio.fail_after(CONNECT_SECONDS):
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
            await stream.aclose()
    except (OSError, trio.TooSlowError):
        return False
    return True


async def find_cluster_agent(
    client: KubeClient,
    namespace: str,
    *,
    report: Callable[[str], None],
    patience: timedelta = ADDRESS_PATIENCE,
) -> str:
    """Return the cluster agent's address, HOST:PORT, waiting for a load balancer's address where it is pending.

    Raises:
        InputError: there is no cluster agent.
        UnreachableError: none of its addresses answers here.
    """
    service = await client.find(SERVICE, namespace, CLUSTER_AGENT_SERVICE)
    if service is None:
        raise InputError(
            f"there is no cluster agent in namespace '{namespace}'", hint="start it with 'start-cluster-agent --wait'"
        )
    inner = inner_addresses(service, await _nodes(client, service))
    tried = [*public_addresses(service), *inner]
    for endpoint in tried:
        if await is_reachable(endpoint):
            return endpoint
    if is_pending(service):
        report("waiting for the address of the cluster agent's load balancer")
        public = await _wait_for_address(client, namespace, patience)
        tried = [*public, *inner]
        for endpoint in tried:
            if await is_reachable(endpoint):
                return endpoint
    raise UnreachableError(
        f"the cluster agent in namespace '{namespace}' does not answer from here (tried {', '.join(tried) or 'no address'})",
        hint="see whether its pod runs, or forward a port with "
        f"'kubectl port-forward -n {namespace} service/{CLUSTER_AGENT_SERVICE} {CLUSTER_AGENT_PORT}' and give "
        f"'--cluster-agent-address 127.0.0.1:{CLUSTER_AGENT_PORT}'",
    )


async def _nodes(client: KubeClient, service: Manifest) -> tuple[Manifest, ...]:
    if service["spec"].get("type") not in {"NodePort", "LoadBalancer"}:
        return ()
    try:
        return (await client.list(NODE, None)).items
    except KubernetesError:  # many users may not see nodes; then their ports are no way
        return ()


async def _wait_for_address(client: KubeClient, namespace: str, patience: timedelta) -> tuple[str, ...]:
    scope = Scope(resource=SERVICE, namespace=namespace, fields=f"metadata.name={CLUSTER_AGENT_SERVICE}")
    refused: KubernetesError | None = None
    found: tuple[str, ...] = ()
    with trio.move_on_after(patience.total_seconds()):
        async with following(client, [scope]) as changes:
            while not found and refused is None:
                match await changes.receive():
                    case KubernetesError() as error:
                        refused = error
                    case snapshot:
                        found = next((a for service in snapshot.items if (a := public_addresses(service))), ())
    if refused is not None:
        raise refused
    return found
