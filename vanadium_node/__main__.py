"""The roof: which command is meant, and how the process ends."""

import os
import sys
from collections.abc import Sequence

from vanadium_node.cli.app import app, with_role
from vanadium_node.cli.running import run


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `vanadium-node ARGUMENTS…` (default: the process's own) and exit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(app, with_role(given, os.environ.get("VANADIUM_ROLE")), "vanadium-node"))


if __name__ == "__main__":
    main()
