"""Where the cluster is and who we are there: kubeconfig files and the service account of a pod, as values.

Nothing is connected, executed or fetched here; `kube.credentials` turns the values into TLS contexts and headers.
Formats: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. Own code rather than a client library's loader:
those that do not bring a second HTTP client along know neither several files in KUBECONFIG, nor proxies, nor
`tls-server-name`, nor client certificates and expiry from exec plugins.
"""

import base64
import binascii
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from vanadium_node.errors import ConfigurationError, clip

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_NAMESPACE: Final = "default"
YAML_LOADER: Final[type[yaml.SafeLoader]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecPlugin:
    """A program that prints credentials (client.authentication.k8s.io)."""

    api_version: str
    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    install_hint: str = ""
    provide_cluster_info: bool = False
    needs_terminal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """How to say who we are: at most one of token, token file, plugin and password, and perhaps a client certificate."""

    token: str | None = None
    token_file: Path | None = None
    username: str | None = None
    password: str | None = None
    client_certificate: bytes | None = None
    client_key: bytes | None = None
    plugin: ExecPlugin | None = None

    def __repr__(self) -> str:
        """Keep tokens, passwords and keys out of logs and tracebacks."""
        return "User(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAccess:
    """One cluster as one user sees it."""

    server: str
    namespace: str = DEFAULT_NAMESPACE
    context: str = ""
    user: User = User()
    ca: bytes | None = None
    insecure: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None
    source: str = ""

    @classmethod
    def from_files(cls, paths: Sequence[Path], *, context: str | None = None) -> "ClusterAccess":
        """Read kubeconfig files as kubectl does: the first file that names a thing wins; missing files are skipped.

        Raises:
            ConfigurationError: no file is there, one cannot be read, or the context is incomplete.
        """
        merged = _Merged.from_files(paths)
        return merged.access(context)

    @classmethod
    def from_service_account(
        cls, environ: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT
    ) -> "ClusterAccess":
        """Return the access that Kubernetes gives every pod. The token is read again whenever the API wants it new."""
        try:
            host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
            ca = (directory / "ca.crt").read_bytes()
            namespace = (directory / "namespace").read_text().strip()
        except (KeyError, OSError) as error:
            raise ConfigurationError(
                f"this is not a pod with a service account ({clip(str(error))})", hint="name a file with --kubeconfig"
            ) from error
        return cls(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            namespace=namespace or DEFAULT_NAMESPACE,
            context="in-cluster",
            user=User(token_file=directory / "token"),
            ca=ca,
            source=str(directory),
        )

    @classmethod
    def discover(
        cls,
        *,
        kubeconfig: Path | None = None,
        context: str | None = None,
        environ: Mapping[str, str] = os.environ,
        service_account: Path = SERVICE_ACCOUNT,
    ) -> "ClusterAccess":
        """Find the cluster by kubectl's rules: the file given, KUBECONFIG, ~/.kube/config, the pod's service account."""
        if kubeconfig is not None:
            if not kubeconfig.is_file():
                raise ConfigurationError(f"there is no kubeconfig file '{kubeconfig}'", hint="check --kubeconfig")
            return cls.from_files([kubeconfig], context=context)
        paths = kubeconfig_paths(environ)
        if any(path.is_file() for path in paths):
            return cls.from_files(paths, context=context)
        if context is None and "KUBERNETES_SERVICE_HOST" in environ and (service_account / "token").is_file():
            return cls.from_service_account(environ, service_account)
        raise ConfigurationError(
            f"there is no kubeconfig file (looked for {', '.join(map(str, paths))})",
            hint="name one with --kubeconfig or KUBECONFIG, or use --local for a cluster on this machine",
        )


def kubeconfig_paths(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Return the files that KUBECONFIG names, or the usual one."""
    named = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return tuple(named) or (Path(environ.get("HOME", "~")).expanduser() / ".kube" / "config",)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A named thing of a kubeconfig file; relative paths in it start at `file`'s folder."""

    content: Mapping[str, Any]
    file: Path

    def text(self, key: str) -> str | None:
        value = self.content.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise ConfigurationError(
                f"{self.file}: '{key}' must be a text", hint="check the file with 'kubectl config view'"
            )
        return value

    def path(self, key: str) -> Path | None:
        value = self.text(key)
        return None if value is None else self.file.parent / Path(value).expanduser()

    def data(self, key: str) -> bytes | None:
        """Return the bytes of `KEY-data`, or of the file that KEY names."""
        inline = self.text(f"{key}-data")
        if inline is not None:
            try:
                return base64.b64decode(inline, validate=True)
            except binascii.Error as error:
                raise ConfigurationError(
                    f"{self.file}: '{key}-data' is not base64", hint="write the file anew"
                ) from error
        path = self.path(key)
        if path is None:
            return None
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"{self.file}: cannot read '{key}' {path}: {error.strerror}", hint="check the path"
            ) from error


@dataclass(frozen=True, slots=True)
class _Merged:
    """All kubeconfig files in one."""

    current: str | None
    clusters: Mapping[str, _Entry]
    users: Mapping[str, _Entry]
    contexts: Mapping[str, _Entry]
    source: str

    @classmethod
    def from_files(cls, paths: Sequence[Path]) -> "_Merged":
        documents = [(path, _load(path)) for path in paths if path.is_file()]
        sections: dict[str, dict[str, _Entry]] = {"cluster": {}, "user": {}, "context": {}}
        for path, document in documents:
            for section, entries in sections.items():
                for name, content in _named(document, section, path):
                    entries.setdefault(name, _Entry(content, path))
        current = next((str(d["current-context"]) for _, d in documents if d.get("current-context")), None)
        source = os.pathsep.join(str(path) for path, _ in documents)
        return cls(current, sections["cluster"], sections["user"], sections["context"], source)

    def access(self, wanted: str | None) -> ClusterAccess:
        name = wanted or self.current
        if name is None:
            raise ConfigurationError(
                f"{self.source}: no context is current",
                hint="choose one with --context or 'kubectl config use-context'",
            )
        context = self._find("context", self.contexts, name)
        cluster = self._find("cluster", self.clusters, context.text("cluster") or "")
        user_name = context.text("user")
        server = cluster.text("server")
        if server is None:
            raise ConfigurationError(f"{cluster.file}: cluster of context '{name}' has no 'server'", hint="add it")
        return ClusterAccess(
            server=server.rstrip("/"),
            namespace=context.text("namespace") or DEFAULT_NAMESPACE,
            context=name,
            user=User() if user_name is None else _user(self._find("user", self.users, user_name)),
            ca=cluster.data("certificate-authority"),
            insecure=cluster.content.get("insecure-skip-tls-verify") is True,
            tls_server_name=cluster.text("tls-server-name"),
            proxy_url=cluster.text("proxy-url"),
            source=self.source,
        )

    def _find(self, what: str, entries: Mapping[str, _Entry], name: str) -> _Entry:
        entry = entries.get(name)
        if entry is None:
            there = ", ".join(f"'{n}'" for n in sorted(entries)) or "none"
            raise ConfigurationError(
                f"{self.source}: there is no {what} '{clip(name)}'", hint=f"those there: {clip(there)}"
            )
        return entry


def _load(path: Path) -> Mapping[str, Any]:
    try:
        document = yaml.load(path.read_text(), Loader=YAML_LOADER)  # noqa: S506 - a SafeLoader, in C where it is there
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}", hint="check the file's permissions"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} is not a kubeconfig file: it is no valid YAML", hint="write it anew"
        ) from error
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise ConfigurationError(f"{path} is not a kubeconfig file: it holds no mapping", hint="check --kubeconfig")
    return document


def _named(document: Mapping[str, Any], section: str, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the entries of `clusters`, `users` or `contexts`: name and content."""
    for item in document.get(f"{section}s") or ():
        content = item.get(section) if isinstance(item, Mapping) else None
        if not isinstance(item, Mapping) or not isinstance(content or {}, Mapping):
            raise ConfigurationError(
                f"{path}: '{section}s' must be a list of entries with 'name' and '{section}'",
                hint="write the file anew",
            )
        yield str(item.get("name", "")), content or {}


def _user(entry: _Entry) -> User:
    if entry.content.get("auth-provider") and not entry.content.get("exec"):
        raise ConfigurationError(
            f"{entry.file}: users with an 'auth-provider' are not supported (Kubernetes removed them in 1.26)",
            hint="write the file anew with the provider's current tool, which uses 'exec'",
        )
    plugin = entry.content.get("exec")
    return User(
        token=entry.text("token"),
        token_file=entry.path("tokenFile"),
        username=entry.text("username"),
        password=entry.text("password"),
        client_certificate=entry.data("client-certificate"),
        client_key=entry.data("client-key"),
        plugin=None if plugin is None else _plugin(_Entry(plugin, entry.file)),
    )


def _plugin(entry: _Entry) -> ExecPlugin:
    command = entry.text("command")
    if command is None:
        raise ConfigurationError(f"{entry.file}: a user's 'exec' has no 'command'", hint="write the file anew")
    if os.sep in command:  # as kubectl: relative to the file; a bare name is looked up in PATH
        command = str(entry.file.parent / command)
    return ExecPlugin(
        api_version=entry.text("apiVersion") or "",
        command=command,
        args=tuple(str(arg) for arg in entry.content.get("args") or ()),
        env=tuple((str(v["name"]), str(v["value"])) for v in entry.content.get("env") or ()),
        install_hint=(entry.text("installHint") or "").strip(),
        provide_cluster_info=entry.content.get("provideClusterInfo") is True,
        needs_terminal=entry.content.get("interactiveMode") == "Always",
    )
