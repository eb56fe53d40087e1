"""Shared fixtures: a real API server, a cluster agent that only counts, settings, and the walkthrough's Deployment."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from agent_parties import START
from faults import Faults
from hand_kubelet import hand_kubelet
from stand_ins import ControllerProcess

from vanadium_node.controller.settings import Settings
from vanadium_node.controller.site import Site
from vanadium_node.errors import UnreachableError
from vanadium_node.kube.client import KubeClient
from vanadium_node.secret_store import KnownSecret, key_of_secret

DOCUMENT: dict[str, Any] = {
    "clusterAgent": {
        "image": "example.org/vanadium-node:1",
        "blessing": "test-root:cluster-agent",
        "admin": "test-root",
        "persistentVolumeClaim": "claim",
    },
    "podAgent": {"image": "example.org/vanadium-node:1"},
}


def known(secret: str, extension: str) -> KnownSecret:
    """What a cluster agent would tell of a secret that was used once."""
    return KnownSecret(
        key=key_of_secret(secret),
        names=(f"test-root:{extension}",),
        created=START,
        created_by="test-root",
        expires=None,
        uses=1,
        last_used=START,
        replicas_until=START + timedelta(hours=24),
    )


@dataclass
class CountingAgent:
    """Stands in for the cluster agent: remembers which secrets are good, and can be away, or fail as planned."""

    known: dict[str, str] = field(default_factory=dict)
    is_away: bool = False
    before_call: Callable[[str], Awaitable[None]] | None = None
    faults: Faults = field(default_factory=Faults)

    @asynccontextmanager
    async def _called(self, method: str) -> AsyncIterator[None]:
        if self.before_call is not None:
            await self.before_call(method)
        fault = self.faults.step(method)
        if self.is_away or (fault is not None and not fault.is_done):
            raise UnreachableError("the cluster agent does not answer", hint="see whether it runs")
        yield
        if fault is not None:
            raise UnreachableError("the connection to the cluster agent ended", hint="see whether it runs")

    async def new_secret(self, extension: str, secret: str) -> None:
        async with self._called("new_secret"):
            self.known[secret] = extension

    async def forget_secret(self, secret: str) -> None:
        async with self._called("forget_secret"):
            self.known.pop(secret, None)

    async def secrets(self) -> dict[bytes, KnownSecret]:
        async with self._called("secrets"):
            return {key_of_secret(secret): known(secret, extension) for secret, extension in self.known.items()}

    async def check(self) -> None:
        async with self._called("check"):
            pass


@dataclass
class Said:
    """What the user was told."""

    reports: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@pytest.fixture
def agent() -> CountingAgent:
    return CountingAgent()


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def settings() -> Settings:
    return Settings.from_document(DOCUMENT, "vkube.cfg")


@pytest.fixture
def site(client: KubeClient, settings: Settings, said: Said) -> Site:
    """A site in the test's own namespace."""
    return Site(client=client, settings=settings, report=said.reports.append, warn=said.warnings.append)


@pytest.fixture
async def kubelet(client: KubeClient) -> AsyncIterator[None]:
    """Pods become ready."""
    async with hand_kubelet(client):
        yield


@pytest.fixture
def deployment() -> dict[str, Any]:
    """The walkthrough's Deployment, in today's form."""
    container = {"name": "fortuned", "image": "gcr.io/my-project/fortuned:1", "command": ["fortuned"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "fortuned"},
        "spec": {
            "selector": {"matchLabels": {"application": "fortuned"}},
            "template": {"metadata": {"labels": {"application": "fortuned"}}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
def cli(tmp_path: Path, client: KubeClient, kubeconfig: Path) -> ControllerProcess:
    """The command line, led to the test's namespace, with the settings of `settings`."""
    agent = {**DOCUMENT["clusterAgent"], "namespace": client.namespace}
    (tmp_path / "vkube.cfg").write_text(json.dumps({**DOCUMENT, "clusterAgent": agent}))
    return ControllerProcess(tmp_path, ("--kubeconfig", str(kubeconfig), "-n", client.namespace))
