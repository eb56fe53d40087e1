"""The roof: which command is meant, and how the process ends."""

import os
import sys
from collections.abc import Sequence

from vanadium_node.cli.app import COMPLETION_VARIABLE, app, load, with_role
from vanadium_node.cli.first_process import end_at_early_signals
from vanadium_node.cli.running import run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `vanadium-node ARGUMENTS…` (default: the process's own) and exit."""
    end_at_early_signals()
    if COMPLETION_VARIABLE in os.environ:
        from vanadium_node.cli.completion import answer_quietly

        answer_quietly()
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(app, with_role(given, os.environ.get("VANADIUM_ROLE")), "vanadium-node"))


def kubectl_plugin() -> None:
    """Run `kubectl vanadium …`, which is `vanadium-node controller …`, and exit."""
    sys.exit(run(load("controller"), sys.argv[1:], "kubectl vanadium"))


def kubectl_completion() -> None:
    """Answer kubectl, which asks what can follow `kubectl vanadium …`."""
    from vanadium_node.cli.completion import complete_for_kubectl

    complete_for_kubectl(load("controller"), sys.argv[1:])


if __name__ == "__main__":
    main()
