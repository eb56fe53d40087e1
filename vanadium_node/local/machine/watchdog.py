"""A process that outlives the machine by a moment: when the machine dies, however suddenly, it kills what the machine ran.

It reads `+GROUP` and `-GROUP` lines (process groups that began and ended) from a pipe. The pipe's end is the machine's end.
Run as a script of its own, with the standard library alone, so that it is small and starts fast.
"""

import os
import signal
import sys


def watch(lines: list[str] | None = None) -> set[int]:
    """Follow the lines on standard input to their end, and return the groups that are left."""
    groups: set[int] = set()
    for line in sys.stdin if lines is None else lines:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    return groups


def main() -> None:
    """Outlive the machine's signals, then end its processes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for group in watch():
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


if __name__ == "__main__":
    main()
