"""`vanadium-node agent`: keep a principal's key in one process, for all programs of its owner."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import trio

from vanadium_node.agent.directory import AgentStatus, serve_directory
from vanadium_node.agent.identity import CREDENTIALS, check_socket_path
from vanadium_node.agent.on_demand import is_served
from vanadium_node.cli.asking import ask_passphrase
from vanadium_node.cli.daemon import run_daemon
from vanadium_node.cli.output import emit, emit_json, note, run_async
from vanadium_node.config import format_duration, parse_duration
from vanadium_node.errors import ConfigurationError, StorageError, UnreachableError, VanadiumError
from vanadium_node.rpc import Client, connect
from vanadium_node.storage.credentials import CredentialsDirectory

if TYPE_CHECKING:
    from vanadium_node.security.principal import Principal

ANSWER_SECONDS: Final = 5.0
START_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 0.02
READY: Final = "ready"
MAX_REASON_BYTES: Final = 4096
IDLE_TIMEOUT: Final = "15m"

with_directory = click.argument(
    "path", metavar="[DIR]", required=False, envvar=CREDENTIALS, type=click.Path(path_type=Path)
)


@click.group()
def command() -> None:
    """Keep a principal's key in one process, so that its passphrase is asked for once.

    The agent of a credentials directory serves its principal on DIR/agent/sock, to the directory's owner alone. Commands with
    V23_CREDENTIALS=DIR use it; where the key is encrypted they start it, and it ends when nobody has used it for a while.
    DIR is the directory that V23_CREDENTIALS names, if none is given.
    """


@command.command()
@click.option(
    "--idle-timeout", default=IDLE_TIMEOUT, show_default=True, metavar="DURATION",
    help="End when nobody has used it for so long; 0: never.",
)  # fmt: skip
@click.option("--foreground", is_flag=True, help="Serve in this process, until SIGTERM or Ctrl-C.")
@click.option("--passphrase-stdin", is_flag=True, help="Read the passphrase from standard input.")
@with_directory
def start(path: Path | None, idle_timeout: str, foreground: bool, passphrase_stdin: bool) -> None:
    """Start the agent of DIR, if it is not running, and print where it serves."""
    directory = _directory(path)
    idle = parse_duration(idle_timeout)
    check_socket_path(directory.agent_socket)
    lock = None
    if not is_served(directory.agent_socket):
        principal = directory.open(_from_stdin if passphrase_stdin else _from_terminal)
        lock = _lock_or_wait(directory)
    if lock is None:
        note(f"An agent serves '{directory.path}' already.")
        _announce(directory.agent_socket)
    elif foreground:
        _serve(directory, principal, idle, _announce)
    else:
        _detached(lambda ready: _serve(directory, principal, idle, ready))
        _announce(directory.agent_socket)


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_directory
@run_async
async def status(path: Path | None, as_json: bool) -> None:
    """Print whom the agent of DIR serves, since when, and how many programs use it; exit status 1 if there is none."""
    directory = _directory(path)
    async with _asking(directory) as agent:
        found = await agent.call("Status", returns=AgentStatus, timeout=ANSWER_SECONDS)
    socket = os.fspath(directory.agent_socket.absolute())
    if as_json:
        emit_json(
            {
                "socket": socket,
                "pid": found.pid,
                "names": found.names,
                "publicKey": found.public_key,
                "since": found.since.isoformat(timespec="seconds"),
                "programs": found.programs,
                "idleSeconds": found.idle_seconds,
            }
        )
        return
    programs = "1 program uses it" if found.programs == 1 else f"{found.programs} programs use it"
    ends = f"ends {format_duration(timedelta(seconds=found.idle_seconds))} after its last use"
    emit(f"Serving    : {','.join(found.names)}")
    emit(f"Public key : {found.public_key}")
    emit(f"Socket     : {socket}")
    emit(f"Process    : {found.pid}, since {found.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    emit(f"In use     : {programs}; {ends if found.idle_seconds else 'does not end by itself'}")


@command.command()
@with_directory
@run_async
async def stop(path: Path | None) -> None:
    """Stop the agent of DIR: the key is forgotten. That there is none is no error."""
    directory = _directory(path)
    if not is_served(directory.agent_socket):
        note(f"No agent serves '{directory.path}'.")
        return
    async with _asking(directory) as agent:
        await agent.call("Stop", returns=type(None), timeout=ANSWER_SECONDS)
    with trio.move_on_after(START_SECONDS):
        while is_served(directory.agent_socket):  # noqa: ASYNC110 - another process gives no event
            await trio.sleep(RETRY_SECONDS)
        return
    raise ConfigurationError(
        f"the agent of '{directory.path}' has not ended within {START_SECONDS:g} s",
        hint="'agent status' names its process",
    )


def _directory(path: Path | None) -> CredentialsDirectory:
    if path is None:
        raise ConfigurationError(
            "no credentials directory is named", hint="give DIR, or export V23_CREDENTIALS=DIRECTORY"
        )
    directory = CredentialsDirectory(path)
    if not directory.holds_principal():
        raise StorageError(
            f"there is no principal in '{path}'",
            hint=f"make one with 'vanadium-node principal create {path} NAME'",
        )
    return directory


@asynccontextmanager
async def _asking(directory: CredentialsDirectory) -> AsyncIterator[Client]:
    if not is_served(directory.agent_socket):
        raise UnreachableError(
            f"no agent serves '{directory.path}'", hint=f"'vanadium-node agent start {directory.path}' starts one"
        )
    async with connect(f"unix:{directory.agent_socket}", None, timeout=ANSWER_SECONDS) as agent:
        yield agent


def _lock_or_wait(directory: CredentialsDirectory) -> int | None:
    """Return the lock that makes this the directory's agent; None once another agent serves it.

    Raises:
        ConfigurationError: another agent is about to start or end, for too long.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        lock = directory.lock_for_agent()
        if lock is not None:
            return lock
        if is_served(directory.agent_socket):
            return None
        time.sleep(RETRY_SECONDS)
    raise ConfigurationError(
        f"another agent holds '{directory.path}' and does not answer", hint="is it waiting for a passphrase elsewhere?"
    )


def _from_stdin() -> bytes:
    return sys.stdin.buffer.readline().rstrip(b"\n")


def _from_terminal() -> bytes:
    return ask_passphrase(hint="--passphrase-stdin reads it from standard input")


def _announce(socket: Path) -> None:
    emit(f"SOCKET={socket.absolute()}")


def _serve(
    directory: CredentialsDirectory, principal: Principal, idle: timedelta, ready: Callable[[Path], None]
) -> None:
    run_daemon(
        lambda stop: serve_directory(directory, principal, idle_timeout=idle, stop=stop, task_status=_Ready(ready))
    )


class _Ready(trio.TaskStatus[Path]):
    """Calls a function with the path of the socket."""

    def __init__(self, ready: Callable[[Path], None]) -> None:
        self._ready = ready

    def started(self, value: Path | None = None) -> None:
        """Tell the path."""
        if value is not None:
            self._ready(value)


def _detached(serve: Callable[[Callable[[Path], None]], None]) -> None:
    """Serve in a process of its own, which nothing ties to this one; return when it is ready.

    Raises:
        ConfigurationError: it ended before that.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as channel:
            said = channel.read(MAX_REASON_BYTES).decode()
        if said != READY:
            raise ConfigurationError(said or "the agent ended before it served", hint="see what --foreground says")
        return
    os.close(reader)
    os.setsid()

    def ready(_path: Path) -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        os.write(writer, READY.encode())
        os.close(writer)

    status = 1
    try:
        serve(ready)
        status = 0
    except VanadiumError as error:
        with suppress(OSError):  # it was ready, and the channel is closed
            os.write(writer, str(error).encode()[:MAX_REASON_BYTES])
    finally:
        os._exit(status)
