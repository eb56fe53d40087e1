"""Services: addresses, endpoints, proxies, names. Real sockets."""

import socket
import struct

import pytest
import trio
import trio.testing
from machine_bench import Bench, container, shell

from vanadium_node.local.api.kinds import ENDPOINT_SLICE, ENDPOINTS, POD, SERVICE
from vanadium_node.local.api.objects import Object
from vanadium_node.local.machine import private_names

WHO = """
import os, socket
listener = socket.create_server((os.environ["VANADIUM_POD_IP"], 7000))
while True:
    connection, peer = listener.accept()
    with connection:
        data = connection.recv(100)
        connection.sendall(f"{os.environ['HOSTNAME']} {peer[0]} {data.decode()}".encode())
"""
"""A server that tells who it is, who asks, and what was said."""


def server(name: str = "app") -> Object:
    """Make a container that listens on port 7000 of its pod's address."""
    return container(
        name,
        ["python3", "-c", WHO],
        ports=[{"name": "who", "containerPort": 7000}],
        readinessProbe={"tcpSocket": {"port": "who"}},
    )


def service(bench: Bench, name: str = "who", **spec: object) -> Object:
    """Make a service for the pods with the label app=who."""
    made = {"selector": {"app": "who"}, "ports": [{"port": 80, "targetPort": "who"}], **spec}
    return bench.store.create(SERVICE, {"metadata": {"name": name}, "spec": made})


async def ask(address: str, port: int = 80, source: str | None = None) -> list[str]:
    """Say "hi" and return the words of the answer."""
    with trio.fail_after(5):
        stream = await trio.open_tcp_stream(address, port, local_address=source)
        async with stream:
            await stream.send_all(b"hi")
            await stream.send_eof()
            return b"".join([piece async for piece in stream]).decode().split()


async def until_endpoints(bench: Bench, count: int, name: str = "who") -> Object:
    """Wait until so many pods stand behind a service, ready."""

    def has(obj: Object) -> bool:
        return sum(len(subset.get("addresses") or ()) for subset in obj.get("subsets") or ()) == count

    found = await bench.until(has, ENDPOINTS, name)
    await trio.testing.wait_all_tasks_blocked(0.01)
    return found


async def test_a_service_reaches_its_pods_in_turn(bench: Bench) -> None:
    """Connections to the cluster address go to the ready pods one after the other."""
    made = service(bench)
    for name in ("one", "two"):
        bench.pod(server(), name=name, labels={"app": "who"})
    await until_endpoints(bench, 2)
    answers = [await ask(made["spec"]["clusterIP"]) for _ in range(4)]
    assert [answer[0] for answer in answers] in (["one", "two"] * 2, ["two", "one"] * 2)
    assert answers[0][2] == "hi"


async def test_servers_see_the_caller_s_own_address(bench: Bench) -> None:
    """The proxy passes the caller's address on, so that pods can tell each other apart."""
    made = service(bench)
    bench.pod(server(), labels={"app": "who"})
    await until_endpoints(bench, 1)
    assert (await ask(made["spec"]["clusterIP"], source="127.9.8.7"))[1] == "127.9.8.7"


async def test_nobody_listens_without_a_ready_pod(bench: Bench) -> None:
    """Callers are refused at once, as with a real service."""
    made = service(bench)
    bench.pod(server(), labels={"app": "who"})
    await until_endpoints(bench, 1)
    await ask(made["spec"]["clusterIP"])
    bench.store.delete(POD, "default", "pod")
    await until_endpoints(bench, 0)
    with pytest.raises(OSError, match=r"attempts|refused"):
        await ask(made["spec"]["clusterIP"])


async def test_a_load_balancer_and_a_node_port(bench: Bench) -> None:
    """A service of that type gets an address of this machine, which works, and so does its port on 127.0.0.1."""
    service(bench, type="LoadBalancer")
    bench.pod(server(), labels={"app": "who"})
    await until_endpoints(bench, 1)
    made = await bench.until(lambda s: bool(s["status"]["loadBalancer"].get("ingress")), SERVICE, "who")
    address = made["status"]["loadBalancer"]["ingress"][0]["ip"]
    assert (await ask(address))[0] == "pod"
    assert (await ask("127.0.0.1", made["spec"]["ports"][0]["nodePort"]))[0] == "pod"
    assert bench.reasons("who") == ["EnsuringLoadBalancer", "EnsuredLoadBalancer"]


async def test_a_load_balancer_loses_its_address_with_its_type(bench: Bench) -> None:
    """What is no longer asked for is taken back."""
    service(bench, type="LoadBalancer")
    await bench.until(lambda s: bool(s["status"]["loadBalancer"].get("ingress")), SERVICE, "who")
    bench.store.modify(SERVICE, "default", "who", lambda s: s["spec"].update(type="ClusterIP"))
    await bench.until(lambda s: not s["status"]["loadBalancer"].get("ingress"), SERVICE, "who")


async def test_endpoints_tell_who_is_ready(bench: Bench) -> None:
    """A pod that runs but is not ready is listed as such, in both forms."""
    service(bench)
    never = {"readinessProbe": {"exec": {"command": ["false"]}}}
    bench.pod({**container(), **never, "ports": [{"name": "who", "containerPort": 7000}]}, labels={"app": "who"})
    found = await bench.until(
        lambda e: any(s.get("notReadyAddresses") for s in e.get("subsets") or ()), ENDPOINTS, "who"
    )
    (subset,) = found["subsets"]
    assert subset["ports"] == [{"port": 7000, "protocol": "TCP"}]
    assert subset["notReadyAddresses"][0]["targetRef"]["name"] == "pod"
    (one,) = bench.store.list(ENDPOINT_SLICE)
    assert one["metadata"]["labels"]["kubernetes.io/service-name"] == "who"
    assert one["endpoints"][0]["conditions"] == {"ready": False, "serving": False, "terminating": False}


async def test_endpoints_go_with_their_service(bench: Bench) -> None:
    """Nothing is left of a deleted service."""
    service(bench)
    await bench.until(lambda _: True, ENDPOINTS, "who")
    bench.store.delete(SERVICE, "default", "who")
    await bench.until_gone("who", ENDPOINTS)
    assert bench.store.list(ENDPOINT_SLICE) == ()


async def test_names_of_services(bench: Bench) -> None:
    """Pods find a file with the names of services, short ones for their own namespace, and each pod of a headless service."""
    made = service(bench)
    service(bench, "headless", clusterIP="None")
    bench.pod(server(), labels={"app": "who"}, hostname="first", subdomain="headless")
    pod = await bench.until_ready()
    await until_endpoints(bench, 1, "headless")
    lines = {tuple(line.split()) for line in (bench.root / "hosts" / "default").read_text().splitlines()}
    ip, own = made["spec"]["clusterIP"], pod["status"]["podIP"]
    assert (ip, "who", "who.default", "who.default.svc", "who.default.svc.cluster.local") in lines
    assert any(line[:3] == (own, "headless", "headless.default") for line in lines)
    assert any(line[:2] == (own, "first.headless") for line in lines)
    other = (bench.root / "hosts" / "kube-system").read_text()
    assert f"{ip} who.default " in other


async def test_an_address_in_use_is_told(bench: Bench) -> None:
    """Where a service cannot listen, an event of the service says so."""
    with socket.create_server(("127.77.66.55", 80)):
        service(bench, externalIPs=["127.77.66.55"])
        bench.pod(server(), labels={"app": "who"})
        await until_endpoints(bench, 1)
        await trio.sleep(0.1)
        assert "127.77.66.55:80" in bench.messages("ListenFailed", "who")[0]


KEEP = """
import os, socket, struct, sys
listener = socket.create_server((os.environ["VANADIUM_POD_IP"], 7000))
kept = []
while True:
    connection, _ = listener.accept()
    if sys.argv[1] == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    else:
        kept.append(connection)
"""


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_reset_ends_one_connection_and_nothing_else(bench: Bench, who: str) -> None:
    """Whichever end breaks a connection, the service goes on."""
    made = service(bench, ports=[{"port": 80, "targetPort": 7000}])
    mode = "reset" if who == "server" else "keep"
    bench.pod(container(command=["python3", "-c", KEEP, mode]), labels={"app": "who"})
    await until_endpoints(bench, 1)
    with trio.fail_after(5):
        for _ in range(3):
            stream = await _connected(made["spec"]["clusterIP"])
            if who == "client":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await stream.send_all(b"x")
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            await stream.aclose()
    await trio.sleep(0.1)
    assert bench.store.get(POD, "default", "pod")["status"]["phase"] == "Running"


async def _connected(address: str) -> trio.SocketStream:
    """Connect, once somebody listens."""
    while True:
        try:
            return await trio.open_tcp_stream(address, 80)
        except OSError:
            await trio.sleep(0.02)


async def test_any_program_resolves_names_of_services_also_of_later_ones(bench: Bench) -> None:
    """A program that knows nothing of this project finds a service by its names; others of this machine do not."""
    if not private_names.is_possible(bench.root / "hosts" / "default"):
        pytest.skip("this system allows no private mount namespaces: programs of the project alone resolve the names")
    bench.pod(
        shell("until getent hosts who.default.svc.cluster.local; do sleep 0.05; done; getent hosts who; sleep 1000")
    )
    await bench.until_ready()
    address = service(bench)["spec"]["clusterIP"]
    log = await bench.until_logged(f"{address} ")
    assert "who.default.svc.cluster.local" in log
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("who.default.svc.cluster.local", 80)


async def test_a_program_that_cannot_be_run_says_so(bench: Bench) -> None:
    """What is found, may be run, and is no program ends like in a shell."""
    script = bench.root / "noprogram"
    script.write_bytes(b"\0\1\2")
    script.chmod(0o755)
    bench.pod(container("app", [str(script)]))
    await bench.until_waiting("CrashLoopBackOff")
