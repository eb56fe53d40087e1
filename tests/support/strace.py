"""Making system calls of real programs fail, or kill the program at the N-th one, with strace."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

LEAVING_SECONDS = 3.0

CHANGES = ("openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "rename", "unlink", "mkdir")
"""System calls that change what is on a disk, as this project's programs make them on Linux."""

_FORMS = {"rename": "?rename,?renameat,?renameat2", "unlink": "?unlink,?unlinkat", "mkdir": "?mkdir,?mkdirat"}
"""What some calls are on other processors; strace does not mind those that are not there."""


def kill_at(call: str, number: int) -> str:
    """Return the injection that kills a program at the N-th call of a kind, counted in each thread."""
    return f"inject={_FORMS.get(call, call)}:signal=KILL:when={number}"


def fail_with(error: str, *calls: str, when: str = "1+") -> str:
    """Return the injection that fails calls of some kinds: all, or those that `when` says, such as the third, or `2+3`."""
    return f"inject={','.join(calls)}:error={error}:when={when}"


def command(injection: str, paths: Sequence[Path] = (), options: Sequence[str] = ("-o", "/dev/null")) -> list[str]:
    """Return the start of a command line that runs a program under strace; only calls with one of the paths count."""
    of_paths = [part for path in paths for part in ("-P", str(path))]
    return ["strace", "-f", "-qq", *options, *of_paths, "-e", injection]


@contextmanager
def attached(
    pid: int, injection: str, options: Sequence[str] = ("-o", "/dev/null"), paths: Sequence[Path] = ()
) -> Iterator[None]:
    """Have a running program's calls, or those with one of the paths, counted and injected from now on until the block is left."""
    strace = subprocess.Popen(
        [*command(injection, paths, options), "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not _is_traced(pid):
            if strace.poll() is not None or time.monotonic() > deadline:
                said = strace.communicate()[1].decode() if strace.poll() is not None else "it takes too long"
                pytest.fail(f"strace cannot attach: {said}")
            time.sleep(0.01)
        yield
    finally:
        if strace.poll() is None:
            strace.send_signal(signal.SIGINT)
        try:
            strace.communicate(timeout=LEAVING_SECONDS)
        except subprocess.TimeoutExpired:  # it sometimes waits for a thread that the killed program no longer has
            strace.kill()
            strace.communicate()


def _is_traced(pid: int) -> bool:
    """Tell whether all threads of a process are traced."""
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0\n" not in status for status in statuses)
