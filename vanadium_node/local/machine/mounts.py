"""Mount paths: nothing is mounted, so the paths that a container knows are replaced by the directories behind them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from vanadium_node.local.machine.variables import expanded

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Mounts:
    """Where the mount paths of one container really are."""

    places: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_container(
        cls, container: Mapping[str, Any], volumes: Mapping[str, Path], variables: Mapping[str, str] = NOTHING
    ) -> Mounts:
        """Read a container's `volumeMounts`; `volumes` says where each volume is, `variables` what `subPathExpr` refers to."""
        places: list[tuple[str, str]] = []
        for mount in container.get("volumeMounts") or ():
            volume = volumes.get(str(mount.get("name")))
            path = str(mount.get("mountPath") or "").rstrip("/")
            if volume is not None and path:
                places.append((path, str(volume / sub_path(mount, variables))))
        return cls(tuple(sorted(places, key=lambda place: -len(place[0]))))

    def replaced(self, text: str) -> str:
        """Replace each mount path in a text, where it is a path of its own or the beginning of one.

        `/data` is found in `/data`, `--dir=/data/x`, `unix:/data/s` and `file:///data`, not in `/database` or `/my/data`.
        """
        if not self.places:
            return text
        known = dict(self.places)
        paths = "|".join(re.escape(path) for path, _ in self.places)
        pattern = rf"(?:(?<![\w./-])|(?<=://))(?:{paths})(?![\w.-])"
        return re.sub(pattern, lambda match: known[match[0]], text)

    def replaced_all(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Replace the mount paths in each of several texts."""
        return tuple(map(self.replaced, texts))


def sub_path(mount: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    """Return the part of a volume that is mounted: `subPath`, or `subPathExpr` with its variables; empty for all of it."""
    if mount.get("subPathExpr"):
        return expanded(str(mount["subPathExpr"]), variables).lstrip("/")
    return str(mount.get("subPath") or "")
