"""Volumes: a directory for each, filled as the volume's kind says, and refilled when what fills it changes.

Directories have short names (a number), because the path of a unix socket ends at 107 bytes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vanadium_node.local.api.kinds import PERSISTENT_VOLUME_CLAIM
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.machine.fields import pod_field, resource_field
from vanadium_node.local.machine.files import File, write_together
from vanadium_node.local.machine.variables import ConfigurationMissing, source_data

DEFAULT_MODE: Final = 0o644
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_FILLED: Final = ("secret", "configMap", "downwardAPI", "projected")
_EMPTY: Final = ("emptyDir", "ephemeral")


class VolumeUnavailable(Exception):
    """A volume cannot be had (yet); the text is what a kubelet says then."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """The volumes of one pod: `directory` is the pod's own, `disks` that of what outlives pods."""

    store: ObjectStore
    directory: Path
    disks: Path

    def places(self, pod: Object) -> dict[str, Path]:
        """Return where each volume of a pod is."""
        found: dict[str, Path] = {}
        for number, volume in enumerate(pod["spec"].get("volumes") or ()):
            found[str(volume["name"])] = self._disk(pod, volume) or self.directory / str(number)
        return found

    def fill(self, pod: Object) -> None:
        """Make the directories and bring their content up to date.

        Raises:
            VolumeUnavailable: something that fills a volume is not there, or the volume's kind is unknown.
        """
        places = self.places(pod)
        for volume in pod["spec"].get("volumes") or ():
            self._fill(pod, volume, places[str(volume["name"])])
        for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
            self._make_mount_points(container, pod, places)

    def _fill(self, pod: Object, volume: Mapping[str, Any], place: Path) -> None:
        name = str(volume["name"])
        kinds = [key for key in volume if key != "name"]
        if any(kind in _FILLED for kind in kinds):
            try:
                files = self._files(pod, volume)
            except ConfigurationMissing as error:
                raise VolumeUnavailable(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
            write_together(place, files)
        elif not kinds or kinds[0] in _EMPTY or self._disk(pod, volume) is not None:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if claim and self.store.find(PERSISTENT_VOLUME_CLAIM, pod["metadata"]["namespace"], claim) is None:
                raise VolumeUnavailable(f'persistentvolumeclaim "{claim}" not found')
        else:
            raise VolumeUnavailable(
                f'volume "{name}" is of kind {kinds[0]}, which the embedded cluster does not have; '
                "use emptyDir, secret, configMap, downwardAPI, projected, hostPath, persistentVolumeClaim or gcePersistentDisk"
            )

    def _disk(self, pod: Object, volume: Mapping[str, Any]) -> Path | None:
        """Return the directory of a volume that outlives its pod."""
        if disk := volume.get("gcePersistentDisk"):
            return self.disks / f"pd-{_safe(disk.get('pdName'))}"
        if claim := volume.get("persistentVolumeClaim"):
            return claim_directory(self.disks, pod["metadata"]["namespace"], str(claim.get("claimName")))
        if host := volume.get("hostPath"):
            return self.disks / f"host-{_safe(host.get('path'))}"
        return None

    def _files(self, pod: Object, volume: Mapping[str, Any]) -> dict[str, File]:
        if projected := volume.get("projected"):
            files: dict[str, File] = {}
            for source in projected.get("sources") or ():
                files |= self._source(pod, source, projected.get("defaultMode"))
            return files
        kind = next(kind for kind in _FILLED if kind in volume)
        source = volume[kind] or {}
        if kind == "secret":
            source = {**source, "name": source.get("secretName")}
        return self._source(pod, {kind: source}, source.get("defaultMode"))

    def _source(self, pod: Object, source: Mapping[str, Any], mode: int | None) -> dict[str, File]:
        default = DEFAULT_MODE if mode is None else int(mode)
        if "downwardAPI" in source:
            return _downward(pod, source["downwardAPI"] or {}, default)
        if "serviceAccountToken" in source or "clusterTrustBundle" in source:
            raise ConfigurationMissing(f"the embedded cluster has no {next(iter(source))}")
        kind = "secret" if "secret" in source else "configmap"
        given = source.get("secret") or source.get("configMap") or {}
        optional, name = bool(given.get("optional")), str(given.get("name"))
        data = source_data(self.store, pod["metadata"]["namespace"], kind, name, optional=optional) or {}
        if not given.get("items"):
            return {key: File(value, default) for key, value in data.items()}
        files: dict[str, File] = {}
        for item in given["items"]:
            if item["key"] in data:
                files[str(item["path"])] = File(data[item["key"]], int(item.get("mode", default)))
            elif not optional:
                raise ConfigurationMissing(f"references non-existent {kind} key: {item['key']}")
        return files

    def _make_mount_points(self, container: Mapping[str, Any], pod: Object, places: Mapping[str, Path]) -> None:
        """Make the directories that a container mounts out of a volume by `subPath`."""
        kinds = {str(v["name"]): [k for k in v if k != "name"] for v in pod["spec"].get("volumes") or ()}
        for mount in container.get("volumeMounts") or ():
            place, sub_path = places.get(str(mount.get("name"))), str(mount.get("subPath") or "")
            if place is not None and sub_path and not set(kinds[str(mount["name"])]) & set(_FILLED):
                (place / sub_path).mkdir(mode=0o700, parents=True, exist_ok=True)


def claim_directory(disks: Path, namespace: str, name: str) -> Path:
    """Return the directory behind a PersistentVolumeClaim."""
    return disks / f"pvc-{_safe(namespace)}-{_safe(name)}"


def remove_claim_directory(disks: Path, namespace: str, name: str) -> None:
    """Remove what is behind a PersistentVolumeClaim that was deleted."""
    shutil.rmtree(claim_directory(disks, namespace, name), ignore_errors=True)


def _downward(pod: Object, source: Mapping[str, Any], mode: int) -> dict[str, File]:
    files: dict[str, File] = {}
    for item in source.get("items") or ():
        if reference := item.get("resourceFieldRef"):
            value = resource_field(pod, str(reference.get("containerName")), reference)
        else:
            value = pod_field(pod, str((item.get("fieldRef") or {}).get("fieldPath", "")))
        if value is None:
            raise ConfigurationMissing(f"unsupported field for {item.get('path')}")
        files[str(item["path"])] = File(value.encode(), int(item.get("mode", mode)))
    return files


def _safe(name: object) -> str:
    return _UNSAFE.sub("-", str(name)).strip("-.") or "disk"
