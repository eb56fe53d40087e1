"""The commands of `vanadium-node controller` around the applications: settings, images, Secrets from files, GKE."""

from __future__ import annotations

from pathlib import Path

import click

from vanadium_node.cli.controller_options import Options
from vanadium_node.cli.output import emit, note, run_async


@click.group("config")
def config_group() -> None:
    """Make the settings file."""


@config_group.command("init")
@click.option(
    "--image", metavar="IMAGE", help="The image of cluster agent and pod agents. Default: that of a running agent."
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.pass_obj
@run_async
async def config_init(options: Options, image: str | None, force: bool) -> None:
    """Write a settings file (--config; JSON, or YAML or TOML by its ending) by asking the cluster and your principal."""
    from vanadium_node import __version__
    from vanadium_node.controller import first_settings
    from vanadium_node.controller.access import chosen_cluster
    from vanadium_node.controller.identity import own_blessings
    from vanadium_node.kube.client import open_client

    first_settings.refuse_existing(options.config, overwrite=force)
    async with options.principal() as principal:
        caller = own_blessings(principal).names[0]
    async with chosen_cluster(options.choice(), None, note) as target, open_client(target.access) as client:
        found = await first_settings.ask(client)
    usual = f"registry.example/vanadium-node:{__version__}"
    content = first_settings.document(found, caller=caller, image=image or usual)
    settings = first_settings.write_first(options.config, content, overwrite=force)
    emit(
        f"'{options.config}' is written: the cluster agent '{settings.cluster_agent.blessing}' in namespace '{found.namespace}'."
    )
    if settings.cluster_agent.image == usual:
        note(f"Correct the images in it: '{usual}' stands for yours ('build-images' builds and pushes it).")


@click.command("update-config")
@click.option("--cluster-agent-image", metavar="IMAGE", help="NAME:TAG, or :TAG to change only the tag.")
@click.option("--pod-agent-image", metavar="IMAGE", help="NAME:TAG, or :TAG to change only the tag.")
@click.pass_obj
def update_config(options: Options, cluster_agent_image: str | None, pod_agent_image: str | None) -> None:
    """Change the images in the settings file; all else in it stays as it is written."""
    from vanadium_node.controller.update_config import update_images

    if cluster_agent_image is None and pod_agent_image is None:
        raise click.UsageError("Give --cluster-agent-image, --pod-agent-image, or both.")
    changed = update_images(options.config, cluster_agent=cluster_agent_image, pod_agent=pod_agent_image)
    emit(f"clusterAgent.image: {changed.cluster_agent.image}\npodAgent.image: {changed.pod_agent.image}")


@click.command("build-images")
@click.option("-v", "--verbose", is_flag=True, help="Show what the builder says.")
@click.option("--tag", metavar="TAG", help="The tag of the images. Default: the time, as 20261123-170000.")
@click.option("--builder", metavar="PROGRAM", help="Default: the first of docker, podman and buildah there is.")
@click.option("--source", metavar="DIR", help="A checkout of vanadium-node. Default: the current folder.")
@click.option("--build-arg", "build_arguments", multiple=True, metavar="NAME=VALUE", help="Passed to the builder.")
@click.option("--push/--no-push", default=True, show_default=True, help="Push the images to their registry.")
@click.pass_obj
@run_async
async def build_images(
    options: Options,
    verbose: bool,
    tag: str | None,
    builder: str | None,
    source: str | None,
    build_arguments: tuple[str, ...],
    push: bool,
) -> None:
    """Build the images of the settings and push them: under TAG, and under 'latest' where the settings say that."""
    from datetime import UTC, datetime

    from vanadium_node.controller import images

    names = images.names_to_build(options.settings(), tag or images.timestamp_tag(datetime.now(UTC)))
    build = images.Build(
        builder=images.chosen_builder(builder),
        source=images.source_folder(None if source is None else Path(source)),
        names=names,
        build_arguments=build_arguments,
    )
    await build.run(is_verbose=verbose, push=push)
    for image in names:
        emit(image)


build_docker_images = click.Command(
    "build-docker-images",
    callback=build_images.callback,
    params=build_images.params,
    help=build_images.help,
    hidden=True,  # the original's name of the same command
)


@click.command("create-secrets")
@click.option("--secrets", "archive", required=True, metavar="FILE.gpg", help="A tar archive, encrypted with gpg.")
@click.option("--gpg", metavar="PROGRAM", default="gpg", show_default=True, help="The gpg to run.")
@click.argument("templates", nargs=-1, required=True, metavar="TEMPLATE...")
@click.pass_obj
@run_async
async def create_secrets(options: Options, archive: str, gpg: str, templates: tuple[str, ...]) -> None:
    """Create the Secrets of the templates, all or none; {{base64 "PATH"}} in them stands for a file of the archive.

    What the archive holds stays in memory.
    """
    from vanadium_node.controller import secret_files

    files = await secret_files.decrypted(Path(archive), gpg=gpg)
    manifests = secret_files.secrets_of(templates, files)
    async with options.site() as site:
        created = await secret_files.create_all(site, manifests, options.namespace)
    for title in created:
        emit(f"{title} is created.")


@click.command("upgrade-cluster")
@click.option(
    "--prompt", type=bool, default=True, show_default=True, metavar="BOOL", help="Let gcloud ask before each step."
)
@click.pass_obj
@run_async
async def upgrade_cluster(options: Options, prompt: bool) -> None:
    """Upgrade a GKE cluster to the default version of its zone: the master, then the nodes."""
    from vanadium_node.controller.gke import GkeCluster

    cluster = GkeCluster.of(options.settings(), options.gcloud)
    is_upgraded = await cluster.upgrade(prompt=prompt, report=note)
    emit(f"Cluster '{cluster.name}' is upgraded." if is_upgraded else "Nothing to do.")
