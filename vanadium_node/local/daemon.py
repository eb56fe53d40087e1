"""The process of an embedded cluster: `python -m vanadium_node.local.daemon DIRECTORY READY` (READY: a file descriptor).

It leaves its parent, serves until SIGTERM, and says on READY that it serves or why it cannot: one JSON line.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from vanadium_node.errors import VanadiumError
from vanadium_node.local.cluster import AlreadyUpError
from vanadium_node.local.directory import ClusterDirectory
from vanadium_node.local.running import RunningCluster, running_cluster

END_SECONDS: Final = 8
"""After so long without an end the process is ended by the kernel: a client that does not read can hold its connection."""

_log = logging.getLogger(__name__)


async def serve(directory: Path, *, port: int | None, ready: Callable[[RunningCluster], None]) -> None:
    """Run a cluster in this process until SIGTERM, SIGINT or SIGHUP; tell when it answers.

    Raises:
        AlreadyUpError: another process runs one in this directory.
        VanadiumError: the directory or the port cannot be used.
    """
    files = ClusterDirectory(directory)
    files.make()
    lock = files.lock()
    if lock is None:
        raise AlreadyUpError(directory)
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with running_cluster(directory, port=port) as cluster:
                ready(cluster)
                number = await anext(aiter(signals))
                _log.warning("ending the cluster on %s", signal.Signals(number).name)
                signal.alarm(END_SECONDS)
    finally:
        os.close(lock)


def main() -> None:
    """Leave the parent, run the cluster, and report on the descriptor given."""
    directory, channel = Path(sys.argv[1]), int(sys.argv[2])
    port = int(sys.argv[3]) if len(sys.argv) > 3 else None
    if os.fork():
        os._exit(0)
    os.setsid()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)

    def report(**message: object) -> None:
        with suppress(OSError):  # whoever started us may have gone
            os.write(channel, json.dumps(message).encode() + b"\n")
            os.close(channel)

    try:
        trio.run(_serve, directory, port, lambda cluster: report(port=cluster.port))
    except* VanadiumError as group:
        error = _first(group)
        _log.error("%s", error)
        report(error=error.message, hint=error.hint)
        sys.exit(1)


async def _serve(directory: Path, port: int | None, ready: Callable[[RunningCluster], None]) -> None:
    await serve(directory, port=port, ready=ready)


def _first(group: BaseExceptionGroup[VanadiumError]) -> VanadiumError:
    """Return the first error in a group of errors."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


if __name__ == "__main__":
    main()
