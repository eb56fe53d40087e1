"""Which cluster a command is for: the embedded one, the one of a kubeconfig, or a GKE cluster of the settings.

The same choice serves this process and the kubectl it may start.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from vanadium_node.controller.settings import Settings
from vanadium_node.errors import ConfigurationError, InputError, clip
from vanadium_node.kube.kubeconfig import ClusterAccess


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the user said about the cluster."""

    local: bool = False
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    credentials_from_gcloud: bool | None = None
    """True: must be fetched; False: must not; None: where the settings name a GKE cluster and nothing else was said."""
    gcloud: str = "gcloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A cluster, and what makes kubectl talk to the same one."""

    access: ClusterAccess
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()


@asynccontextmanager
async def chosen_cluster(
    choice: Choice, settings: Settings | None, report: Callable[[str], None]
) -> AsyncIterator[Target]:
    """Find the cluster; start the embedded one if it is chosen and not running; credentials of gcloud last as the block.

    Raises:
        ConfigurationError: there is no such cluster, or the choice contradicts itself.
    """
    if choice.local and (choice.kubeconfig is not None or choice.context is not None):
        raise ConfigurationError("--local and --kubeconfig or --context name two clusters", hint="leave one out")
    if choice.local:
        yield _target(choice, await _embedded(report))
    elif _wants_gcloud(choice, settings):
        with tempfile.TemporaryDirectory(prefix="vanadium-node-") as folder:
            kubeconfig = Path(folder) / "kubeconfig"
            await fetch_credentials(settings, choice.gcloud, kubeconfig)
            yield _target(choice, kubeconfig)
    else:
        yield _target(choice, choice.kubeconfig)


async def _embedded(report: Callable[[str], None]) -> Path:
    """Return the kubeconfig of the embedded cluster, which is started if it does not run."""
    from vanadium_node.local.cluster import default_directory, ensure_up, kubeconfig_path  # heavy, and seldom needed

    directory = default_directory()
    if await ensure_up(directory):
        report(f"started the embedded cluster in {directory}; 'vanadium-node local down' ends it")
    return kubeconfig_path(directory)


def _target(choice: Choice, kubeconfig: Path | None) -> Target:
    access = ClusterAccess.discover(kubeconfig=kubeconfig, context=choice.context)
    if choice.namespace is not None:
        access = replace(access, namespace=choice.namespace)
    arguments = [f"--context={choice.context}"] if choice.context is not None else []
    if choice.namespace is not None:
        arguments.append(f"--namespace={choice.namespace}")
    environment = {"KUBECONFIG": str(kubeconfig.absolute())} if kubeconfig is not None else {}
    return Target(access=access, environment=environment, arguments=tuple(arguments))


def _wants_gcloud(choice: Choice, settings: Settings | None) -> bool:
    if choice.credentials_from_gcloud is not None:
        return choice.credentials_from_gcloud
    is_named = settings is not None and all((settings.project, settings.zone, settings.cluster))
    return is_named and choice.kubeconfig is None and choice.context is None


async def fetch_credentials(settings: Settings | None, gcloud: str, kubeconfig: Path) -> None:
    """Have gcloud write the credentials of the settings' GKE cluster to `kubeconfig`.

    Raises:
        ConfigurationError: the settings name no such cluster, or gcloud is missing or fails.
    """
    if settings is None or not (settings.project and settings.zone and settings.cluster):
        raise ConfigurationError(
            "gcloud cannot fetch credentials: the configuration does not name 'project', 'zone' and 'cluster'",
            hint="add them, or use --get-credentials=false",
        )
    command = [gcloud, "container", "clusters", "get-credentials", settings.cluster]
    command += ["--project", settings.project, "--zone", settings.zone]
    other = "use --local, --kubeconfig FILE, or --get-credentials=false for the current kubeconfig"
    try:
        result = await trio.run_process(
            command,
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    except OSError as error:
        raise ConfigurationError(
            f"cannot fetch the credentials of cluster '{settings.cluster}': {gcloud} is not installed or cannot be run",
            hint=f"install it from cloud.google.com/sdk, or {other}",
        ) from error
    if result.returncode != 0:
        said = clip(result.stderr.decode(errors="replace").strip())
        raise ConfigurationError(
            f"gcloud could not fetch the credentials of cluster '{settings.cluster}': {said}",
            hint=f"log in with 'gcloud auth login', or {other}",
        )


async def run_kubectl(target: Target, kubectl: str, arguments: tuple[str, ...]) -> int:
    """Run kubectl on the cluster, with this process's input and output, and return its exit status.

    Raises:
        InputError: kubectl is not installed.
    """
    environment = {**os.environ, **target.environment}
    try:
        result = await trio.run_process([kubectl, *target.arguments, *arguments], env=environment, check=False)
    except OSError as error:
        raise InputError(
            f"cannot run '{kubectl}': {error.strerror}",
            hint="install kubectl from kubernetes.io/docs/tasks/tools, or name it with --kubectl",
        ) from error
    return result.returncode if result.returncode >= 0 else 128 - result.returncode  # ended by a signal
