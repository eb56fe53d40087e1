"""`vanadium-node cluster-agent`: run the cluster agent."""

from typing import Any

import click
import trio

from vanadium_node.cli.daemon import load_settings, run_daemon, settings_options
from vanadium_node.cli.output import emit
from vanadium_node.cluster_agent import run
from vanadium_node.config import ClusterAgentSettings


@click.command()
@settings_options(ClusterAgentSettings)
def command(**options: Any) -> None:
    """Keep the applications' blessings and give each replica its own.

    A new cluster agent makes a key and waits to be claimed by --claimer, whose name must be rooted in --root-blessings. With
    --permissions and credentials of its own it serves at once. It prints NAME=/HOST:PORT (NAME=/(PATTERN)@HOST:PORT when it
    has blessings) once it serves.
    """
    settings = load_settings(ClusterAgentSettings, options)
    if settings is not None:
        run_daemon(lambda stop: _serve(settings, stop))


async def _serve(settings: ClusterAgentSettings, stop: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        serving = await nursery.start(lambda task_status: run(settings, stop=stop, task_status=task_status))
        emit(f"NAME={serving.name}")
