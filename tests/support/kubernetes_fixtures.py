"""Fixtures of tests that need a real Kubernetes API server; each test gets a namespace of its own.

A conftest takes them with `from kubernetes_fixtures import …`. Without KUBEBUILDER_ASSETS or VANADIUM_TEST_KUBECONFIG the tests
are skipped and say so.
"""

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from control_plane import running_control_plane

from vanadium_node.kube.client import KubeClient, open_client
from vanadium_node.kube.kubeconfig import ClusterAccess
from vanadium_node.kube.resources import NAMESPACE


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
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


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    """A client of the real API server, in a fresh namespace that is deleted afterwards (in the background)."""
    name = f"test-{secrets.token_hex(4)}"
    access = replace(ClusterAccess.from_files([kubeconfig]), namespace=name)
    async with open_client(access) as kube:
        await kube.create(NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield kube
        await kube.delete(NAMESPACE, None, name)
