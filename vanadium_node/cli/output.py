"""How results and talk reach people and machines: results on standard output, talk on standard error.

Output is plain and stable when piped and may be richer on a terminal; `is_terminal()` tells which.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    import trio
    from rich.console import Console

P = ParamSpec("P")
T = TypeVar("T")

INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as shells have it: 128 + SIGINT."""


EXIT_STATUS: Final = "Exit status: 0 done; 1 failed, with the reason and the next step on standard error; 2 wrong usage; 130 interrupted."
"""The end of each help text that lists commands."""


def is_terminal() -> bool:
    """Tell whether a person is looking at standard output."""
    return sys.stdout.isatty()


def emit(text: str) -> None:
    """Write one line, or a block that ends itself, of a command's result to standard output.

    Raises:
        StorageError: it cannot be written.
        BrokenPipeError: nobody reads any more.
    """
    try:
        click.echo(text, nl=not text.endswith("\n"))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        from vanadium_node.storage.files import storage_error  # only on the way to an error

        drop_output()
        raise storage_error("write", Path("standard output"), error) from error


def drop_output() -> None:
    """Let nothing that could not be written be tried again when the process ends."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as long as the process lives


def emit_json(value: object) -> None:
    """Write a command's result for machines: one JSON document, keys in the order given."""
    emit(json.dumps(value, indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """Tell the person at the keyboard something that is not the result."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Tell the person at the keyboard about something to look at."""
    note(f"WARNING: {text}")


def console() -> Console:
    """Return a rich console on standard output; rich is imported only for people."""
    from rich.console import Console as RichConsole  # 40 ms that piped commands do not need

    return RichConsole(highlight=False, soft_wrap=True)


class Interrupted(Exception):
    """The person pressed Ctrl-C (or SIGTERM came), and the command has cleaned up."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` at Ctrl-C and SIGTERM, so that the cleanup of what is no async function runs."""

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_async(function: Callable[P, Coroutine[object, object, T]]) -> Callable[P, T]:
    """Make an async function a command: run it with trio, and unwrap a single error from its nurseries.

    SIGINT (Ctrl-C) and SIGTERM cancel the function, so that its cleanup runs, and `Interrupted` is raised; a second one
    ends the process at once. A daemon that wants to end well on SIGTERM opens a signal receiver of its own.
    """

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> T:
        import trio  # 100 ms that `--help` does not need

        async def main() -> T:
            async with trio.open_nursery() as nursery:
                await nursery.start(_cancel_on_signal, nursery.cancel_scope)
                result = await function(*args, **kwargs)
                nursery.cancel_scope.cancel()
                return result
            raise Interrupted

        with single_error():
            return trio.run(main)

    return command


async def _cancel_on_signal(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    """Cancel `scope` at the first SIGINT or SIGTERM; leaving the receiver makes a second one act as if unhandled."""
    import trio

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(aiter(signals))
        scope.cancel()


@contextmanager
def single_error() -> Iterator[None]:
    """Turn a group of exceptions that holds one of ours into that one: commands fail for one reason."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise _leaf(group) from None


def _leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    from vanadium_node.errors import VanadiumError

    leaves: list[BaseException] = []
    pending: list[BaseException] = [group]
    while pending:
        error = pending.pop()
        if isinstance(error, BaseExceptionGroup):
            pending.extend(reversed(error.exceptions))
        else:
            leaves.append(error)
    usual = (click.ClickException, click.exceptions.Exit, click.Abort, Interrupted, KeyboardInterrupt, BrokenPipeError)
    expected = (VanadiumError, *usual)
    known = [error for error in leaves if isinstance(error, expected)]
    return known[0] if len(known) == len(leaves) else group
