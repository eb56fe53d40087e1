"""Python runs this at the start of each program that the tests start, directly or not: it reports what must stay secret there.

Reports go to a file that only the tests read. A line is `learn` or `see`, what or where, and the bytes as hex, separated by tabs.
"""

import os
import sys
from typing import Any

from taint_hooks import Hooks, program, read_file, scalar

LARGEST_FILE = 1024 * 1024


class _File:
    """Appends to the report; a process that cannot (its writes are made to fail by a test) goes on all the same."""

    def __init__(self, path: str) -> None:
        self._path = path

    def learn(self, kind: str, value: Any) -> None:
        """Report something that must stay secret."""
        if not isinstance(value, bytes | str):
            value = scalar(value)
        self._write("learn", kind, value.encode() if isinstance(value, str) else value)

    def see(self, place: str, text: bytes) -> None:
        """Report a text that others can see."""
        self._write("see", place, text)

    def see_folder(self, folder: str) -> None:
        """Report all files in a folder."""
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)  # noqa: PTH118 - pathlib costs every child 5 ms
                data = read_file(path, LARGEST_FILE)
                if data:
                    self._write("see", f"file {path}", data)

    def _write(self, what: str, name: str, data: bytes) -> None:
        line = f"{what}\t{name.encode('unicode_escape').decode()}\t{data.hex()}\n".encode()
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        except OSError:
            pass


def _report(path: str) -> None:
    report = _File(path)
    name = program(sys.orig_argv)
    report.see(f"arguments of {name}", "\0".join(sys.orig_argv).encode("utf-8", "surrogateescape"))
    report.see(f"environment of {name}", b"\0".join(v for v in os.environb.values()))
    Hooks(report).install()


if os.environ.get("TAINT_REPORT"):
    _report(os.environ["TAINT_REPORT"])
