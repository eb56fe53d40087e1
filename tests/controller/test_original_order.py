"""The original's own end-to-end test, in its order, typed as a user types: on the embedded cluster, and on a node where there is one.

A node takes part when VANADIUM_TEST_NODE_KUBECONFIG names its kubeconfig and VANADIUM_TEST_IMAGE an image of this project that it
has under the tags 1 and 2.
"""

import json
import os
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typing_shell import Shell

pytestmark = pytest.mark.kubectl


@dataclass
class Walk:
    """A shell, how the controller is called in it, and the image to use."""

    shell: Shell
    controller: str
    image: str

    def type(self, command: str) -> str:
        return self.shell.type(f"{self.controller} {command}")

    def refused(self, command: str, says: str) -> None:
        """The command fails with one sentence that says so."""
        stderr = self.shell.refused(f"{self.controller} {command}")
        last = stderr.splitlines()[-1]
        assert last.startswith("vanadium-node: "), stderr
        assert says in last, stderr

    def write_app(self, image: str) -> None:
        container = {"name": "fortuned", "image": image, "command": ["fortuned", "--v23.tcp.address=:2345"]}
        labels = {"application": "fortuned"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"selector": {"matchLabels": labels}, "template": template}
        app = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "fortuned"}, "spec": spec}
        (self.shell.folder / "app.json").write_text(json.dumps(app))

    def pod_address(self) -> str:
        """Return the address of a pod of the application that is ready."""
        pods: Any = json.loads(self.type("kubectl get pods -l application=fortuned -o json"))
        ready = (p for p in pods["items"] if not p["metadata"].get("deletionTimestamp") and is_ready(p))
        return str(next(ready)["status"]["podIP"])

    def secrets(self) -> list[str]:
        printed = self.type("kubectl get secrets -l app.kubernetes.io/managed-by=vanadium-node -o name")
        return printed.split()


def is_ready(pod: Any) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A shell in a short temporary folder with a root principal."""
    with tempfile.TemporaryDirectory(prefix="vo-") as name:
        folder = Path(name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("V23_", "VANADIUM_", "KUBE"))}
        environment["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        environment["V23_CREDENTIALS"] = str(folder / "root")
        environment["VANADIUM_LOCAL_DIR"] = str(folder / "c")
        shell = Shell(folder, environment)
        shell.type("vanadium-node principal create --with-passphrase=false root test-root")
        yield shell


@pytest.fixture(params=["embedded", "node"])
def walk(request: pytest.FixtureRequest, shell: Shell) -> Iterator[Walk]:
    """The embedded cluster, and a real node in a namespace of its own."""
    namespace = f"order-{os.getpid()}"
    if request.param == "embedded":
        walk = Walk(shell, "vanadium-node controller --local", "example.org/vanadium-node")
        namespace = "default"
    else:
        kubeconfig, image = (os.environ.get(f"VANADIUM_TEST_{name}") for name in ("NODE_KUBECONFIG", "IMAGE"))
        if not kubeconfig or not image:
            pytest.skip(
                "needs a node: set VANADIUM_TEST_NODE_KUBECONFIG, and VANADIUM_TEST_IMAGE to an image with tags 1 and 2"
            )
        walk = Walk(shell, f"vanadium-node controller --kubeconfig {kubeconfig} -n {namespace}", image)
        walk.type(f"kubectl create namespace {namespace}")
    agent = {"image": f"{walk.image}:0", "namespace": namespace, "blessing": "test-root:agent", "admin": "test-root"}
    config = {"clusterAgent": agent, "podAgent": {"image": f"{walk.image}:0"}}
    (shell.folder / "vkube.cfg").write_text(json.dumps(config))
    try:
        yield walk
    finally:
        if request.param == "embedded":
            shell.run("vanadium-node local down")
        else:
            shell.run(f"{walk.controller} kubectl delete namespace {namespace} --wait=false")


def test_in_the_order_of_the_original(walk: Walk) -> None:
    """Each command does or refuses what the original's does or refuses."""
    walk.type("update-config --cluster-agent-image :1 --pod-agent-image :1")
    walk.type("start-cluster-agent --wait --wait-timeout 60s")
    walk.type("update-config --cluster-agent-image :2 --pod-agent-image :2")
    walk.type("update-cluster-agent --wait --wait-timeout 60s")
    walk.refused("start-cluster-agent", "already running")
    walk.type("claim-cluster-agent")
    walk.refused("claim-cluster-agent", "already claimed")

    walk.write_app(f"{walk.image}:1")
    walk.type("start -f app.json app --wait --wait-timeout 60s")
    walk.refused("start -f app.json app", "already running")
    [first] = walk.secrets()
    walk.type("update -f app.json app --wait --wait-timeout 60s")
    [second] = walk.secrets()
    assert first != second
    walk.write_app(f"{walk.image}:2")
    walk.type("update -f app.json other --wait --wait-timeout 60s")
    [third] = walk.secrets()
    called = walk.shell.type(
        f"vanadium-node rpc call '/(test-root:other)@{walk.pod_address()}:2345' Has nothing-like-it"
    )
    assert "false" in called.lower()

    walk.write_app("registry.invalid/none:1")
    walk.refused("update -f app.json --wait --wait-timeout=30s", "cannot get its image")
    assert walk.secrets() == [third]
    walk.shell.type(f"vanadium-node rpc identify '/(test-root:other)@{walk.pod_address()}:2345'")

    walk.type("stop -f app.json")
    walk.refused("stop -f app.json", "there is no Deployment")
    assert walk.secrets() == []
    walk.write_app(f"{walk.image}:1")
    walk.type("start -f app.json --noblessings")
    walk.write_app(f"{walk.image}:2")
    walk.type("update -f app.json")
    walk.type("stop -f app.json")
    walk.type("stop-cluster-agent")
    walk.refused("stop-cluster-agent", "is not running")
    assert walk.type("kubectl get deployments -o name") == ""
