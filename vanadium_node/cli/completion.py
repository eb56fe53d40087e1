"""`vanadium-node completion`: what makes a shell complete commands and options; and the same for kubectl's plugin."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import (
    BashComplete,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from vanadium_node.cli.app import COMPLETION_VARIABLE, app
from vanadium_node.cli.output import emit

SHELLS: Final = ("bash", "zsh", "fish")
PROGRAM: Final = "vanadium-node"

BASH: Final = """\
%(complete_func)s() {
    local type value
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

FILES, NO_FILES = 0, 4
"""Directives of kubectl (cobra's ShellCompDirective): let the shell complete file names, or do not."""


class Bash(BashComplete):
    """Bash, which takes colons as the ends of words: names of servers are full of them, and so the line is split here."""

    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the last one, and the last one, which may be empty."""
        line = os.environ.get("COMP_LINE")
        if line is None:
            return super().get_completion_args()
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        return words, incomplete


add_completion_class(Bash)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script that makes SHELL complete this program's commands and options, and the methods of servers.

    \b
    bash:  source <(vanadium-node completion bash)
    zsh:   source <(vanadium-node completion zsh)
    fish:  vanadium-node completion fish | source
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for '{shell}'.")
    emit(kind(app, {}, PROGRAM, COMPLETION_VARIABLE).source())


def answer_quietly() -> None:
    """Prepare this process for what a shell asks: errors would end up in the line that somebody is typing."""
    if os.environ[COMPLETION_VARIABLE].endswith("_complete"):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - until the process ends


def complete_for_kubectl(plugin: click.Command, words: Sequence[str]) -> None:
    """Print what the last of the words can become, as kubectl asks its plugins: one a line, then a directive."""
    *before, incomplete = words or [""]
    found = ShellComplete(plugin, {}, "kubectl vanadium", "").get_completions(list(before), incomplete)
    plain = [item for item in found if item.type == "plain"]
    for item in plain:
        sys.stdout.write(f"{item.value}\t{item.help}\n" if item.help else f"{item.value}\n")
    sys.stdout.write(f":{NO_FILES if plain or not found else FILES}\n")
