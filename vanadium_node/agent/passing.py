"""A fresh principal for one child process: blessed by the current one, in memory, on a socket that nobody else can open."""

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from vanadium_node.agent.directory import DRAIN_TIMEOUT, SOCKET_MODE
from vanadium_node.agent.service import AgentService
from vanadium_node.rpc import serve
from vanadium_node.security.authorization import user_authorizer
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import LocalSigner
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.storage.files import explained

RUNTIME_DIRECTORY: Final = "XDG_RUNTIME_DIR"
"""Private to the user and in memory, where there is one (XDG Base Directory Specification)."""


async def blessed_principal(
    parent: Principal, source: Blessings, extension: str, caveats: Sequence[Caveat]
) -> Principal:
    """Return a principal with a key of its own, blessed by `parent`, that recognizes what it does.

    Raises:
        InputError: as of `Principal.bless`.
    """
    signer = LocalSigner(PrivateKey.generate())
    child = Principal(signer, roots=parent.roots)
    await child.adopt(await parent.bless(signer.public_key, source, extension, caveats))
    return child


@asynccontextmanager
async def served_privately(principal: Principal) -> AsyncIterator[Path]:
    """Serve a principal on a socket in a new directory that only this user can enter; yield the socket's path.

    Raises:
        StorageError: the directory cannot be made.
    """
    parent = Path(os.environ.get(RUNTIME_DIRECTORY) or tempfile.gettempdir())
    with explained("make a directory for the agent's socket in", parent):
        directory = tempfile.TemporaryDirectory(prefix="vanadium-run-", dir=parent)
    with directory as name:
        path = Path(name) / "sock"
        service = AgentService(principal, immutable=False, authorize=user_authorizer(os.geteuid()))
        async with serve(service, None, listen=[f"unix:{path}"], unix_mode=SOCKET_MODE, drain_timeout=DRAIN_TIMEOUT):
            yield path
