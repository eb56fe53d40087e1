"""Fixtures of tests that need a Kubernetes API: they run on a real one and on the embedded one, each test in a namespace of its own.

A conftest takes them with `from kubernetes_fixtures import …`. Without KUBEBUILDER_ASSETS or VANADIUM_TEST_KUBECONFIG the real one
is skipped, and says so.
"""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from control_plane import running_control_plane

from vanadium_node.kube.client import KubeClient, open_client
from vanadium_node.kube.kubeconfig import ClusterAccess
from vanadium_node.kube.resources import NAMESPACE

REAL, EMBEDDED = "kubernetes", "embedded"


@pytest.fixture(scope="session")
def real_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a real API server, started for the session if need be."""
    given = os.environ.get("VANADIUM_TEST_KUBECONFIG")
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if given:
        yield Path(given)
    elif assets:
        with running_control_plane(Path(assets), tmp_path_factory.mktemp("control-plane")) as plane:
            yield plane.kubeconfig
    else:
        pytest.skip("needs a real API server: set KUBEBUILDER_ASSETS or VANADIUM_TEST_KUBECONFIG")


@pytest.fixture(scope="session")
def embedded_kubeconfig() -> Iterator[Path]:
    """The kubeconfig of an embedded cluster, run as a user runs it; in a short folder, since pods have sockets there."""
    with tempfile.TemporaryDirectory(prefix="vk-") as folder:
        environment = {**os.environ, "VANADIUM_LOCAL_DIR": folder}
        local = [sys.executable, "-m", "vanadium_node", "local"]
        subprocess.run([*local, "up"], env=environment, check=True, capture_output=True, timeout=60)
        try:
            yield Path(folder) / "kubeconfig"
        finally:
            subprocess.run([*local, "down"], env=environment, check=True, capture_output=True, timeout=60)


@pytest.fixture(params=[pytest.param(REAL, marks=pytest.mark.kubernetes), EMBEDDED])
def kubeconfig(request: pytest.FixtureRequest) -> Path:
    """Either cluster's kubeconfig. A test that plays the node by hand has no place where there is one."""
    is_real = request.param == REAL
    if not is_real and ("kubelet" in request.fixturenames or request.node.get_closest_marker("kubernetes")):
        pytest.skip("the embedded cluster has a node of its own")
    path: Path = request.getfixturevalue("real_kubeconfig" if is_real else "embedded_kubeconfig")
    return path


def stride_of_steps(request: pytest.FixtureRequest) -> int:
    """Return of how many steps a test that fails at each takes one. All are taken on a real API server, and VANADIUM_TEST_ALL_CRASHES=1
    takes all on the embedded cluster too; beside a real one it takes every other.
    """
    is_elsewhere = any(os.environ.get(name) for name in ("VANADIUM_TEST_KUBECONFIG", "KUBEBUILDER_ASSETS"))
    is_real = request.node.callspec.params["kubeconfig"] == REAL
    return 1 if is_real or not is_elsewhere or os.environ.get("VANADIUM_TEST_ALL_CRASHES") else 2


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    """A client in a fresh namespace that is deleted afterwards (in the background)."""
    name = f"test-{secrets.token_hex(4)}"
    access = replace(ClusterAccess.from_files([kubeconfig]), namespace=name)
    async with open_client(access) as kube:
        await kube.create(NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield kube
        await kube.delete(NAMESPACE, None, name)
