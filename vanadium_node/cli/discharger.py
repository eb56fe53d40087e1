"""`vanadium-node discharger`: run a discharger."""

from functools import partial
from typing import Any

import click
import trio

from vanadium_node.agent import open_principal
from vanadium_node.cli.daemon import serve_daemon, settings_options
from vanadium_node.config import DischargerSettings
from vanadium_node.discharger import run


@click.command()
@settings_options(DischargerSettings)
def command(**options: Any) -> None:
    """Say for third-party caveats whether they hold: a blessing that needs a discharge can be revoked within seconds.

    Make such blessings with 'principal bless --caveat discharge:NAME', where NAME is what this command prints once it serves.
    To revoke one, write a line into the deny file: 'caveat FINGERPRINT' ('principal dumpblessings' shows it), a pattern of
    names, or 'key FINGERPRINT'.
    """
    serve_daemon(DischargerSettings, options, _serve, _line)


async def _serve(settings: DischargerSettings, /, *, stop: trio.Event, task_status: trio.TaskStatus[str]) -> None:
    opening = partial(open_principal, credentials=settings.credentials)
    await run(settings, opening, stop=stop, task_status=task_status)


def _line(name: str) -> str:
    return f"NAME={name}"
