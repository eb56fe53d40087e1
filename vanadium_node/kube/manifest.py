"""Users' manifest files: reading JSON and YAML, and bringing old workloads to today's API versions.

What the user wrote is kept, whether this project knows it or not. Only text and mappings here, no cluster.
"""

import copy
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from vanadium_node.errors import InputError, clip
from vanadium_node.kube.kubeconfig import YAML_LOADER
from vanadium_node.kube.resources import Manifest
from vanadium_node.kube.workloads import KINDS, kind_of, title

MAX_MANIFEST_BYTES: Final = 4 * 1024 * 1024
"""A stored object ends at about 1.5 MiB; a file larger than this is not a manifest."""

DROPPED: Final = ("rollbackTo",)
"""Fields of old specs that asked for an action and have no place in today's versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A workload in its kind's current API version, and what the user should be told about the way there."""

    manifest: Manifest
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """What a file says of an application, in its order: at least one workload, and other objects that lie beside them."""

    documents: tuple[Converted | Manifest, ...]

    @property
    def workloads(self) -> tuple[Converted, ...]:
        """The workloads, as they were converted."""
        return tuple(d for d in self.documents if isinstance(d, Converted))

    @property
    def others(self) -> tuple[Manifest, ...]:
        """The other objects, as they are in the file."""
        return tuple(d for d in self.documents if not isinstance(d, Converted))

    def changed(self, change: Callable[[Manifest], Manifest]) -> list[Manifest]:
        """Return all objects, each workload changed."""
        return [change(d.manifest) if isinstance(d, Converted) else d for d in self.documents]


def read_manifests(path: str) -> tuple[Manifest, ...]:
    """Read the objects of a JSON or YAML file; `-` is standard input. Empty documents are left out.

    Raises:
        InputError: the file is not there, cannot be read, or holds something else.
    """
    what = "standard input" if path == "-" else f"'{path}'"
    return parse_manifests(read_text(path), what)


def parse_manifests(text: str, what: str) -> tuple[Manifest, ...]:
    """Read the objects of a JSON or YAML text, which `what` names in messages. Empty documents are left out.

    Raises:
        InputError: it holds something else.
    """
    documents = list(_without_lists(_documents(text, what)))
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


def read_application(path: str) -> Application:
    """Read the workloads of a file, in their kinds' current versions.

    Raises:
        InputError: the file holds no workload, one that cannot be converted, or the same one twice.
    """
    application = Application(
        documents=tuple(to_current(m, path) if str(m["kind"]) in KINDS else m for m in read_manifests(path))
    )
    if not application.workloads:
        found = clip(", ".join(sorted({str(m["kind"]) for m in application.others})))
        raise InputError(
            f"'{path}' holds nothing that runs: only {found}",
            hint=f"a file for this command holds at least one of {', '.join(KINDS)}",
        )
    _refuse_repetition([w.manifest for w in application.workloads], path)
    return application


def to_current(manifest: Manifest, source: str) -> Converted:
    """Bring a workload of any version there was to the current one, with a selector made from its labels if it needs one.

    Raises:
        InputError: the version is unknown, or there is no pod template with containers (and labels, where they select pods).
    """
    kind, name, shown = kind_of(manifest), manifest["metadata"]["name"], clip(title(manifest))
    current, version = kind.resource.api_version, str(manifest.get("apiVersion", ""))
    if version != current and version not in kind.old_versions:
        raise InputError(f"'{source}': {shown} has the apiVersion '{clip(version)}'", hint=f"write '{current}'")
    converted: dict[str, Any] = copy.deepcopy(dict(manifest))
    labels = _checked_labels(converted, source)
    warnings: list[str] = []
    if version != current:
        converted["apiVersion"] = current
        warnings.append(f"'{source}': {version} is gone from Kubernetes; {kind.name} '{name}' is used as {current}")
        for field in DROPPED:
            if converted["spec"].pop(field, None) is not None:
                warnings.append(f"'{source}': '{field}' has no place in {current} and is left out")
    if kind.selects and not converted["spec"].get("selector"):
        converted["spec"]["selector"] = {"matchLabels": dict(labels)}
        text = ", ".join(f"{key}={value}" for key, value in labels.items())
        warnings.append(f"'{source}': {kind.name} '{name}' has no selector; its template's labels are used ({text})")
    return Converted(manifest=converted, warnings=tuple(warnings))


def _checked_labels(manifest: Manifest, source: str) -> Mapping[str, Any]:
    """Return the pod template's labels, having checked that the template is one."""
    kind = kind_of(manifest)

    def wrong(what: str, *path: str) -> InputError:
        where = ".".join([*kind.template, *path])
        return InputError(f"'{source}': {clip(title(manifest))} {what}", hint=f"add '{where}'")

    template: Any = manifest
    for key in kind.template:
        template = template.get(key) if isinstance(template, Mapping) else None
    if not isinstance(template, Mapping):
        raise wrong("has no pod template")
    pod = template.get("spec")
    containers = pod.get("containers") if isinstance(pod, Mapping) else None
    if not isinstance(containers, list) or not containers or not all(_is_container(c) for c in containers):
        raise wrong("has no containers with names", "spec", "containers")
    metadata = template.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    if kind.selects and (not isinstance(labels, Mapping) or not labels):
        raise wrong("has no labels on its pod template", "metadata", "labels")
    return labels if isinstance(labels, Mapping) else {}


def _refuse_repetition(workloads: Sequence[Manifest], path: str) -> None:
    seen: set[tuple[object, ...]] = set()
    for workload in workloads:
        identity = (workload["kind"], workload["metadata"].get("namespace"), workload["metadata"]["name"])
        if identity in seen:
            raise InputError(f"'{path}' holds {clip(title(workload))} twice", hint="remove one of them")
        seen.add(identity)


def _is_container(container: object) -> bool:
    return isinstance(container, Mapping) and isinstance(container.get("name"), str)


def read_text(path: str) -> str:
    """Return the text of a manifest file; `-` is standard input.

    Raises:
        InputError: it is not there, cannot be read, or is no text of a manifest's size.
    """
    what = "standard input" if path == "-" else f"'{path}'"
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


def _without_lists(documents: Iterable[Any]) -> Iterator[Any]:
    """Yield the documents, a list of objects (as `kubectl get -o yaml` prints) one by one; empty ones are left out."""
    for document in documents:
        if isinstance(document, Mapping) and document.get("kind") == "List" and isinstance(document.get("items"), list):
            yield from document["items"]
        elif document is not None:
            yield document


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
