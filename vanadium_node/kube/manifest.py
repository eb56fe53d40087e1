"""Users' manifest files: reading JSON and YAML, and bringing old workloads to `apps/v1`.

What the user wrote is kept, whether this project knows it or not. Only text and mappings here, no cluster.
"""

import copy
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from vanadium_node.errors import InputError, clip
from vanadium_node.kube.kubeconfig import YAML_LOADER
from vanadium_node.kube.resources import Manifest

MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
"""A stored object ends at about 1.5 MiB; a file larger than this is not a manifest."""

CURRENT: Final = "apps/v1"
OLD_VERSIONS: Final = frozenset({"extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"})
DROPPED: Final = ("rollbackTo",)
"""Fields of old specs that asked for an action and have no place in `apps/v1`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A workload as `apps/v1`, and what the user should be told about the way there."""

    manifest: Manifest
    warnings: tuple[str, ...] = ()


def read_manifests(path: str) -> tuple[Manifest, ...]:
    """Read the objects of a JSON or YAML file; `-` is standard input. Empty documents are left out.

    Raises:
        InputError: the file is not there, cannot be read, or holds something else.
    """
    what = "standard input" if path == "-" else f"'{path}'"
    documents = [d for d in _documents(_read(path, what), what) if d is not None]
    for document in documents:
        if not isinstance(document, Mapping) or not isinstance(document.get("kind"), str):
            raise InputError(
                f"{what} is not a Kubernetes manifest: it holds something without 'kind'",
                hint="check the file given with -f",
            )
        metadata = document.get("metadata")
        if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
            raise InputError(f"{what}: the {clip(document['kind'])} has no name", hint="add 'metadata.name'")
    if not documents:
        raise InputError(f"{what} holds no manifest", hint="check the file given with -f")
    return tuple(documents)


def read_deployment(path: str) -> Converted:
    """Read the one Deployment of a file, as `apps/v1`.

    Raises:
        InputError: the file does not hold exactly one Deployment, or one that cannot be converted.
    """
    manifests = read_manifests(path)
    if len(manifests) != 1:
        kinds = ", ".join(clip(str(m["kind"])) for m in manifests)
        raise InputError(
            f"'{path}' holds {len(manifests)} objects ({clip(kinds)}) instead of one Deployment",
            hint="put the Deployment in a file of its own, and the others in with 'kubectl apply'",
        )
    kind = str(manifests[0]["kind"])
    if kind != "Deployment":
        raise InputError(
            f"'{path}' holds a {clip(kind)}, not a Deployment", hint="only Deployments can be started with blessings"
        )
    return to_apps_v1(manifests[0], path)


def to_apps_v1(manifest: Manifest, source: str) -> Converted:
    """Bring a Deployment of any version there was to `apps/v1`, with a selector made from its labels if it has none.

    Raises:
        InputError: the version is unknown, or there is no pod template with labels and containers.
    """
    name = manifest["metadata"]["name"]
    version = str(manifest.get("apiVersion", ""))
    if version != CURRENT and version not in OLD_VERSIONS:
        raise InputError(
            f"'{source}': Deployment '{clip(name)}' has the apiVersion '{clip(version)}'", hint=f"write '{CURRENT}'"
        )
    converted: dict[str, Any] = copy.deepcopy(dict(manifest))
    labels = _template_labels(converted, source)
    warnings: list[str] = []
    if version != CURRENT:
        converted["apiVersion"] = CURRENT
        warnings.append(
            f"'{source}': {version} is gone from Kubernetes since 1.16; Deployment '{name}' is used as {CURRENT}"
        )
        for field in DROPPED:
            if converted["spec"].pop(field, None) is not None:
                warnings.append(f"'{source}': '{field}' has no place in {CURRENT} and is left out")
    if not converted["spec"].get("selector"):
        converted["spec"]["selector"] = {"matchLabels": dict(labels)}
        shown = ", ".join(f"{key}={value}" for key, value in labels.items())
        warnings.append(f"'{source}': Deployment '{name}' has no selector; its template's labels are used ({shown})")
    return Converted(manifest=converted, warnings=tuple(warnings))


def _template_labels(manifest: Manifest, source: str) -> Mapping[str, Any]:
    """Return the pod template's labels, having checked that the template is one."""

    def wrong(what: str, hint: str) -> InputError:
        return InputError(f"'{source}': Deployment '{clip(manifest['metadata']['name'])}' {what}", hint=hint)

    spec = manifest.get("spec")
    template = spec.get("template") if isinstance(spec, Mapping) else None
    if not isinstance(template, Mapping):
        raise wrong("has no pod template", "add 'spec.template'")
    pod = template.get("spec")
    containers = pod.get("containers") if isinstance(pod, Mapping) else None
    if not isinstance(containers, list) or not containers or not all(_is_container(c) for c in containers):
        raise wrong("has no containers with names", "add 'spec.template.spec.containers'")
    metadata = template.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    if not isinstance(labels, Mapping) or not labels:
        raise wrong("has no labels on its pod template", "add 'spec.template.metadata.labels'")
    return labels


def _is_container(container: object) -> bool:
    return isinstance(container, Mapping) and isinstance(container.get("name"), str)


def _read(path: str, what: str) -> str:
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_MANIFEST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {what}: {error.strerror}", hint="check the file given with -f") from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise InputError(f"{what} is larger than {MAX_MANIFEST_BYTES} bytes", hint="check the file given with -f")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not a text file", hint="check the file given with -f") from error


def _documents(text: str, what: str) -> list[Any]:
    """Parse the text: as JSON where it looks like that, since JSON's own messages say more about a missing comma."""
    if text.lstrip().startswith("{") and "\n---" not in text:
        try:
            return [json.loads(text)]
        except ValueError as error:
            json_error = error
    else:
        json_error = None
    try:
        return list(yaml.load_all(text, Loader=YAML_LOADER))
    except (yaml.YAMLError, RecursionError) as error:
        if json_error is not None:
            raise InputError(f"{what} is not valid JSON: {json_error}", hint="correct the file") from json_error
        where = getattr(error, "problem_mark", None)
        place = f" in line {where.line + 1}, column {where.column + 1}" if where is not None else ""
        problem = clip(str(getattr(error, "problem", None) or "it is nested too deep"))
        raise InputError(f"{what} is not valid YAML: {problem}{place}", hint="correct the file") from error
