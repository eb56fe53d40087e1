"""What the commands of `vanadium-node controller` share: the options before the command, and what they lead to."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vanadium_node.cli.output import emit, emit_json, note, warn
from vanadium_node.errors import InputError

if TYPE_CHECKING:
    from vanadium_node.controller.access import Choice
    from vanadium_node.controller.remote_agent import RemoteClusterAgent
    from vanadium_node.controller.settings import Settings
    from vanadium_node.controller.site import Site
    from vanadium_node.controller.targets import Identity
    from vanadium_node.kube.display import Display, Show
    from vanadium_node.kube.manifest import Application
    from vanadium_node.kube.resources import Manifest
    from vanadium_node.security.principal import Principal

DEFAULT_CONFIG: Final = "vkube.cfg"
MAX_TOKEN_BYTES: Final = 4096


class Duration(click.ParamType[timedelta]):
    """A time such as `20m`, `1h30m` or `30s`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read the text."""
        from vanadium_node.config import parse_duration

        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was given before the command."""

    config: Path
    is_config_given: bool
    local: bool
    kubeconfig: Path | None
    context: str | None
    namespace: str | None
    get_credentials: bool | None
    kubectl: str
    gcloud: str
    credentials: Path | None
    cluster_agent_address: str | None
    no_headers: bool = False

    def choice(self) -> Choice:
        """Return what was said about the cluster."""
        from vanadium_node.controller.access import Choice

        return Choice(
            local=self.local,
            kubeconfig=self.kubeconfig,
            context=self.context,
            namespace=self.namespace,
            credentials_from_gcloud=self.get_credentials,
            gcloud=self.gcloud,
        )

    def settings(self) -> Settings:
        """Read the configuration file."""
        from vanadium_node.controller.settings import Settings

        return Settings.from_file(self.config)

    def settings_if_there(self) -> Settings | None:
        """Read the configuration file, if it was named or lies where it usually does."""
        return self.settings() if self.is_config_given or self.config.exists() else None

    @asynccontextmanager
    async def site(self) -> AsyncIterator[Site]:
        """Log in to the cluster."""
        from vanadium_node.controller.access import chosen_cluster
        from vanadium_node.controller.site import Site
        from vanadium_node.kube.client import open_client

        settings = self.settings()
        async with chosen_cluster(self.choice(), settings, note) as target, open_client(target.access) as client:
            yield Site(client=client, settings=settings, report=note, warn=warn, rollouts=rollouts_on_terminal())

    def principal(self) -> AbstractAsyncContextManager[Principal]:
        """Open the caller's principal."""
        from vanadium_node.agent import open_principal
        from vanadium_node.cli.asking import ask_passphrase

        return open_principal(credentials=self.credentials, passphrase=ask_passphrase)

    def cluster_agent(
        self, site: Site, base_blessings: str | None = None, *, patience: timedelta | None = None
    ) -> RemoteClusterAgent:
        """Return the way to the site's cluster agent; nothing is opened yet. `patience`: for a load balancer's address."""
        from vanadium_node.controller.endpoint import ADDRESS_PATIENCE
        from vanadium_node.controller.remote_agent import RemoteClusterAgent

        return RemoteClusterAgent(
            site=site,
            open_principal=self.principal,
            address=self.cluster_agent_address,
            base_blessings=base_blessings,
            patience=ADDRESS_PATIENCE if patience is None else patience,
        )

    async def identity(self, extension: str | None, base_blessings: str | None) -> Identity | None:
        """Return the identity that an application is to have, None without an extension."""
        from vanadium_node.controller.identity import own_blessings, root_blessings
        from vanadium_node.controller.targets import Identity

        if extension is None:
            if base_blessings is not None:
                raise click.UsageError("--base-blessings needs an EXTENSION.")
            return None
        async with self.principal() as principal:
            roots = root_blessings(own_blessings(principal, base_blessings))
        return Identity(extension=extension, root_blessings=roots)


def rollouts_on_terminal() -> Display | None:
    """Return how a person at a terminal is shown rollouts; None where nobody looks: lines of text do then."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None

    def display() -> AbstractContextManager[Show]:
        from rich.console import Console

        from vanadium_node.cli.rollout_view import live_display

        return live_display(Console(stderr=True, highlight=False))()

    return display


def application_in(filename: str, *, is_used: bool = True) -> Application:
    """Read the workloads of a file, and say what was changed in them if more than their names is used."""
    from vanadium_node.kube.manifest import read_application

    application = read_application(filename)
    if is_used:
        for warning in (warning for workload in application.workloads for warning in workload.warnings):
            warn(warning)
    return application


def workloads_of(application: Application, given: str | None) -> list[Manifest]:
    """Return the workloads to work on; say what in the file is left to others.

    Raises:
        UsageError: a workload names another namespace than the one given.
    """
    workloads = [converted.manifest for converted in application.workloads]
    for own in (workload["metadata"].get("namespace") for workload in workloads):
        if own and given and own != given:
            raise click.UsageError(f"The file says namespace '{own}', and --namespace '{given}'.")
    if application.others:
        shown = ", ".join(f"{m['kind']} {m['metadata']['name']}" for m in application.others)
        note(f"Left to 'kubectl apply': {shown}.")
    return workloads


def titles(site: Site, workloads: Iterable[Manifest]) -> str:
    """Return how a message names workloads: `Deployment shop/cart and Job shop/load`."""
    names = [
        f"{w['kind']} {w['metadata'].get('namespace') or site.client.namespace}/{w['metadata']['name']}"
        for w in workloads
    ]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def emit_manifests(manifests: Sequence[Manifest], output: str) -> None:
    """Print manifests so that `kubectl apply -f -` takes them: several in JSON are a List."""
    if output == "yaml":
        import yaml

        emit(yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True).rstrip("\n"))
    elif len(manifests) == 1:
        emit_json(manifests[0])
    else:
        emit_json({"apiVersion": "v1", "kind": "List", "items": list(manifests)})


def token_of(given: str | None, file: Path | None) -> str:
    """Return the pairing token, from the flag or the file (`-`: standard input); empty where neither is given.

    Raises:
        UsageError: both are given.
        VanadiumError: the file cannot be read, or is empty.
    """
    if given is not None and file is not None:
        raise click.UsageError("Give --pairing-token or --pairing-token-file, not both.")
    if file is None:
        return given or ""
    from vanadium_node.storage.files import read_limited

    is_stdin = str(file) == "-"
    data = sys.stdin.buffer.read(MAX_TOKEN_BYTES) if is_stdin else read_limited(file, max_bytes=MAX_TOKEN_BYTES)
    token = data.decode(errors="replace").strip()
    if not token:
        where = "standard input" if is_stdin else f"the pairing token file '{file}'"
        raise InputError(f"{where} is empty", hint="give the token that the cluster agent was started with")
    return token


output_option = click.option(
    "-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True, help="The form to print."
)
file_option = click.option(
    "-f",
    "filename",
    type=click.Path(allow_dash=True),
    metavar="FILE",
    required=True,
    help="The application's manifests, JSON or YAML; - is standard input.",
)
wait_option = click.option("--wait", is_flag=True, help="Follow the rollout until it is done; undo it when it fails.")
wait_timeout_option = click.option(
    "--wait-timeout",
    type=Duration(),
    default="20m",
    show_default=True,
    metavar="DURATION",
    help="With --wait: fail after so long without progress.",
)
noblessings_option = click.option("--noblessings", is_flag=True, help="Without an identity: no pod agent, no secret.")
base_blessings_option = click.option(
    "--base-blessings", metavar="B64", help="Extend these blessings of yours instead of the default ones."
)
