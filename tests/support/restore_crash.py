"""Restore a backup over and over, each time in a process that dies before its N-th change of the file system.

`python restore_crash.py BACKUP FOLDER` prints one JSON line per N: what is there then, and after a second attempt. N grows until a
restore ends well.
"""

import json
import os
import sys
from pathlib import Path

import trio
from claim_crash import DIED, die_at, in_child

from vanadium_node.cluster_agent import run
from vanadium_node.cluster_agent.backup import restore
from vanadium_node.cluster_agent.server import RESTORING
from vanadium_node.config import ClusterAgentSettings
from vanadium_node.errors import StorageError, VanadiumError


def try_again(backup: Path, directory: Path) -> str:
    """Restore; return why it was refused."""
    try:
        with backup.open("rb") as source:
            restore(source, directory)
    except StorageError as error:
        return str(error)
    return ""


def start(directory: Path) -> str:
    """Start an agent, which ends; return why."""
    try:
        trio.run(run, ClusterAgentSettings(root_dir=directory, listen="127.0.0.1:0"))
    except VanadiumError as error:
        return str(error)
    return ""


def main() -> None:
    """Try every N."""
    backup, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for number in range(1, 200):
        directory = folder / str(number)

        def work(number: int = number, directory: Path = directory) -> None:
            die_at(number, directory)
            with backup.open("rb") as source:
                restore(source, directory)

        status = in_child(work)
        found = sorted(os.listdir(directory)) if directory.exists() else []  # noqa: PTH208
        refusal = start(directory) if RESTORING in found else ""
        again = try_again(backup, directory)
        left = sorted(os.listdir(directory))  # noqa: PTH208
        print(json.dumps({"found": found, "refusal": refusal, "again": again, "left": left}), flush=True)
        if status != DIED:
            return


if __name__ == "__main__":
    main()
