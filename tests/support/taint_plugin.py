"""Fails each test in which a private key or a secret comes to stand where it must not: in a log, output, report or error,
an argument or the environment of a process, a metric, an audit line, or a file that is not made to hold it.

A test whose point it is to show one is marked `tainted(reason)`.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from taints import Taints

LEARNING = Path(__file__).parent / "learning"
MADE_FOR_IT = ("private-key.pem", ".private-key.pem.*", "secret*", "*.key", "*.tar")
"""Files that hold them rightly: credentials, secrets as pods mount them, backups."""
MAX_FILE_BYTES = 300_000

TAINTS = Taints()
FOLDERS: list[Path] = []
"""Where the processes of the running test write."""
_seen: list[tuple[str, bytes]] = []
_written: Path | None = None


def see(place: str, text: str | bytes) -> None:
    """Take note of something that the test, or what it runs, has shown to others."""
    _seen.append((place, text.encode(errors="replace") if isinstance(text, str) else text))


def find_in_test(item: pytest.Item, report: pytest.TestReport) -> str:
    """Return what stands where, of all that a test has shown; empty where nothing does."""
    if _written is not None:
        TAINTS.learn_from(_written)
    shown = _taken()
    if not len(TAINTS):
        return ""
    for place, text in (*shown, *_reported(report), *_files(item)):
        found = TAINTS.find(text)
        if found:
            return f"{found} stands in {place}"
    return ""


def _taken() -> list[tuple[str, bytes]]:
    taken = list(dict.fromkeys(_seen))
    _seen.clear()
    return taken


def _reported(report: pytest.TestReport) -> Iterator[tuple[str, bytes]]:
    for title, content in report.sections:
        yield f"'{title}'", content.encode(errors="replace")
    if report.longrepr is not None:
        yield "the report of the test", str(report.longrepr).encode(errors="replace")


def _files(item: pytest.Item) -> Iterator[tuple[str, bytes]]:
    arguments: Mapping[str, Any] = getattr(item, "funcargs", {})
    folders = [*FOLDERS, *(each for each in arguments.values() if isinstance(each, Path) and each.is_dir())]
    for path in {path for folder in folders if folder.is_dir() for path in folder.rglob("*")}:
        if not any(fnmatch(path.name, made) for made in MADE_FOR_IT):
            try:
                if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
                    yield f"the file {path.name}", path.read_bytes()
            except OSError:
                continue  # it went meanwhile, as sockets and logs do


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Search what the test has shown, before its folders are removed."""
    report = yield
    if call.when != "teardown":
        found = find_in_test(item, report)
        if found and not item.get_closest_marker("tainted"):
            report.outcome = "failed"
            report.longrepr = f"TAINTED: {found}"
    return report


def pytest_configure() -> None:
    """Learn of keys and secrets in this process and in those that it starts, and see what errors and processes are given."""
    global _written  # noqa: PLW0603 - one session, one folder
    _written = Path(tempfile.mkdtemp(prefix="taints-"))
    atexit.register(shutil.rmtree, _written, ignore_errors=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(LEARNING), os.environ.get("PYTHONPATH"))))
    spec = importlib.util.spec_from_file_location("taint_learning", LEARNING / "sitecustomize.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("the plugin's own file is missing")
    learning = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(learning)
    os.environ["TAINTS_FOLDER"] = str(_written)
    for name, watch in learning.WATCHED.items():
        watch(importlib.import_module(name), TAINTS.learn)
    _watch_errors()
    sys.addaudithook(_audit)


def _watch_errors() -> None:
    """See the text of each error of this project as it is made, whoever catches it."""
    from vanadium_node.errors import VanadiumError

    original = VanadiumError.__init__

    def init(self: VanadiumError, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        see(f"the text of a {type(self).__name__}", f"{arguments} {options}")

    VanadiumError.__init__ = init  # type: ignore[method-assign]


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """See what processes are started with."""
    if event == "subprocess.Popen":
        _executable, words, _folder, environment = arguments
        see("the arguments of a process", repr(words))
        see("the environment of a process", repr(dict(os.environ if environment is None else environment)))


__all__ = ["pytest_configure", "pytest_runtest_makereport"]
