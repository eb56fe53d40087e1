"""`vanadium-node completion`: what makes a shell complete commands and options; and the same for kubectl's plugin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class

from vanadium_node.cli.output import emit

SHELLS: Final = ("bash", "zsh", "fish")
PROGRAM: Final = "vanadium-node"
VARIABLE: Final = "_VANADIUM_NODE_COMPLETE"

FILES, NO_FILES = 0, 4
"""Directives of kubectl (cobra's ShellCompDirective): let the shell complete file names, or do not."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script that makes SHELL complete this program's commands and options.

    \b
    bash:  source <(vanadium-node completion bash)
    zsh:   source <(vanadium-node completion zsh)
    fish:  vanadium-node completion fish | source
    """
    from vanadium_node.cli.app import app

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for '{shell}'.")
    emit(kind(app, {}, PROGRAM, VARIABLE).source())


def complete_for_kubectl(plugin: click.Command, words: Sequence[str]) -> None:
    """Print what the last of the words can become, as kubectl asks its plugins: one a line, then a directive."""
    *before, incomplete = words or [""]
    found = ShellComplete(plugin, {}, "kubectl vanadium", "").get_completions(list(before), incomplete)
    plain = [item for item in found if item.type == "plain"]
    for item in plain:
        sys.stdout.write(f"{item.value}\t{item.help}\n" if item.help else f"{item.value}\n")
    sys.stdout.write(f":{NO_FILES if plain or not found else FILES}\n")
