"""A pytest plugin: no private key and no secret that the product makes may show in anything that a test leaves or others can see.

Always on. What is secret is learnt where it is made, here and in the programs that tests start (`taint_child/`); it is searched for,
in each form it may take (`taint_forms.py`), after each test in

    the log, at all levels; standard output and error; what failed, and every error of ours or expected by a test
    the outputs of programs that were collected; their arguments and environments, and those of all living descendants
    the files of its folder and of those that it, or a program, removes; metrics

and in all folders at the end. A leak fails the session; what is shown is the place, and never the value.
"""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from taint_forms import Taint, TaintSearch
from taint_hooks import FOLDER, REPORT, TOKEN, Hooks, program, scalar
from taint_places import Files, Leak, is_legitimate, live_programs

from vanadium_node.errors import VanadiumError


class TaintWatch:
    """What this session made and what it shows. It takes the reports of the hooks in this process."""

    def __init__(self, report: Path) -> None:
        self.search = TaintSearch()
        self.leaks: dict[Leak, None] = {}
        self.test = "the start"
        self.bytes = 0
        self.seconds = 0.0
        self._files = Files()
        self._report = report
        self._offset = 0
        self._made: list[tuple[str, Any]] = []
        self._seen: dict[tuple[str, bytes], None] = {}

    def learn(self, kind: str, value: Any) -> None:
        """Take note of something secret; it is looked at when there is time."""
        self._made.append((kind, value))

    def see(self, place: str, text: bytes) -> None:
        """Take note of a text that must not hold anything secret."""
        if text:
            self._seen[place, text] = None

    def see_folder(self, folder: str | Path) -> None:
        """Search the files of a folder, now."""
        with self._timed():
            self._catch_up()
            for place, data in self._files.contents(Path(folder)):
                self._check(place, data)

    def see_programs(self) -> None:
        """Take note of arguments and environments of what runs now."""
        with self._timed():
            for place, data in live_programs(os.getpid()):
                self.see(place, data)

    def check(self) -> None:
        """Search everything seen since the last time."""
        with self._timed():
            self._catch_up()
            seen, self._seen = self._seen, {}
            for place, data in seen:
                self._check(place, data)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    def _check(self, place: str, data: bytes) -> None:
        self.bytes += len(data)
        for found in self.search.find(data):
            if not is_legitimate(place, found.kind):
                self.leaks[Leak(place, found, self.test)] = None

    def _catch_up(self) -> None:
        """Make what was made here, and what children reported, something that is searched for."""
        made, self._made = self._made, []
        for kind, value in made:
            self.search.add(Taint.of(kind, value if isinstance(value, bytes | str) else scalar(value)))
        with self._report.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._take(line.decode().split("\t"))

    def _take(self, report: list[str]) -> None:
        """Take note of a line of a child."""
        what, name, data = report
        if what == "see":
            self.see(name, bytes.fromhex(data))
        else:
            value = bytes.fromhex(data)
            self.search.add(Taint.of(name, value.decode() if name == TOKEN else value))


class TaintPlugin:
    """Shows a watch what the tests of a session do."""

    def __init__(self, watch: TaintWatch) -> None:
        self._watch = watch

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Search what a test left once it is over."""
        self._watch.test = item.nodeid
        try:
            return (yield)
        finally:
            self._watch.check()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """Look at what still is there before fixtures remove it."""
        self._watch.see_programs()
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        if folder is not None:
            self._watch.see_folder(folder)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Look at what is shown of a test: its outputs, its log, its failure."""
        report = yield
        for name, text in report.sections:
            self._watch.see(name.lower(), text.encode(errors="replace"))
        if report.longrepr:
            self._watch.see("failure", report.longreprtext.encode(errors="replace"))
        if call.excinfo is not None:
            self._watch.see("error", error_text(call.excinfo.value))
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Search all folders again, and fail the session if anything leaked."""
        watch, factory = self._watch, getattr(session.config, "_tmp_path_factory", None)
        watch.test = "the end"
        if factory is not None and factory._basetemp is not None:
            watch.see_folder(factory._basetemp)
        watch.check()
        if watch.leaks:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the places."""
        watch = self._watch
        if watch.leaks:
            terminalreporter.section("secrets where none may be", red=True)
            for leak in watch.leaks:
                terminalreporter.line(str(leak))
        searched = f"{watch.bytes / 1e6:.0f} MB searched for {len(watch.search)} keys and secrets"
        terminalreporter.line(f"taint: {searched}, {len(watch.leaks)} leaks, {watch.seconds:.1f} s")


def pytest_configure(config: pytest.Config) -> None:
    """Watch this session and its children."""
    file, name = tempfile.mkstemp(prefix="taint-")
    os.close(file)
    watch = TaintWatch(Path(name))
    patches = pytest.MonkeyPatch()
    patches.setenv(REPORT, name)
    patches.setenv("PYTHONPATH", FOLDER, prepend=os.pathsep)
    Hooks(watch).install()
    watch_errors(watch, patches)
    watch_log(watch, patches)
    watch_outputs(watch, patches)
    config.add_cleanup(patches.undo)
    config.add_cleanup(Path(name).unlink)
    config.pluginmanager.register(TaintPlugin(watch), "taint")


def error_text(error: BaseException) -> bytes:
    """Return all that an error says of itself."""
    return f"{error}\n{error!r}\n{error.args!r}".encode(errors="replace")


def watch_errors(watch: TaintWatch, patches: pytest.MonkeyPatch) -> None:
    """See each error of the product as it is made, and each error that a test expects."""
    make, expect = VanadiumError.__init__, pytest.RaisesExc.__exit__

    def __init__(self: VanadiumError, message: str, *, hint: str = "") -> None:  # noqa: N807 - it stands in for one
        make(self, message, hint=hint)
        watch.see("error", f"{message}\n{hint}".encode(errors="replace"))

    def __exit__(self: Any, kind: Any, error: BaseException | None, trace: Any) -> Any:  # noqa: N807 - as above
        if error is not None:
            watch.see("error", error_text(error))
        return expect(self, kind, error, trace)

    patches.setattr(VanadiumError, "__init__", __init__)
    patches.setattr(pytest.RaisesExc, "__exit__", __exit__)


def watch_log(watch: TaintWatch, patches: pytest.MonkeyPatch) -> None:
    """See the lines of the product's log for which no test has set the level, too."""

    def watched(level: int, log: Callable[..., None]) -> Callable[..., None]:
        def method(self: logging.Logger, message: str, *args: Any, **named: Any) -> None:
            if self.name.startswith("vanadium_node") and not self.isEnabledFor(level):
                watch.see("log", (message % args if args else message).encode(errors="replace"))
            named["stacklevel"] = named.get("stacklevel", 1) + 1
            log(self, message, *args, **named)

        return method

    patches.setattr(logging.Logger, "debug", watched(logging.DEBUG, logging.Logger.debug))
    patches.setattr(logging.Logger, "info", watched(logging.INFO, logging.Logger.info))


def watch_outputs(watch: TaintWatch, patches: pytest.MonkeyPatch) -> None:
    """See what programs print that are run to their end."""
    collect = subprocess.Popen.communicate

    def communicate(self: Any, *args: Any, **named: Any) -> Any:
        result = collect(self, *args, **named)
        words = [self.args] if isinstance(self.args, str | bytes | os.PathLike) else list(self.args)
        for name, text in zip(("output", "error output"), result, strict=True):
            if text:
                data = text.encode(errors="replace") if isinstance(text, str) else text
                watch.see(f"{name} of {program(words)}", data)
        return result

    patches.setattr(subprocess.Popen, "communicate", communicate)
