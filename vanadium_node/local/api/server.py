"""The API on a TLS socket of the loopback interface."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from vanadium_node.errors import UnreachableError
from vanadium_node.local.api.application import application
from vanadium_node.local.api.identity import HOST, ServerIdentity
from vanadium_node.local.api.rest import Rest

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

KEEP_ALIVE_SECONDS: Final = 120
GRACEFUL_SECONDS: Final = 0.5
"""How long running requests may take when the server ends: watches never end of their own."""


def listening_socket(port: int = 0) -> socket.socket:
    """Return a socket that listens on the loopback interface only; port 0: any free one.

    Raises:
        UnreachableError: the port is in use.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            message = f"cannot serve the embedded cluster's API on {HOST}:{port}: the port is in use"
            raise UnreachableError(message, hint="stop whoever listens there, or take another port") from error
        raise UnreachableError(f"cannot serve the embedded cluster's API on {HOST}:{port}: {error.strerror}") from error
    return listener


@asynccontextmanager
async def serving(rest: Rest, identity: ServerIdentity, listener: socket.socket) -> AsyncIterator[None]:
    """Serve the API on a listening socket, which is closed in the end."""
    config = Config()
    config.bind = [f"fd://{os.dup(listener.fileno())}"]  # hypercorn closes the descriptor it is given
    config.certfile = str(identity.certificate_file)
    config.keyfile = str(identity.key_file)
    config.alpn_protocols = ["http/1.1"]
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.graceful_timeout = GRACEFUL_SECONDS
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger(__name__)
    stop = trio.Event()
    app = cast(
        "ASGIFramework", application(rest, identity.token)
    )  # the two libraries spell the same protocol differently
    with listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait, mode="asgi"))
            try:
                yield
            finally:
                stop.set()
