"""What the tests of the embedded API share: stores, a server with TLS, a daemon, and the kubectls of this machine."""

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from vanadium_node.local.api.bootstrap import new_store
from vanadium_node.local.api.identity import ServerIdentity
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.api.rest import Rest
from vanadium_node.local.api.server import listening_socket, serving

Maker = Callable[..., Object]


@pytest.fixture
def store() -> ObjectStore:
    """Return the store of a new cluster."""
    return new_store()


@pytest.fixture
def deployment() -> Maker:
    """Return a maker of valid deployments; keyword arguments replace parts of the spec."""

    def make(name: str = "web", **spec: Any) -> Object:
        container = {"name": "web", "image": "example/web:1", "ports": [{"containerPort": 80}]}
        template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template} | spec,
        }

    return make


@pytest.fixture
async def api(store: ObjectStore, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the store over TLS, without a machine for pods, and give a client that has the token."""
    identity = ServerIdentity.create(tmp_path, store.now())
    listener = listening_socket()
    port = listener.getsockname()[1]
    config = yaml.safe_load(identity.kubeconfig(port))
    trust = ssl.create_default_context(cadata=identity.ca_pem.decode())
    async with (
        serving(Rest(store), identity, listener),
        httpx.AsyncClient(
            base_url=config["clusters"][0]["cluster"]["server"],
            verify=trust,
            headers={"Authorization": f"Bearer {config['users'][0]['user']['token']}", "User-Agent": "tester/1"},
            trust_env=False,
        ) as client,
    ):
        yield client


@dataclass(frozen=True)
class Daemon:
    """An embedded cluster in a process of its own, and ways to use it from a shell."""

    directory: Path

    def environment(self) -> dict[str, str]:
        """Return the environment of commands that use it."""
        return os.environ | {
            "VANADIUM_LOCAL_DIR": str(self.directory),
            "KUBECONFIG": str(self.directory / "kubeconfig"),
            "HOME": str(self.directory),
        }

    def local(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `vanadium-node local ARGUMENTS…`."""
        return subprocess.run(
            [sys.executable, "-m", "vanadium_node", "local", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Give a place for a cluster, which is ended in the end if a test has started it."""
    found = Daemon(tmp_path / "c")
    yield found
    found.local("down")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run one cluster for all tests of a file."""
    found = Daemon(tmp_path_factory.mktemp("k") / "c")
    up = found.local("up")
    assert up.returncode == 0, up.stderr
    yield found
    found.local("down")


def kubectls() -> list[str]:
    """Return the kubectls of this machine: the one on the PATH, and that of the control plane for tests."""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    paths = (shutil.which("kubectl"), shutil.which("kubectl", path=assets) if assets else None)
    return [path for path in dict.fromkeys(paths) if path]


@dataclass(frozen=True)
class Kubectl:
    """A real kubectl, pointed at the cluster."""

    path: str
    cluster: Daemon

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it, with `given` on standard input."""
        return subprocess.run(
            [self.path, *arguments],
            env=self.cluster.environment(),
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """Run it, and return what it printed; it must succeed."""
        done = self.run(*arguments, given=given)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, given: str | None = None) -> str:
        """Run it, and return what it complained about; it must fail."""
        done = self.run(*arguments, given=given)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} went well: {done.stdout}"
        return done.stderr


@pytest.fixture(params=kubectls() or [""])
def kubectl(request: pytest.FixtureRequest, cluster: Daemon) -> Kubectl:
    """Give each kubectl of this machine in turn."""
    if not request.param:
        pytest.skip("there is no kubectl on the PATH")
    return Kubectl(request.param, cluster)
