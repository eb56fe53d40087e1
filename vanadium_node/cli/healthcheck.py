"""`vanadium-node healthcheck`: whether the agent behind a socket has a valid identity, or whether it runs, for probes.

Probes run it every second in every pod, so it speaks the protocol by itself over a plain socket: one frame out, one in.
"""

import os
import socket
import time
from pathlib import Path
from typing import Final

import click

from vanadium_node.errors import ProtocolError, UnreachableError, VanadiumError, clip
from vanadium_node.storage.hidden import hidden_path
from vanadium_node.wire.frames import Request, Response, decode_frame, encode_frame
from vanadium_node.wire.splitter import FrameSplitter

MAX_FRAME_BYTES: Final = 1 << 20
MAX_WHY: Final = 2000
"""Characters of what an agent says of its trouble."""


@click.command()
@click.option("--socket", "path", required=True, envvar="V23_AGENT_PATH", type=click.Path(path_type=Path))
@click.option("--timeout", default=5.0, show_default=True, metavar="SECONDS", help="How long to wait for the answer.")
@click.option("--live", "is_live", is_flag=True, help="Tell whether it runs and answers, with an identity or without.")
def command(path: Path, timeout: float, is_live: bool) -> None:
    """Tell whether the agent behind a socket has a valid identity: exit status 0 if it has, 1 if not.

    A liveness probe wants --live: an agent that waits for the cluster agent, or for its secret, gets none sooner by being killed.
    """
    deadline = time.monotonic() + timeout
    if is_live:
        _require_life(path, deadline)
    else:
        _require_identity(path, deadline)


def _require_life(path: Path, deadline: float) -> None:
    """Ask for anything where clients find the agent, or where it listens while there is no identity."""
    refused: OSError | None = None
    for each in (path, hidden_path(path)):
        try:
            _asked(each, "WhyNotReady", deadline)
        except OSError as error:
            refused = refused or error
        else:
            return
    why = None if refused is None else refused.strerror or refused
    raise UnreachableError(f"no agent answers on '{path}': {why}", hint="see the pod agent's log")


def _require_identity(path: Path, deadline: float) -> None:
    try:
        answer = _asked(path, "ValidNames", deadline)
    except OSError as error:
        raise UnreachableError(
            f"no agent answers on '{path}': {error.strerror or error}", hint=_why(hidden_path(path), deadline)
        ) from error
    if answer.error is not None:
        raise ProtocolError(
            f"the agent on '{path}' answered: {clip(str(answer.error[1:2]))}", hint="is it a pod agent?"
        )
    if not isinstance(answer.result, list) or not answer.result:
        raise UnreachableError(f"the agent on '{path}' has no valid identity now", hint=_why(path, deadline))


def _asked(path: Path, method: str, deadline: float) -> Response:
    """Return an agent's answer to a method without arguments. Raises OSError, ProtocolError."""
    seconds = max(0.001, deadline - time.monotonic())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(os.fspath(path))
        connection.sendall(encode_frame(Request(1, method, "", [], int(seconds * 1000), False, None, [], "")))
        return _answer(connection, deadline)


def _why(path: Path, deadline: float) -> str:
    """Return what an agent says of why it has no identity, or where else to look."""
    try:
        reasons = _asked(path, "WhyNotReady", deadline).result
    except (OSError, VanadiumError):
        reasons = None
    return (
        clip("; ".join(map(str, reasons)), MAX_WHY)
        if isinstance(reasons, list) and reasons
        else "see the pod agent's log"
    )


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
