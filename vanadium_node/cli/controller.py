"""`vanadium-node controller`: applications with identities on Kubernetes. Arguments in, one call of the controller's floor."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vanadium_node.cli.output import emit, note, run_async, warn
from vanadium_node.errors import InputError

if TYPE_CHECKING:
    from vanadium_node.controller.access import Choice
    from vanadium_node.controller.applications import Identity
    from vanadium_node.controller.remote_agent import RemoteClusterAgent
    from vanadium_node.controller.settings import Settings
    from vanadium_node.controller.site import Site
    from vanadium_node.kube.resources import Manifest
    from vanadium_node.security.principal import Principal

DEFAULT_CONFIG: Final = "vkube.cfg"


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
            yield Site(client=client, settings=settings, report=note, warn=warn)

    def principal(self) -> AbstractAsyncContextManager[Principal]:
        """Open the caller's principal."""
        from vanadium_node.agent import open_principal

        return open_principal(credentials=self.credentials)

    def cluster_agent(self, site: Site, base_blessings: str | None = None) -> RemoteClusterAgent:
        """Return the way to the site's cluster agent; nothing is opened yet."""
        from vanadium_node.controller.remote_agent import RemoteClusterAgent

        return RemoteClusterAgent(
            site=site,
            open_principal=self.principal,
            address=self.cluster_agent_address,
            base_blessings=base_blessings,
        )

    async def identity(self, extension: str | None, base_blessings: str | None) -> Identity | None:
        """Return the identity that an application is to have, None without an extension."""
        from vanadium_node.controller.applications import Identity
        from vanadium_node.controller.identity import own_blessings, root_blessings

        if extension is None:
            if base_blessings is not None:
                raise click.UsageError("--base-blessings needs an EXTENSION.")
            return None
        async with self.principal() as principal:
            roots = root_blessings(own_blessings(principal, base_blessings))
        return Identity(extension=extension, root_blessings=roots)


def deployment_of(filename: str) -> Manifest:
    """Read the Deployment of a file, and say what was changed in it."""
    from vanadium_node.kube.manifest import read_deployment

    converted = read_deployment(filename)
    for warning in converted.warnings:
        warn(warning)
    return converted.manifest


def namespace_of(site: Site, manifest: Manifest, given: str | None) -> str:
    """Return the Deployment's namespace: its own, else the one given or the cluster's usual one.

    Raises:
        UsageError: two different ones are named.
    """
    own = manifest["metadata"].get("namespace")
    if own and given and own != given:
        raise click.UsageError(f"The file says namespace '{own}', and --namespace '{given}'.")
    return str(own or site.client.namespace)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", metavar="FILE", default=DEFAULT_CONFIG, show_default=True, help="The controller's settings.")
@click.option("--local", is_flag=True, help="Use the embedded cluster; it is started if it does not run.")
@click.option("--kubeconfig", metavar="FILE", help="Use the cluster of this kubeconfig file.")
@click.option("--context", metavar="NAME", help="Use this context of the kubeconfig.")
@click.option("-n", "--namespace", metavar="NAME", help="The namespace of what names none.")
@click.option(
    "--get-credentials",
    type=bool,
    is_flag=False,
    flag_value=True,
    default=None,
    metavar="BOOL",
    help="Fetch the cluster's credentials with gcloud. Default: if the settings name project, zone and cluster, and no "
    "other option names a cluster.",
)
@click.option("--kubectl", metavar="PROGRAM", default="kubectl", show_default=True, help="The kubectl to run.")
@click.option("--gcloud", metavar="PROGRAM", default="gcloud", show_default=True, help="The gcloud to run.")
@click.option("--no-headers", is_flag=True, hidden=True, help="Accepted for the original's scripts.")
@click.option(
    "--v23.credentials",
    "--credentials",
    "credentials",
    envvar="V23_CREDENTIALS",
    metavar="DIR",
    help="Your principal. [env: V23_CREDENTIALS; V23_AGENT_PATH wins]",
)
@click.option(
    "--cluster-agent-address",
    metavar="HOST:PORT",
    help="Where to reach the cluster agent, if not through its Service (such as the end of a port-forward).",
)
@click.pass_context
def command(
    ctx: click.Context,
    config: str,
    local: bool,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    get_credentials: bool | None,
    kubectl: str,
    gcloud: str,
    no_headers: bool,
    credentials: str | None,
    cluster_agent_address: str | None,
) -> None:
    """Start, update and stop applications on Kubernetes, each replica with a key and a name of its own."""
    del no_headers
    ctx.obj = Options(
        config=Path(config),
        is_config_given=ctx.get_parameter_source("config") is not click.core.ParameterSource.DEFAULT,
        local=local,
        kubeconfig=None if kubeconfig is None else Path(kubeconfig),
        context=context,
        namespace=namespace,
        get_credentials=get_credentials,
        kubectl=kubectl,
        gcloud=gcloud,
        credentials=None if credentials is None else Path(credentials),
        cluster_agent_address=cluster_agent_address,
    )


_file = click.option(
    "-f", "filename", metavar="FILE", required=True, help="The Deployment, JSON or YAML; - is standard input."
)
_wait = click.option("--wait", is_flag=True, help="Follow the rollout until it is done; undo it when it fails.")
_wait_timeout = click.option(
    "--wait-timeout",
    type=Duration(),
    default="20m",
    show_default=True,
    metavar="DURATION",
    help="With --wait: fail after so long without progress.",
)
_noblessings = click.option("--noblessings", is_flag=True, help="Without an identity: no pod agent, no secret.")
_base_blessings = click.option(
    "--base-blessings", metavar="B64", help="Extend these blessings of yours instead of the default ones."
)


@command.command()
@_file
@click.argument("extension", required=False)
@_noblessings
@_base_blessings
@_wait
@_wait_timeout
@click.pass_obj
@run_async
async def start(
    options: Options,
    filename: str,
    extension: str | None,
    noblessings: bool,
    base_blessings: str | None,
    wait: bool,
    wait_timeout: timedelta,
) -> None:
    """Start an application: a Deployment whose replicas have blessings, yours extended by EXTENSION."""
    if (extension is None) is not noblessings:
        raise click.UsageError("Give either EXTENSION or --noblessings.")
    from vanadium_node.controller.applications import Applications

    manifest = deployment_of(filename)
    identity = await options.identity(extension, base_blessings)
    async with options.site() as site:
        namespace = namespace_of(site, manifest, options.namespace)
        agent = options.cluster_agent(site, base_blessings)
        applications = Applications(site=site, agent=agent, wait=wait_timeout if wait else None)
        await applications.start(namespace, manifest, identity)
    emit(f"Deployment {namespace}/{manifest['metadata']['name']} is {'running' if wait else 'created'}.")


@command.command()
@_file
@click.argument("extension", required=False)
@_base_blessings
@_wait
@_wait_timeout
@click.pass_obj
@run_async
async def update(
    options: Options,
    filename: str,
    extension: str | None,
    base_blessings: str | None,
    wait: bool,
    wait_timeout: timedelta,
) -> None:
    """Update an application, replica after replica. With EXTENSION its identity is made anew, without it is kept."""
    from vanadium_node.controller.applications import Applications

    manifest = deployment_of(filename)
    identity = await options.identity(extension, base_blessings)
    async with options.site() as site:
        namespace = namespace_of(site, manifest, options.namespace)
        agent = options.cluster_agent(site, base_blessings)
        applications = Applications(site=site, agent=agent, wait=wait_timeout if wait else None)
        await applications.update(namespace, manifest, identity)
    emit(f"Deployment {namespace}/{manifest['metadata']['name']} is updated{'' if wait else '; its replicas follow'}.")


@command.command()
@_file
@click.pass_obj
@run_async
async def stop(options: Options, filename: str) -> None:
    """Stop an application: delete its Deployment, and make its secret worthless."""
    from vanadium_node.controller.applications import Applications

    manifest = deployment_of(filename)
    async with options.site() as site:
        namespace, name = namespace_of(site, manifest, options.namespace), str(manifest["metadata"]["name"])
        await Applications(site=site, agent=options.cluster_agent(site)).stop(namespace, name)
    emit(f"Deployment {namespace}/{name} is stopped.")


@command.command("start-cluster-agent")
@_wait
@_wait_timeout
@click.pass_obj
@run_async
async def start_cluster_agent(options: Options, wait: bool, wait_timeout: timedelta) -> None:
    """Start the cluster agent of the settings: a Deployment and a Service."""
    from vanadium_node.controller.administration import Administration
    from vanadium_node.controller.identity import claimer_pattern, named, own_blessings, root_blessings

    async with options.principal() as principal:
        own = own_blessings(principal)
    async with options.site() as site:
        administration = Administration(site=site, wait=wait_timeout if wait else None)
        claimer = site.settings.cluster_agent.granter
        roots = root_blessings(named(own, claimer))
        await administration.start(root_blessings=roots, claimer=claimer_pattern(own, claimer))
    emit(
        f"The cluster agent is {'running' if wait else 'created'}. If it is new, give it its name with 'claim-cluster-agent'."
    )


@command.command("update-cluster-agent")
@_wait
@_wait_timeout
@click.pass_obj
@run_async
async def update_cluster_agent(options: Options, wait: bool, wait_timeout: timedelta) -> None:
    """Replace the cluster agent by one with the settings of now. The roots it trusts stay."""
    from vanadium_node.controller.administration import Administration

    async with options.site() as site:
        await Administration(site=site, wait=wait_timeout if wait else None).update()
    emit(f"The cluster agent is updated{'' if wait else '; its new pod follows'}.")


@command.command("stop-cluster-agent")
@click.pass_obj
@run_async
async def stop_cluster_agent(options: Options) -> None:
    """Delete the cluster agent's Deployment and Service. Running applications keep their blessings."""
    from vanadium_node.controller.administration import Administration

    async with options.site() as site:
        await Administration(site=site).stop()
    emit("The cluster agent is stopped.")


@command.command("claim-cluster-agent")
@click.pass_obj
@run_async
async def claim_cluster_agent(options: Options) -> None:
    """Give a new cluster agent its blessings: yours, extended as the settings say."""
    async with options.site() as site:
        name = await options.cluster_agent(site).claim()
    emit(f"The cluster agent is claimed: it is {name}.")


@command.command("update-config")
@click.option("--cluster-agent-image", metavar="IMAGE", help="NAME:TAG, or :TAG to change only the tag.")
@click.option("--pod-agent-image", metavar="IMAGE", help="NAME:TAG, or :TAG to change only the tag.")
@click.pass_obj
def update_config(options: Options, cluster_agent_image: str | None, pod_agent_image: str | None) -> None:
    """Change the images in the settings file."""
    from vanadium_node.controller.update_config import update_images

    if cluster_agent_image is None and pod_agent_image is None:
        raise click.UsageError("Give --cluster-agent-image, --pod-agent-image, or both.")
    changed = update_images(options.config, cluster_agent=cluster_agent_image, pod_agent=pod_agent_image)
    emit(f"clusterAgent.image: {changed.cluster_agent.image}\npodAgent.image: {changed.pod_agent.image}")


@command.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def kubectl(options: Options, arguments: tuple[str, ...]) -> None:
    """Run kubectl on this cluster: everything after the name is its own."""
    sys.exit(_kubectl(options, arguments))


@run_async
async def _kubectl(options: Options, arguments: tuple[str, ...]) -> int:
    from vanadium_node.controller.access import chosen_cluster, run_kubectl

    async with chosen_cluster(options.choice(), options.settings_if_there(), note) as target:
        return await run_kubectl(target, options.kubectl, arguments)
