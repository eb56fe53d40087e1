"""How daemons run: options for their settings, one log line per event on standard error, signals that drain."""

import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import trio

from vanadium_node.cli.cores import leave_no_core
from vanadium_node.cli.first_process import bury_orphans
from vanadium_node.cli.log_lines import set_up_logging
from vanadium_node.cli.output import emit, single_error
from vanadium_node.config import LogFormat, LogLevel, load_with_sources, settings_of, to_toml
from vanadium_node.errors import VanadiumError

_log: Final = logging.getLogger(__name__)
MAX_FILES: Final = 1 << 16
"""Open files that a daemon makes use of: its limits of connections, and more."""

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Daemon = Callable[[trio.Event], Coroutine[object, object, None]]
"""Serves until the event is set, then ends well."""

Serve = Callable[..., Coroutine[object, object, None]]
"""The same with settings first, `stop` for the event, and `task_status`, to which it reports once that it serves, and where."""


def settings_options(role: type) -> Callable[[F], F]:
    """Give a command an option for each setting of a role, `--config` and `--print-config`."""

    def decorate(function: F) -> F:
        for declared in reversed(settings_of(role)):
            given_by = f" [{declared.environment}]" if declared.environment else ""
            metavar = declared.name.rpartition("-")[2].upper()
            option = click.option(*declared.flags, declared.field, metavar=metavar, help=declared.help + given_by)
            function = option(function)
        printing = click.option(
            "--print-config",
            is_flag=True,
            help="Print the settings in effect, and where each comes from, as TOML, and end.",
        )
        config = click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings, as TOML.")
        return config(printing(function))

    return decorate


def load_settings(role: type[T], options: dict[str, Any]) -> T | None:
    """Return the settings that the options of `settings_options` give; None after printing them.

    Raises:
        ConfigurationError: one is missing or wrong.
    """
    file, is_printed = options.pop("config"), options.pop("print_config")
    flags = {name.replace("_", "-"): value for name, value in options.items()}
    settings, sources = load_with_sources(role, flags=flags, environment=os.environ, file=file)
    if is_printed:
        emit(to_toml(settings, sources))
        return None
    return settings


class Announcement(trio.TaskStatus[T]):
    """Prints a line once the daemon serves; one that is asked to end before it does prints none."""

    def __init__(self, line: Callable[[T], str]) -> None:
        self._line = line

    def started(self, value: T | None = None) -> None:
        """Print the line."""
        if value is not None:
            emit(self._line(value))


def serve_daemon(role: type, options: dict[str, Any], run: Serve, line: Callable[[T], str]) -> None:
    """Run the daemon of a role with the settings that the options of `settings_options` give; print a line once it serves.

    Raises:
        VanadiumError: a setting is missing or wrong, or what the daemon ends with.
    """
    settings: Any = load_settings(role, options)
    if settings is not None:
        daemon = partial(run, settings, task_status=Announcement(line))
        run_daemon(lambda stop: daemon(stop=stop), settings.log_format, settings.log_level)


def run_daemon(daemon: Daemon, log_format: LogFormat = LogFormat.TEXT, log_level: LogLevel = LogLevel.INFO) -> None:
    """Run a daemon until it ends; the first SIGTERM or SIGINT asks it to, a second one ends the process at once.

    A process with keys leaves no core behind. A daemon has no children of its own.
    """
    bury_orphans()
    leave_no_core()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it starts nobody who might want one
    _allow_files()
    set_up_logging(log_format, log_level)
    try:
        with single_error():
            trio.run(_supervise, daemon)
    except VanadiumError as error:
        if log_format is not LogFormat.JSON:
            raise
        _log.critical("%s", error)  # who reads JSON lines reads this one too
        sys.exit(1)


def _allow_files() -> None:
    """Let the process have as many connections as it may: the soft limit is for programs that number files in a bitmap."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _supervise(daemon: Daemon) -> None:
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_at_signal, signals, stop)
            await daemon(stop)
            nursery.cancel_scope.cancel()


async def _stop_at_signal(signals: AsyncIterator[int], stop: trio.Event) -> None:
    """Set the event at the first signal. As PID 1 nothing ends a process but itself, so the second one is handled too."""
    async for number in signals:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
