"""The controller's settings: `vkube.cfg`, as frozen values.

JSON by default, YAML and TOML by the file's ending. Unknown keys are refused by naming the nearest known one, since a
misspelt `internalOnly` would otherwise open a cluster agent to the world. Nothing is opened or asked here but the file.
"""

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from vanadium_node.errors import ConfigurationError, InputError, clip
from vanadium_node.security.pattern import SEPARATOR, Pattern, check_extension

T = TypeVar("T")
DEFAULT_FILE: Final = Path("vkube.cfg")
MAX_FILE_BYTES: Final = 1024 * 1024
CLUSTER_AGENT_PORT: Final = 8193
HEALTH_PORT: Final = 8194
"""Where a cluster agent in a cluster answers `/livez`, `/readyz` and `/metrics` over HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAgentSettings:
    """The section `clusterAgent`: where and how the cluster agent runs, and who it is."""

    image: str
    """Its container image."""
    blessing: str
    """Its name: a name of the caller, then the extension that a claim grants (`test-root:cluster-agent`)."""
    admin: tuple[str, ...]
    """Patterns of those who may make and forget secrets."""
    namespace: str = "default"
    cpu: str = "0.1"
    """Kubernetes quantity, requested and allowed."""
    memory: str = "250M"
    """Kubernetes quantity, requested and allowed."""
    external_ip: str | None = None
    """The load balancer's address, reserved beforehand."""
    persistent_disk: str | None = None
    """Name of a GCE persistent disk for the secrets."""
    persistent_volume_claim: str | None = None
    """Name of a PersistentVolumeClaim for the secrets."""
    internal_only: bool = False
    """No load balancer: only the cluster's own network reaches it."""

    @property
    def in_cluster_name(self) -> str:
        """The name under which pods call it: a server without this blessing is refused."""
        return f"/({self.blessing})@cluster-agent.{self.namespace}:{CLUSTER_AGENT_PORT}"

    @property
    def extension(self) -> str:
        """What a claim adds to the claimer's name."""
        return self.blessing.rpartition(":")[2]

    @property
    def granter(self) -> str:
        """The claimer's name in the cluster agent's."""
        return self.blessing.rpartition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class PodAgentSettings:
    """The section `podAgent`."""

    image: str
    """The image of the pod agents that are added to the applications' pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole file. `project`, `zone` and `cluster` name a GKE cluster whose credentials gcloud can fetch."""

    cluster_agent: ClusterAgentSettings
    pod_agent: PodAgentSettings
    project: str | None = None
    zone: str | None = None
    cluster: str | None = None

    @classmethod
    def from_file(cls, path: Path) -> "Settings":
        """Read and check the file.

        Raises:
            ConfigurationError: it is not there, not what its ending says, or has a wrong, missing or unknown key.
        """
        return cls.from_document(read_document(path), str(path))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], source: str) -> "Settings":
        """Check the content of a file; `source` names it in messages."""
        top = _Section(source, "", document, ("project", "zone", "cluster", "clusterAgent", "podAgent"))
        agent = top.section(
            "clusterAgent",
            (
                *("namespace", "image", "cpu", "memory", "blessing", "admin"),
                *("externalIP", "persistentDisk", "persistentVolumeClaim", "internalOnly"),
            ),
        )
        pod_agent = top.section("podAgent", ("image",))
        if agent.has("persistentDisk") and agent.has("persistentVolumeClaim"):
            raise ConfigurationError(
                f"{source}: 'clusterAgent' names both 'persistentDisk' and 'persistentVolumeClaim'",
                hint="keep one of them",
            )
        return cls(
            project=top.optional("project", _text),
            zone=top.optional("zone", _text),
            cluster=top.optional("cluster", _text),
            cluster_agent=ClusterAgentSettings(
                image=agent.required("image", _text),
                blessing=agent.required("blessing", _blessing),
                admin=agent.required("admin", _patterns),
                namespace=agent.optional("namespace", _dns_label) or "default",
                cpu=agent.optional("cpu", _quantity) or "0.1",
                memory=agent.optional("memory", _quantity) or "250M",
                external_ip=agent.optional("externalIP", _ip),
                persistent_disk=agent.optional("persistentDisk", _text),
                persistent_volume_claim=agent.optional("persistentVolumeClaim", _text),
                internal_only=agent.optional("internalOnly", _boolean) or False,
            ),
            pod_agent=PodAgentSettings(image=pod_agent.required("image", _text)),
        )


def read_document(path: Path) -> Mapping[str, Any]:
    """Read a settings file without judging its keys.

    Raises:
        ConfigurationError: it is not there, or not of the format that its ending names.
    """
    try:
        data = path.read_bytes()[: MAX_FILE_BYTES + 1]
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"there is no configuration file '{path}'", hint="name one with --config, or write it as the README shows"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot read '{path}': {error.strerror}", hint="check --config") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigurationError(f"'{path}' is larger than {MAX_FILE_BYTES} bytes", hint="check --config")
    try:
        document = parsed(path, data.decode("utf-8-sig"))
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        why = clip(" ".join(str(error).split()))
        raise ConfigurationError(
            f"'{path}' is not valid {_format(path.suffix)}: {why}", hint="correct the file"
        ) from error
    if not isinstance(document, Mapping):
        raise ConfigurationError(
            f"'{path}' holds {_type_name(document)}, not an object", hint="write it as the README shows"
        )
    return document


def _format(suffix: str) -> str:
    return {".yaml": "YAML", ".yml": "YAML", ".toml": "TOML"}.get(suffix, "JSON")


def parsed(path: Path, text: str) -> object:
    """Read the text of a settings file in the format that the path's ending names; what is wrong comes as the parser's error."""
    match _format(path.suffix):
        case "YAML":
            return yaml.safe_load(text)
        case "TOML":
            return tomllib.loads(text)
        case _:
            return json.loads(text)


class _Section:
    """An object of the file, with the keys it may have."""

    def __init__(self, source: str, name: str, content: Mapping[str, Any], known: tuple[str, ...]) -> None:
        self._source = source
        self._name = name
        self._content = content
        for key in content:
            if key not in known:
                path = self._path(clip(str(key), 60))
                raise ConfigurationError(f"{source}: unknown key '{path}'", hint=_nearest(str(key), known))

    def _path(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def has(self, key: str) -> bool:
        return self._content.get(key) not in (None, "")

    def section(self, key: str, known: tuple[str, ...]) -> "_Section":
        content = self._content.get(key)
        if content is None:
            raise ConfigurationError(f"{self._source}: '{key}' is missing", hint="write it as the README shows")
        if not isinstance(content, Mapping):
            raise ConfigurationError(
                f"{self._source}: '{key}' is {_type_name(content)}, not an object", hint="write it as the README shows"
            )
        return _Section(self._source, key, content, known)

    def required(self, key: str, check: Callable[[object], T]) -> T:
        value = self.optional(key, check)
        if value is None:
            raise ConfigurationError(f"{self._source}: '{self._path(key)}' is missing", hint=f"add it: {check.__doc__}")
        return value

    def optional(self, key: str, check: Callable[[object], T]) -> T | None:
        if not self.has(key):
            return None
        value = self._content[key]
        try:
            return check(value)
        except (ValueError, InputError) as error:
            shown = clip(json.dumps(value, default=str), 60)
            raise ConfigurationError(
                f"{self._source}: '{self._path(key)}' is {shown}", hint=f"it must be {check.__doc__}"
            ) from error


def _nearest(key: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known keys are {', '.join(known)}"


def _type_name(value: object) -> str:
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), "nothing")


# Each check's docstring is what a message says after 'it must be'.


def _text(value: object) -> str:
    """a text on one line, without spaces around it"""
    if not isinstance(value, str) or value != value.strip() or not value.isprintable():
        raise ValueError
    return value


def _boolean(value: object) -> bool:
    """true or false"""
    if value is not True and value is not False:
        raise ValueError
    return value


def _quantity(value: object) -> str:
    """a Kubernetes quantity in quotes, such as "0.1", "100m" or "250M" """
    text = _text(value)
    if not re.fullmatch(r"\d+(\.\d+)?([eE]\d+|[numkMGTPE]|[KMGTPE]i)?", text):
        raise ValueError
    return text


def _dns_label(value: object) -> str:
    """the name of a namespace: small letters, digits and dashes, at most 63"""
    text = _text(value)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text):
        raise ValueError
    return text


def _ip(value: object) -> str:
    """an IP address"""
    return str(ip_address(_text(value)))


def _blessing(value: object) -> str:
    """a name of yours and an extension, such as "test-root:cluster-agent" """
    name = check_extension(_text(value))
    if SEPARATOR not in name:
        raise ValueError
    return name


def _patterns(value: object) -> tuple[str, ...]:
    """blessing patterns, separated by commas, such as "test-root,test-root:ops" """
    patterns = tuple(str(Pattern.parse(part.strip())) for part in _text(value).split(","))
    if not all(patterns):
        raise ValueError
    return patterns
