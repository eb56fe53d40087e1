"""Where a key or a secret may be: a short list, by name, each with the reason. Everywhere else it is a leak."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from taint_forms import Found
from taint_hooks import KEY, SECRET, TOKEN, read_file

LARGEST_FILE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Legitimate:
    """A place (its whole name, as a regular expression) that is there to hold something of a kind, and why."""

    place: str
    kind: str
    why: str


LEGITIMATE = (
    Legitimate(r"file .*/private-key\.pem", KEY, "the key file of a credentials directory"),
    Legitimate(
        r"file .*/\.private-key\.pem\.[0-9a-f]{8}", KEY, "the same, before it takes its place; a crash leaves it"
    ),
    Legitimate(
        r"file .*/backup\.tar",
        KEY,
        "a cluster agent's backup, which is private: without its key it would be another one",
    ),
    Legitimate(r"file .*/tls\.key", KEY, "the key file of the embedded API"),
    Legitimate(r"file .*/kubeconfig", TOKEN, "how the embedded API's clients prove themselves"),
    Legitimate(r"file .*/p/\d+/\d+/\.\.\d+/secret", SECRET, "the volume of a Secret in a pod of the embedded cluster"),
    Legitimate(r"file .*/va-[^/]+/secret(-\d+)?", SECRET, "the same, for pod agents that tests start by themselves"),
    Legitimate(r"file .*/vb-[^/]+/secret", SECRET, "the same, for the pod agent that the benchmark starts"),
    Legitimate(r"file .*/rpc-benchmark-[^/]+/(server|client)\.key", KEY, "the keys of grpcio's TLS in the benchmark"),
    Legitimate(
        r"file .*/control-plane\d+/etcd/member/.*", SECRET, "a real API server's store, which keeps its Secrets"
    ),
    Legitimate(r"output of vanadium-node secret new .*", SECRET, "the answer of the command that makes one"),
)


@dataclass(frozen=True, slots=True)
class Leak:
    """Something secret that is where it may not be; what it is, is not shown."""

    place: str
    found: Found
    test: str

    def __str__(self) -> str:
        return f"{self.place}: a {self.found.kind} as {self.found.form} (seen at {self.test})"


def is_legitimate(place: str, kind: str) -> bool:
    """Tell whether something of a kind may be there."""
    return any(kind == known.kind and re.fullmatch(known.place, place) for known in LEGITIMATE)


class Files:
    """Reads the files of folders, each again only when it has changed."""

    def __init__(self) -> None:
        self._read: set[tuple[int, int, int, int]] = set()

    def contents(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        """Yield the name of each regular file that was not read like this before, and what is in it."""
        for place, _, names in os.walk(folder):
            for name in names:
                data = self._content(Path(place, name))
                if data:
                    yield f"file {place}/{name}", data

    def _content(self, path: Path) -> bytes:
        """Return the content of a file; none, if it cannot be read or was before."""
        try:
            stat = path.lstat()
        except OSError:
            return b""
        state = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if state in self._read:
            return b""
        self._read.add(state)
        return read_file(str(path), LARGEST_FILE)


def live_programs(ancestor: int) -> Iterator[tuple[str, bytes]]:
    """Yield arguments and environment of each living descendant of a process."""
    for pid in _children(ancestor):
        for name, what in (("cmdline", "arguments"), ("environ", "environment")):
            try:
                data = Path(f"/proc/{pid}/{name}").read_bytes()
                program = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:  # it has ended meanwhile
                continue
            yield f"{what} of process {program}", data
        yield from live_programs(pid)


def _children(pid: int) -> list[int]:
    """Return the children of a process, whichever thread has started them."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - after each test: it is twice as fast
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except OSError:
        return []
    return found
