"""`vanadium-node controller`: applications with identities on Kubernetes. Arguments in, one call of the controller's floor."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from gc import set_threshold
from pathlib import Path
from typing import Final

import click

from vanadium_node.cli.controller_options import (
    DEFAULT_CONFIG,
    Duration,
    Options,
    application_in,
    base_blessings_option,
    emit_manifests,
    file_option,
    noblessings_option,
    output_option,
    titles,
    token_of,
    wait_option,
    wait_timeout_option,
    workloads_of,
)
from vanadium_node.cli.controller_setup import (
    build_docker_images,
    build_images,
    config_group,
    create_secrets,
    update_config,
    upgrade_cluster,
)
from vanadium_node.cli.controller_status import doctor, status
from vanadium_node.cli.hoisting import HoistingGroup
from vanadium_node.cli.output import EXIT_STATUS, emit, note, run_async

ALLOCATIONS_A_COLLECTION: Final = 50_000
"""Of the cyclic garbage collector: at its usual 700, a fifth of a command's start is spent looking at what was just imported."""


@click.group(cls=HoistingGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_STATUS)
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
@click.option("--no-headers", is_flag=True, help="Leave headers out of tables, for scripts.")
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
    set_threshold(ALLOCATIONS_A_COLLECTION)
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
        no_headers=no_headers,
    )


def _is(workloads: Sequence[object]) -> str:
    return "is" if len(workloads) == 1 else "are"


@command.command()
@file_option
@click.argument("extension", required=False)
@noblessings_option
@base_blessings_option
@wait_option
@wait_timeout_option
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
    """Start an application: workloads whose replicas have blessings, yours extended by EXTENSION.

    FILE may hold Deployments, StatefulSets, DaemonSets, Jobs, CronJobs and Pods; other objects in it are left to kubectl.
    """
    if (extension is None) is not noblessings:
        raise click.UsageError("Give either EXTENSION or --noblessings.")
    from vanadium_node.controller.applications import Applications

    workloads = workloads_of(application_in(filename), options.namespace)
    identity = await options.identity(extension, base_blessings)
    async with options.site() as site:
        agent = options.cluster_agent(site, base_blessings)
        applications = Applications(site=site, agent=agent, wait=wait_timeout if wait else None)
        await applications.start(site.client.namespace, workloads, identity)
        told = titles(site, workloads)
    emit(f"{told} {_is(workloads)} {'running' if wait else 'created'}.")


@command.command()
@file_option
@click.argument("extension", required=False)
@base_blessings_option
@wait_option
@wait_timeout_option
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
    """Update an application, replica after replica. With EXTENSION its identity is made anew, without it is kept.

    Jobs and Pods cannot be updated: stop them, and start them again.
    """
    from vanadium_node.controller.applications import Applications

    workloads = workloads_of(application_in(filename), options.namespace)
    identity = await options.identity(extension, base_blessings)
    async with options.site() as site:
        agent = options.cluster_agent(site, base_blessings)
        applications = Applications(site=site, agent=agent, wait=wait_timeout if wait else None)
        await applications.update(site.client.namespace, workloads, identity)
        told = titles(site, workloads)
    emit(f"{told} {_is(workloads)} updated{'' if wait else '; the replicas follow'}.")


@command.command()
@file_option
@click.pass_obj
@run_async
async def stop(options: Options, filename: str) -> None:
    """Stop an application: delete its workloads, and make their secrets worthless."""
    from vanadium_node.controller.applications import Applications

    workloads = workloads_of(application_in(filename, is_used=False), options.namespace)
    async with options.site() as site:
        await Applications(site=site, agent=options.cluster_agent(site)).stop(site.client.namespace, workloads)
        told = titles(site, workloads)
    emit(f"{told} {_is(workloads)} stopped.")


@command.command("start-cluster-agent")
@wait_option
@wait_timeout_option
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
@wait_option
@wait_timeout_option
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
@click.option(
    "--fingerprint", metavar="KEY", help="Claim only an agent with this key; a new agent says its own in its log."
)
@click.option("--pairing-token", metavar="TOKEN", help="The token that the agent was started with.")
@click.option(
    "--pairing-token-file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="File with that token; - is standard input.",
)
@click.pass_obj
@run_async
async def claim_cluster_agent(
    options: Options, fingerprint: str | None, pairing_token: str | None, pairing_token_file: Path | None
) -> None:
    """Give a new cluster agent its blessings: yours, extended as the settings say."""
    token = token_of(pairing_token, pairing_token_file)
    async with options.site() as site:
        name = await options.cluster_agent(site).claim(fingerprint=fingerprint, token=token)
    emit(f"The cluster agent is claimed: it is {name}.")


@command.command()
@file_option
@click.option(
    "--secret", "secret_name", metavar="NAME", required=True, help="The Secret with the key, made beforehand."
)
@click.option(
    "--native-sidecar/--plain-container", default=True, show_default=True, help="The former needs Kubernetes 1.29."
)
@base_blessings_option
@output_option
@click.pass_obj
@run_async
async def inject(
    options: Options, filename: str, secret_name: str, native_sidecar: bool, base_blessings: str | None, output: str
) -> None:
    """Print the file with the pod agent in its workloads, for those who apply their manifests by other means."""
    from vanadium_node.controller.identity import own_blessings, root_blessings
    from vanadium_node.kube.injection import PodAgent
    from vanadium_node.kube.injection import inject as injected

    application, settings = application_in(filename), options.settings()
    async with options.principal() as principal:
        roots = root_blessings(own_blessings(principal, base_blessings))
    agent = PodAgent(
        image=settings.pod_agent.image,
        secret_name=secret_name,
        agent_name=settings.cluster_agent.in_cluster_name,
        root_blessings=roots,
        native_sidecar=native_sidecar,
    )
    emit_manifests(application.changed(lambda workload: injected(workload, agent)), output)


@command.command()
@file_option
@output_option
def uninject(filename: str, output: str) -> None:
    """Print the file without the pod agents that 'inject' or 'start' added."""
    from vanadium_node.kube.injection import uninject as uninjected

    emit_manifests(application_in(filename).changed(uninjected), output)


@command.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--older-than",
    type=Duration(),
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="Leave younger ones alone: a command may be at work.",
)
@click.pass_obj
@run_async
async def gc(options: Options, dry_run: bool, older_than: timedelta) -> None:
    """Remove the secrets in the namespace that no workload uses, with their keys at the cluster agent."""
    from vanadium_node.controller.app_secrets import AppSecrets
    from vanadium_node.controller.objects import application_of
    from vanadium_node.kube.resources import name_of

    async with options.site() as site:
        app_secrets = AppSecrets(site=site, agent=options.cluster_agent(site))
        unused = await app_secrets.unused(site.client.namespace, older_than=older_than)
        for stored in unused:
            if not dry_run:
                await app_secrets.forget(site.client.namespace, stored)
            emit(f"Secret {site.client.namespace}/{name_of(stored)} of {application_of(stored)}")
    note(f"{len(unused)} {'found' if dry_run else 'removed'}.")


for more in (
    config_group,
    update_config,
    build_images,
    build_docker_images,
    create_secrets,
    upgrade_cluster,
    status,
    doctor,
):
    command.add_command(more)


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
