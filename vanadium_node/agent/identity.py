"""Who this program is: the principal that its environment or its flags name."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from vanadium_node.agent.on_demand import can_be_served, is_served, start_agent
from vanadium_node.config.values import MAX_SOCKET_PATH_BYTES
from vanadium_node.errors import (
    CallError,
    ConfigurationError,
    InputError,
    StorageError,
    UnreachableError,
    VanadiumError,
)
from vanadium_node.security.principal import Principal

if TYPE_CHECKING:
    from vanadium_node.storage.credentials import CredentialsDirectory, Passphrase

AGENT_PATH: Final = "V23_AGENT_PATH"
CREDENTIALS: Final = "V23_CREDENTIALS"
AGENT_SECONDS: Final = 10.0
"""How long the agent of a directory may take to answer: it is on this machine."""

_log: Final = logging.getLogger(__name__)


@asynccontextmanager
async def open_principal(
    *,
    credentials: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    passphrase: Passphrase | None = None,
    timeout: float | None = None,
) -> AsyncIterator[Principal]:
    """Open the principal of this program, and keep it in step with its agent where it has one.

    `V23_AGENT_PATH` wins: the principal that the agent behind that socket serves, waited for up to `timeout` seconds (None:
    for ever). Else the credentials directory given, else `V23_CREDENTIALS`: through its agent if it has one, which is started
    where the key is encrypted and there is somebody to ask for the `passphrase`; else from its files.

    Raises:
        ConfigurationError: none of them names a principal.
        UnreachableError: no agent answered in time.
        CallError: the agent does not serve this user.
        StorageError: the credentials directory holds no principal, or a damaged one.
        InputError: its key is encrypted and there is nobody to ask, or the passphrase is wrong.
    """
    agent = environ.get(AGENT_PATH)
    if agent:
        async with _from_agent(Path(agent), timeout) as principal:
            yield principal
        return
    directory = credentials or (Path(environ[CREDENTIALS]) if environ.get(CREDENTIALS) else None)
    if directory is None:
        raise ConfigurationError(
            "this program has no principal: neither V23_AGENT_PATH nor V23_CREDENTIALS is set",
            hint="export V23_CREDENTIALS=DIRECTORY; 'vanadium-node principal create DIRECTORY NAME' makes one",
        )
    from vanadium_node.storage.credentials import CredentialsDirectory  # memory that programs with an agent do not need

    async with _from_directory(CredentialsDirectory(directory), passphrase) as principal:
        yield principal


@asynccontextmanager
async def _from_directory(directory: CredentialsDirectory, passphrase: Passphrase | None) -> AsyncIterator[Principal]:
    """Act through the directory's agent, where there is one or the key is encrypted; else open the directory."""
    if can_be_served(directory):
        if not is_served(directory.agent_socket) and passphrase is not None and directory.is_encrypted():
            given = passphrase()
            opened = directory.open(lambda: given)  # a wrong passphrase is refused here, and never sent anywhere
            try:
                await start_agent(directory, given)
            except VanadiumError as error:
                _log.warning("the passphrase will be asked for again: %s", error)
                yield opened
                return
        if is_served(directory.agent_socket):
            async with _from_agent(directory.agent_socket, AGENT_SECONDS) as principal:
                yield principal
            return
    if passphrase is None and directory.is_encrypted():
        raise InputError(
            f"the private key in '{directory.path}' is encrypted, and no agent serves it",
            hint=f"'vanadium-node agent start {directory.path}' asks for its passphrase and serves it",
        )
    yield directory.open(passphrase)


@asynccontextmanager
async def _from_agent(path: Path, timeout: float | None) -> AsyncIterator[Principal]:
    from vanadium_node.agent.client import Follower  # the whole RPC: only programs with an agent need it here

    check_socket_path(path)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        principal: Principal | None = None
        follower = Follower(path)
        try:
            with trio.move_on_after(float("inf") if timeout is None else timeout):
                principal = await nursery.start(follower.run)
        except CallError as error:  # it serves, and not this user
            failure = error
        if principal is None and failure is None:
            why = f": {follower.why_not}" if follower.why_not else ""
            failure = UnreachableError(
                f"no agent answered on '{path}' within {timeout:g} s{why}",
                hint="see the pod agent's log" if why else "is the agent running?",
            )
        elif principal is not None:
            try:
                yield principal
            except Exception as error:  # noqa: BLE001 - kept out of the nursery, which would wrap the caller's own error
                failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def check_socket_path(path: Path) -> None:
    """Refuse a path that no unix socket can have.

    Raises:
        StorageError: it is too long.
    """
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise StorageError(
            f"the socket path '{path}' is {length} bytes long; unix sockets allow {MAX_SOCKET_PATH_BYTES}",
            hint="choose a shorter directory",
        )
