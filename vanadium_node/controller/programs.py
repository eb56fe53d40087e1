"""Running programs of others: what they print is bounded, and how they fail becomes one sentence with the next step."""

import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import Final

import trio

from vanadium_node.errors import ConfigurationError, clip

MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024
MAX_WORDS_BYTES: Final = 64 * 1024
"""How much of what a program says on standard error is kept."""

END_SECONDS: Final = 5.0
"""How long a program has to end well after Ctrl-C."""

READ_BYTES: Final = 64 * 1024


def is_installed(program: str) -> bool:
    """Tell whether a program, by name or path, can be run."""
    return shutil.which(program) is not None


async def output_of(
    command: Sequence[str], *, doing: str, install: str, hint: str, max_bytes: int = MAX_OUTPUT_BYTES
) -> bytearray:
    """Run a program with this process's standard input and return what it prints on standard output.

    `doing` says in a message what was attempted (`decrypt 'x.gpg'`), `install` what to do where the program is missing, `hint`
    where it fails. What it printed on standard output never gets into a message.

    Raises:
        ConfigurationError: the program is not there, fails, or prints more than `max_bytes`.
    """
    printed, said = bytearray(), bytearray()
    async with _running(command, doing, install, output=PIPE) as process:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, process.stderr, said, MAX_WORDS_BYTES)
            await _keep(process.stdout, printed, max_bytes)
        status = await process.wait()
    if len(printed) > max_bytes:
        raise ConfigurationError(f"cannot {doing}: '{command[0]}' prints more than {max_bytes} bytes", hint=hint)
    _check(status, command, doing, bytes(said), hint)
    return printed


async def run_in_view(command: Sequence[str], *, doing: str, install: str, hint: str) -> None:
    """Run a program whose output is for the user, on standard error: standard output is for this command's own result.

    Raises:
        ConfigurationError: the program is not there, or fails.
    """
    sys.stderr.flush()
    async with _running(command, doing, install, output=None) as process:
        status = await process.wait()
    _check(status, command, doing, b"", hint)


@asynccontextmanager
async def _running(command: Sequence[str], doing: str, install: str, output: int | None) -> AsyncIterator[trio.Process]:
    """Give the running program; it does not outlive the block."""
    try:
        out = sys.stderr.fileno() if output is None else output
        process = await trio.lowlevel.open_process(list(command), stdin=None, stdout=out, stderr=output)
    except OSError as error:
        why = f"'{command[0]}' is not installed or cannot be run ({error.strerror})"
        raise ConfigurationError(f"cannot {doing}: {why}", hint=install) from error
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    await pipe.aclose()


async def _end(process: trio.Process) -> None:
    """Ask a program that still runs to end, and end it when it takes too long."""
    if process.returncode is None:
        process.terminate()
        with trio.move_on_after(END_SECONDS):
            await process.wait()
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _keep(pipe: trio.abc.ReceiveStream | None, kept: bytearray, limit: int) -> None:
    """Read to the end; keep no more than a little above the limit."""
    while pipe is not None and (data := await pipe.receive_some(READ_BYTES)):
        if len(kept) <= limit:
            kept += data


def _check(status: int, command: Sequence[str], doing: str, said: bytes, hint: str) -> None:
    if status == 0:
        return
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    words = f": {clip(' | '.join(lines[-3:]))}" if lines else ""
    how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
    raise ConfigurationError(f"cannot {doing}: '{command[0]}' {how}{words}", hint=hint)
