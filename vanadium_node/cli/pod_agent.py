"""`vanadium-node pod-agent`: run the pod agent."""

from pathlib import Path
from typing import Any

import click

from vanadium_node.cli.daemon import serve_daemon, settings_options
from vanadium_node.config import PodAgentSettings
from vanadium_node.pod_agent import run


@click.command()
@settings_options(PodAgentSettings)
def command(**options: Any) -> None:
    """Get a replica's blessings and serve them to the pod's containers.

    The key is made here and stays in memory. The socket appears when there are blessings for it, is removed when they expire,
    and SOCKET=PATH is printed when it appears for the first time. Programs with V23_AGENT_PATH=PATH act as this replica.
    """
    serve_daemon(PodAgentSettings, options, run, _line)


def _line(path: Path) -> str:
    return f"SOCKET={path}"
