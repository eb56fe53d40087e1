"""What containers run in: the machine's services, and their pod's directories, address and volumes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.machine.bell import Bell
from vanadium_node.local.machine.images import command_line
from vanadium_node.local.machine.mounts import Mounts, sub_path
from vanadium_node.local.machine.processes import Command, Watchdog
from vanadium_node.local.machine.recorder import Recorder
from vanadium_node.local.machine.variables import container_variables, expanded

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the containers of one pod have in common.

    `pod` gives the pod as it is now, `publish` writes its status; `hosts` is the file of in-cluster names, which containers
    find at /etc/hosts too if `has_private_names`;
    `news` rings when a Secret or ConfigMap has changed.
    """

    store: ObjectStore
    events: Recorder
    watchdog: Watchdog
    news: Bell
    pod: Callable[[], Object]
    publish: Callable[[], None]
    places: Mapping[str, Path]
    directory: Path
    hosts: Path
    has_private_names: bool
    address: str

    def command(self, container: Mapping[str, Any], number: int) -> Command:
        """Return how a container is started; `number` tells the pod's containers apart.

        Raises:
            ConfigurationMissing: its environment refers to something that is not there.
        """
        variables = container_variables(self.store, self.pod(), container)
        mounts = Mounts.from_container(container, self.places, variables)
        for mount in container.get("volumeMounts") or ():
            if mount.get("subPathExpr") and (place := self.places.get(str(mount.get("name")))) is not None:
                (place / sub_path(mount, variables)).mkdir(mode=0o700, parents=True, exist_ok=True)
        home = self.home(number)
        directory = Path(mounts.replaced(str(container.get("workingDir") or home)))
        argv = tuple(mounts.replaced(expanded(word, variables)) for word in command_line(dict(container)))
        environment = self._defaults(home) | {name: mounts.replaced(value) for name, value in variables.items()}
        return Command(
            argv=argv,
            environment=environment | {"PWD": str(directory)},
            directory=directory if directory.is_dir() else home,
            mounts=mounts,
            private_hosts=self.hosts if self.has_private_names else None,
        )

    def exec_command(self, started: Command, argv: tuple[str, ...]) -> Command:
        """Return how a command is run in a container that was started before: a probe or a hook."""
        return replace(started, argv=started.mounts.replaced_all(argv))

    def home(self, number: int) -> Path:
        """Return a container's own directory, which is made if need be."""
        home = self.directory / f"c{number}"
        (home / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
        return home

    def log_path(self, number: int, run: int) -> Path:
        """Return where a run of a container is logged."""
        return self.directory / "log" / f"{number}.{run}"

    def _defaults(self, home: Path) -> dict[str, str]:
        """Return what every container finds in its environment."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "HOSTNAME": str(self.pod()["spec"].get("hostname") or self.pod()["metadata"]["name"]),
            "LANG": "C.UTF-8",
            "VANADIUM_POD_IP": self.address,
            "VANADIUM_HOSTS": str(self.hosts),
        }
