"""Finding the agent of a credentials directory, and starting one where there is none.

The passphrase is asked for by whoever comes first; the agent is told through a pipe, and keeps the key until it is unused.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from vanadium_node.config.values import MAX_SOCKET_PATH_BYTES
from vanadium_node.errors import ConfigurationError

if TYPE_CHECKING:
    from vanadium_node.storage.credentials import CredentialsDirectory

START_SECONDS: Final = 20.0
MAX_REASON_CHARACTERS: Final = 1000


def can_be_served(directory: CredentialsDirectory) -> bool:
    """Tell whether the path of the directory's socket is one that unix sockets can have."""
    return len(os.fsencode(directory.agent_socket)) <= MAX_SOCKET_PATH_BYTES


def is_served(path: Path) -> bool:
    """Tell whether somebody answers at a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fspath(path)) in (0, errno.EAGAIN)


async def start_agent(directory: CredentialsDirectory, passphrase: bytes) -> None:
    """Start an agent for a directory, unless somebody else just did, and wait until it serves.

    Raises:
        ConfigurationError: it cannot be started.
    """
    with trio.move_on_after(START_SECONDS) as limit:
        done = await trio.run_process(
            [sys.executable, "-m", "vanadium_node", "agent", "start", "--passphrase-stdin", os.fspath(directory.path)],
            stdin=passphrase,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    if limit.cancelled_caught:
        raise ConfigurationError(f"the agent for '{directory.path}' has not started within {START_SECONDS:g} s")
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-MAX_REASON_CHARACTERS:]
        raise ConfigurationError(f"cannot start an agent for '{directory.path}': {reason}")
