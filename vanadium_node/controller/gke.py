"""Bringing a GKE cluster of the settings to the default version of its zone, by asking gcloud to: the master, then the nodes."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vanadium_node.controller.programs import output_of, run_in_view
from vanadium_node.controller.settings import Settings
from vanadium_node.errors import ConfigurationError, clip

INSTALL: Final = "install gcloud from cloud.google.com/sdk, or name it with --gcloud"
LOG_IN: Final = "see what gcloud said, and log in with 'gcloud auth login' where it asks for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class GkeCluster:
    """A cluster as gcloud knows it."""

    gcloud: str
    project: str
    zone: str
    name: str

    @classmethod
    def of(cls, settings: Settings, gcloud: str) -> "GkeCluster":
        """Return the cluster of the settings.

        Raises:
            ConfigurationError: they name none.
        """
        if not (settings.project and settings.zone and settings.cluster):
            raise ConfigurationError(
                "only GKE clusters can be upgraded, and the configuration does not name 'project', 'zone' and 'cluster'",
                hint="add them, or upgrade the cluster with its own tools",
            )
        return cls(gcloud=gcloud, project=settings.project, zone=settings.zone, name=settings.cluster)

    @property
    def _place(self) -> tuple[str, ...]:
        return ("--project", self.project, "--zone", self.zone)

    async def upgrade(self, *, prompt: bool, report: Callable[[str], None]) -> bool:
        """Upgrade what is older than the default version; return whether anything was. gcloud asks first with `prompt`.

        Raises:
            ConfigurationError: gcloud is missing or fails; the master may be upgraded and the nodes not, so run it again.
        """
        default = await self._default_version()
        described = await self._asked("clusters", "describe", self.name)
        master, nodes = (str(described.get(key) or "") for key in ("currentMasterVersion", "currentNodeVersion"))
        steps = [("master", master, ("--master",)), ("nodes", nodes, ())]
        due = [step for step in steps if step[1] and is_older(step[1], default)]
        for what, version, options in due:
            report(f"upgrading the {what} of cluster '{self.name}' from {version} to {default}")
            command = [self.gcloud, "container", "clusters", "upgrade", self.name, *options]
            command += ["--cluster-version", default, *self._place, *(() if prompt else ("--quiet",))]
            doing = f"upgrade the {what} of cluster '{self.name}'"
            await run_in_view(command, doing=doing, install=INSTALL, hint=LOG_IN)
        return bool(due)

    async def _default_version(self) -> str:
        answer = await self._asked("get-server-config")
        version = answer.get("defaultClusterVersion")
        if not isinstance(version, str) or not version:
            raise ConfigurationError(
                f"gcloud names no default version for zone '{clip(self.zone)}'",
                hint="check 'zone' in the configuration",
            )
        return version

    async def _asked(self, *question: str) -> Mapping[str, Any]:
        doing = f"ask gcloud about cluster '{self.name}'"
        command = [self.gcloud, "container", *question, *self._place, "--format", "json"]
        printed = await output_of(command, doing=doing, install=INSTALL, hint=LOG_IN)
        try:
            answer = json.loads(printed)
        except ValueError as error:
            raise ConfigurationError(f"cannot {doing}: its answer is no JSON", hint="update gcloud") from error
        if not isinstance(answer, Mapping):
            raise ConfigurationError(f"cannot {doing}: its answer is no JSON object", hint="update gcloud")
        return answer


def is_older(version: str, other: str) -> bool:
    """Tell whether a GKE version (`1.29.4-gke.1043002`) comes before another: a channel may have moved the cluster past it."""
    return _numbers(version) < _numbers(other)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
