"""`vanadium-node cluster-agent`: run the cluster agent; back it up and restore it."""

import sys
from pathlib import Path
from typing import Any

import click

from vanadium_node.cli.daemon import serve_daemon, settings_options
from vanadium_node.cli.output import interruptible, is_terminal, note
from vanadium_node.cluster_agent import Serving, run
from vanadium_node.config import ClusterAgentSettings
from vanadium_node.errors import InputError
from vanadium_node.storage.files import explained


@click.group(invoke_without_command=True)
@settings_options(ClusterAgentSettings)
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Keep the applications' blessings and give each replica its own.

    A new cluster agent makes a key and waits to be claimed by --claimer, whose name must be rooted in --root-blessings. With
    --permissions and credentials of its own it serves at once. It prints NAME=/HOST:PORT (NAME=/(PATTERN)@HOST:PORT when it
    has blessings) once it serves.
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = options["root_dir"]
        return
    serve_daemon(ClusterAgentSettings, options, run, _line)


def _line(serving: Serving) -> str:
    return f"NAME={serving.name}"


root_dir_option = click.option(
    "--root-dir",
    type=click.Path(path_type=Path),
    envvar="DATADIR",
    metavar="DIR",
    help="The agent's directory. [DATADIR]",
)


@command.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@root_dir_option
@click.pass_obj
def backup(outer: str | None, file: Path, root_dir: Path | None) -> None:
    """Write all that the agent needs to be the same again into FILE, a private tar; '-' is standard output.

    The agent may run, and goes on meanwhile. FILE holds its private key: guard it. The audit log is not in it.
    """
    from vanadium_node.cluster_agent.backup import back_up, back_up_to

    directory = _directory(root_dir, outer)
    if str(file) == "-" and is_terminal():
        raise InputError("a backup is not for a terminal", hint="give a FILE, or redirect standard output")
    with interruptible():
        if str(file) == "-":
            back_up_to(directory, sys.stdout.buffer)
            sys.stdout.flush()
            return
        size = back_up(directory, file)
    note(f"Wrote {size} bytes to '{file}'. It holds the agent's private key.")


@command.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@root_dir_option
@click.pass_obj
def restore(outer: str | None, file: Path, root_dir: Path | None) -> None:
    """Put what 'backup' wrote into FILE ('-': standard input) into a directory in which no agent has been yet.

    Secrets that were forgotten after the backup are good again: forget them again ('secret list' shows them).
    """
    from vanadium_node.cluster_agent.backup import restore as put_back

    directory = _directory(root_dir, outer)
    with interruptible():
        if str(file) == "-":
            names = put_back(sys.stdin.buffer, directory)
        else:
            with explained("read", file), file.open("rb") as source:
                names = put_back(source, directory)
    note(f"Restored {', '.join(names)} into '{directory}'.")


def _directory(given: Path | None, outer: str | None) -> Path:
    """Return the agent's directory, given after the command or before it."""
    if given is None and not outer:
        raise click.UsageError("Give --root-dir DIR, the agent's directory.")
    return given or Path(outer or "")
