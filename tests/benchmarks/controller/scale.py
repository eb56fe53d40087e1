"""What many applications in one namespace cost the controller: `python tests/benchmarks/controller/scale.py --count 1000`.

On a real API server where KUBEBUILDER_ASSETS names its programs (there, each Deployment has a pod that stays pending), or on the
embedded cluster with `--embedded` (there with 0 replicas: its pods are processes). Promised for 1,000 Deployments: `status` in less
than 3 s and 200 MB, and a `start` that takes no longer than one in an empty namespace beside it, in turns, but for noise. The exit
status is 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from control_plane import running_control_plane

from vanadium_node.controller.applications import Applications
from vanadium_node.controller.marks import marked
from vanadium_node.controller.objects import secret
from vanadium_node.controller.settings import Settings
from vanadium_node.controller.site import Site
from vanadium_node.controller.targets import Identity
from vanadium_node.kube.client import KubeClient, open_client
from vanadium_node.kube.injection import PodAgent, inject
from vanadium_node.kube.kubeconfig import ClusterAccess
from vanadium_node.kube.resources import DEPLOYMENT, NAMESPACE, POD, SECRET

MAX_STATUS_SECONDS = 3.0
MAX_STATUS_MIB = 200.0
MAX_START_RATIO = 1.2
ROUNDS = 15
AT_ONCE = 16
EMPTY = "empty"

DOCUMENT = {
    "clusterAgent": {"image": "example.org/v:1", "blessing": "test-root:cluster-agent", "admin": "test-root"},
    "podAgent": {"image": "example.org/v:1"},
}


class NoAgent:
    """Stands in for the cluster agent, whose own speed is measured elsewhere."""

    async def new_secret(self, extension: str, secret: str) -> None: ...

    async def forget_secret(self, secret: str) -> None: ...

    async def secrets(self) -> dict[bytes, Any]:
        return {}

    async def check(self) -> None: ...


def deployment(name: str, replicas: int) -> dict[str, Any]:
    """A Deployment of an ordinary size."""
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "benchmark"}
    container = {
        "name": "main",
        "image": "example.org/app:1",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": f"SETTING_{n}", "value": f"value {n}"} for n in range(8)],
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels}, "spec": spec}


@dataclass
class Bench:
    """One namespace of a cluster, and how many replicas each Deployment in it gets."""

    client: KubeClient
    kubeconfig: Path
    replicas: int
    native_sidecar: bool
    rows: list[tuple[str, float, str]] = field(default_factory=list)

    def row(self, name: str, value: float, unit: str) -> float:
        self.rows.append((name, value, unit))
        print(f"{name:52} {value:9.3f} {unit}", flush=True)
        return value

    async def fill(self, count: int) -> None:
        """Make the Deployments and their Secrets as the controller does."""
        limit = trio.CapacityLimiter(AT_ONCE)

        async def make(number: int) -> None:
            async with limit:
                name, space = f"app-{number:04}", self.client.namespace
                secret_name = f"secret-{secrets.token_hex(16)}"
                agent = PodAgent(
                    image="example.org/v:1",
                    secret_name=secret_name,
                    agent_name="/(test-root:cluster-agent)@cluster-agent.default:8193",
                    root_blessings="x" * 400,
                    native_sidecar=self.native_sidecar,
                )
                await self.client.create(SECRET, space, secret(secret_name, name, secrets.token_urlsafe(340)))
                workload = marked(inject(deployment(name, self.replicas), agent), secrets.token_hex(16))
                await self.client.create(DEPLOYMENT, space, workload)

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(make, number)
        while self.replicas and len((await self.client.list(POD, self.client.namespace)).items) < count:  # noqa: ASYNC110
            await trio.sleep(1)

    async def start_seconds(self, *namespaces: str) -> list[float]:
        """Return the best of a few starts in each of the namespaces, in turns, each stopped again."""
        settings = Settings.from_document(DOCUMENT, "benchmark")
        site = Site(client=self.client, settings=settings, report=print, warn=print)
        applications = Applications(site=site, agent=NoAgent())
        best = dict.fromkeys(namespaces, float("inf"))
        for number in range(ROUNDS):
            manifest = deployment(f"one-{number}", 0)
            for namespace in namespaces:
                began = time.perf_counter()
                await applications.start(namespace, [manifest], Identity(extension="x", root_blessings="r"))
                best[namespace] = min(best[namespace], time.perf_counter() - began)
                await applications.stop(namespace, [manifest])
        return list(best.values())

    def status(self) -> tuple[float, float, int]:
        """Run `status` as a user does; return seconds, MiB at its peak, and how many applications it showed."""
        command = [sys.executable, "-m", "vanadium_node", "controller", "--kubeconfig", str(self.kubeconfig)]
        command += ["-n", self.client.namespace, "--config", str(self.kubeconfig.with_name("vkube.cfg"))]
        command += ["--no-headers", "status"]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            printed = process.stdout.read().decode()
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0
        seconds = time.perf_counter() - began
        shown = sum(line.startswith("Deployment/") for line in printed.splitlines())
        return seconds, usage.ru_maxrss / 1024, shown


@contextmanager
def cluster(embedded: bool, folder: Path) -> Iterator[Path]:
    """Run a cluster while the block lasts, and give its kubeconfig."""
    if not embedded:
        with running_control_plane(Path(os.environ["KUBEBUILDER_ASSETS"]), folder) as plane:
            yield plane.kubeconfig
        return
    environment = {**os.environ, "VANADIUM_LOCAL_DIR": str(folder)}
    local = [sys.executable, "-m", "vanadium_node", "local"]
    subprocess.run([*local, "up"], env=environment, check=True, capture_output=True)
    try:
        yield folder / "kubeconfig"
    finally:
        subprocess.run([*local, "down"], env=environment, check=True, capture_output=True)


@asynccontextmanager
async def bench(kubeconfig: Path, replicas: int) -> AsyncIterator[Bench]:
    """Open a namespace of its own."""
    access = replace(ClusterAccess.from_files([kubeconfig]), namespace="scale")
    async with open_client(access) as client:
        for name in ("scale", EMPTY):
            await client.create(NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        version = await client.version()
        yield Bench(client, kubeconfig, replicas, version.has_native_sidecars)


async def measure(kubeconfig: Path, count: int, replicas: int) -> bool:
    """Print the rows; return whether the promises hold."""
    kubeconfig.with_name("vkube.cfg").write_text(json.dumps(DOCUMENT))
    async with bench(kubeconfig, replicas) as run:
        began = time.perf_counter()
        await run.fill(count)
        run.row(f"making {count} Deployments", time.perf_counter() - began, "s")
        best = await run.start_seconds(EMPTY, "scale")
        alone = run.row("start, the namespace empty", best[0], "s")
        crowded = run.row(f"start, beside {count} others", best[1], "s")
        results = [await trio.to_thread.run_sync(run.status) for _ in range(3)]
        seconds = run.row(f"status of {count}", min(r[0] for r in results), "s")
        mib = run.row(f"status of {count}, peak memory", max(r[1] for r in results), "MiB")
        is_whole = all(shown == count for _, _, shown in results)
    run.row("ratio of the two", crowded / alone, "")
    is_kept = crowded <= alone * MAX_START_RATIO
    return is_whole and is_kept and seconds < MAX_STATUS_SECONDS and mib < MAX_STATUS_MIB


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--embedded", action="store_true", help="on the embedded cluster")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vs-") as folder, cluster(given.embedded, Path(folder)) as kubeconfig:
        return 0 if trio.run(measure, kubeconfig, given.count, 0 if given.embedded else 1) else 1


if __name__ == "__main__":
    sys.exit(main())
