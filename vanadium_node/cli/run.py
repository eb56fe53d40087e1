"""`vanadium-node run`: run a command as a fresh principal that the current one blessed."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import click
import trio

from vanadium_node.agent.identity import AGENT_PATH, CREDENTIALS
from vanadium_node.agent.passing import blessed_principal, served_privately
from vanadium_node.cli.cores import CoreSettings, leave_no_core
from vanadium_node.cli.output import note, single_error
from vanadium_node.cli.principal import to_extend, with_caveats, with_source
from vanadium_node.cli.principal_caveats import caveats_from
from vanadium_node.cli.principal_input import own_principal
from vanadium_node.errors import clip
from vanadium_node.security.caveat import Caveat, CaveatId

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
"""Exit statuses of shells for commands that cannot be run."""

LIFETIME: Final = "1h"

FORWARDED: Final = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2
)  # fmt: skip
FROM_KEYBOARD: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
"""The terminal sends these to every process in its foreground, the command included."""


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--name", "extension", required=True, metavar="EXTENSION", help="The command is OWN-NAME:EXTENSION.")
@with_caveats
@with_source
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND [ARGUMENT]...")
@click.pass_context
def command(
    context: click.Context, words: tuple[str, ...], extension: str, caveats: list[Caveat], source: str | None
) -> None:
    """Run COMMAND as a fresh principal that the current one has blessed with EXTENSION, and exit as it does.

    Its key is in the memory of this process alone. COMMAND reaches it through V23_AGENT_PATH, as it would a pod agent, and no
    other credentials; when COMMAND ends, nothing is left. Without --for it expires after an hour.
    """
    leave_no_core()
    cores = context.find_object(CoreSettings) or CoreSettings.current()
    with single_error():
        context.exit(trio.run(_run, words, extension, caveats, source, cores))


async def _run(
    words: Sequence[str], extension: str, caveats: Sequence[Caveat], source: str | None, cores: CoreSettings
) -> int:
    async with own_principal() as parent:
        child = await blessed_principal(parent, to_extend(parent, source), extension, _ending(caveats))
    with trio.open_signal_receiver(*FORWARDED) as signals:
        async with served_privately(child) as socket:
            return await _exit_status(words, signals, _environment(os.fspath(socket)), cores)


def _ending(caveats: Sequence[Caveat]) -> Sequence[Caveat]:
    """Return the caveats, and an end after the default lifetime where they have none."""
    if any(caveat.id == CaveatId.EXPIRY for caveat in caveats):
        return caveats
    return [*caveats, *caveats_from(LIFETIME, ())]


def _environment(socket: str) -> Mapping[str, str]:
    """Return this environment with the new principal in the place of the current one."""
    return {**{name: value for name, value in os.environ.items() if name != CREDENTIALS}, AGENT_PATH: socket}


async def _exit_status(
    words: Sequence[str], signals: AsyncIterator[int], environment: Mapping[str, str], cores: CoreSettings
) -> int:
    """Run a command, pass signals on to it, and return its exit status as shells do. It may leave the cores that it could before."""
    try:
        process = await trio.lowlevel.open_process(list(words), env=environment)
    except FileNotFoundError:
        return _cannot_run(words[0], "there is no such command", NOT_FOUND)
    except OSError as error:
        return _cannot_run(words[0], error.strerror or str(error), NOT_EXECUTABLE)
    cores.give(process.pid)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_forward, signals, process)
        status = await process.wait()
        nursery.cancel_scope.cancel()
    return 128 - status if status < 0 else status


async def _forward(signals: AsyncIterator[int], process: trio.Process) -> None:
    async for number in signals:
        if not (number in FROM_KEYBOARD and _is_in_foreground()):
            process.send_signal(number)


def _is_in_foreground() -> bool:
    """Tell whether what is typed at the terminal, if there is one, is meant for this process and its command."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _cannot_run(name: str, why: str, status: int) -> int:
    note(f"vanadium-node: cannot run '{clip(name, 200)}': {why}")
    return status
