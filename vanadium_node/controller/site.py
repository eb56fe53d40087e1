"""What every command of the controller works with: the cluster, the settings, the cluster agent, and the user's ear."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from vanadium_node.controller.settings import Settings
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.display import Display, lines
from vanadium_node.secret_store import KnownSecret


class ClusterAgent(Protocol):
    """What the controller asks of the cluster agent. Secrets pass through; they are never in a message."""

    async def new_secret(self, extension: str, secret: str) -> None:
        """Let the secret, of the caller's making, stand for the caller's blessings extended by `extension`."""

    async def forget_secret(self, secret: str) -> None:
        """Make the secret worthless; one that is unknown is no error."""

    async def secrets(self) -> Mapping[bytes, KnownSecret]:
        """Return what it knows about each of its secrets, by their hashes."""

    async def check(self) -> None:
        """Make sure that it is there, claimed, and who it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One cluster with its settings, and where to tell what happens."""

    client: KubeClient
    settings: Settings
    report: Callable[[str], None]
    """Takes a line of progress."""
    warn: Callable[[str], None]
    """Takes a sentence to look at."""
    rollouts: Display | None = None
    """Shows rollouts; without it they are reported line by line."""

    @property
    def display(self) -> Display:
        """How rollouts are shown."""
        return self.rollouts or lines(self.report)
