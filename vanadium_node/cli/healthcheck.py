"""`vanadium-node healthcheck`: whether the agent behind a socket has a valid identity, for probes.

Probes run it every second in every pod, so it speaks the protocol by itself over a plain socket: one frame out, one in.
"""

import os
import socket
import time
from pathlib import Path
from typing import Final

import click

from vanadium_node.errors import ProtocolError, UnreachableError, clip
from vanadium_node.wire.frames import Request, Response, decode_frame, encode_frame
from vanadium_node.wire.splitter import FrameSplitter

MAX_FRAME_BYTES: Final = 1 << 20


@click.command()
@click.option("--socket", "path", required=True, envvar="V23_AGENT_PATH", type=click.Path(path_type=Path))
@click.option("--timeout", default=5.0, show_default=True, metavar="SECONDS", help="How long to wait for the answer.")
def command(path: Path, timeout: float) -> None:
    """Tell whether the agent behind a socket has a valid identity: exit status 0 if it has, 1 if not."""
    deadline = time.monotonic() + timeout
    question = Request(1, "ValidNames", "", [], int(timeout * 1000), False, None, [], "")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(os.fspath(path))
            connection.sendall(encode_frame(question))
            answer = _answer(connection, deadline)
    except OSError as error:
        raise UnreachableError(
            f"no agent answers on '{path}': {error.strerror or error}", hint="see the pod agent's log"
        ) from error
    if answer.error is not None:
        raise ProtocolError(
            f"the agent on '{path}' answered: {clip(str(answer.error[1:2]))}", hint="is it a pod agent?"
        )
    if not isinstance(answer.result, list) or not answer.result:
        raise UnreachableError(f"the agent on '{path}' has no valid identity now", hint="see its log")


def _answer(connection: socket.socket, deadline: float) -> Response:
    """Return the first response that comes before the deadline. Raises OSError, ProtocolError."""
    splitter = FrameSplitter(MAX_FRAME_BYTES)
    while True:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = connection.recv(1 << 16)
        if not data:
            raise ConnectionError("it closed the connection")
        for content in splitter.split(data):
            frame = decode_frame(content)
            if isinstance(frame, Response):
                return frame
