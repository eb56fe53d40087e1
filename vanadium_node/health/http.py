"""A small HTTP/1.1 server for the health endpoint (RFC 9110, 9112; parsed by h11): one request a connection, GET and HEAD only."""

import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import h11
import trio

from vanadium_node.health.pages import TEXT, Page, Pages
from vanadium_node.rpc import sockets
from vanadium_node.rpc.naming import parse_listen_address

REQUEST_SECONDS: Final = 5.0
"""From the connection to its end: a peer that dawdles is cut off."""

MAX_HEADER_BYTES: Final = 16 * 1024
MAX_CONNECTIONS: Final = 32
"""At once; one more ends the oldest, which has sent nothing whole yet: whoever only holds connections keeps no probe waiting."""

RECEIVE_BYTES: Final = 4096
UNIX_MODE: Final = 0o660

_log: Final = logging.getLogger(__name__)


async def listen_for_health(listen: str) -> list[socket.socket]:
    """Return sockets that listen at an address.

    Raises:
        InputError: the address is none.
        ConfigurationError, StorageError: it cannot be listened on.
    """
    return await sockets.listen(parse_listen_address(listen), unix_mode=UNIX_MODE)


async def serve_health(listeners: Sequence[socket.socket], pages: Pages) -> None:
    """Answer until cancelled; then close the sockets."""
    answering: dict[trio.CancelScope, None] = {}
    try:
        async with trio.open_nursery() as nursery:
            for each in listeners:
                nursery.start_soon(_accept, each, pages, answering, nursery)
    finally:
        for each in listeners:
            address = written(each)
            each.close()
            if address.startswith("unix:"):
                with suppress(OSError):
                    Path(address.removeprefix("unix:")).unlink(missing_ok=True)  # noqa: ASYNC240 - one call, while ending


async def _accept(
    listener: socket.socket, pages: Pages, answering: dict[trio.CancelScope, None], nursery: trio.Nursery
) -> None:
    accepting = trio.socket.from_stdlib_socket(listener)
    while True:
        try:
            connection, _ = await accepting.accept()
        except OSError as error:
            _log.warning("cannot accept a connection for health: %s", error.strerror or error)
            await trio.sleep(0.1)
            continue
        if len(answering) >= MAX_CONNECTIONS:
            oldest = next(iter(answering))
            del answering[oldest]
            oldest.cancel()
        scope = trio.CancelScope()
        answering[scope] = None
        nursery.start_soon(_answer, trio.SocketStream(connection), pages, scope, answering)


async def _answer(
    stream: trio.SocketStream, pages: Pages, scope: trio.CancelScope, answering: dict[trio.CancelScope, None]
) -> None:
    """Answer one request, whatever it is, within the time for it."""
    scope.deadline = trio.current_time() + REQUEST_SECONDS
    try:
        with scope, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADER_BYTES)
            try:
                request = await _request(stream, connection)
            except h11.RemoteProtocolError as error:
                await _send(stream, connection, Page(error.error_status_hint, TEXT, b"this is no request\n"))
            else:
                if request is not None:
                    await _send(stream, connection, _page(request, pages), is_head=request.method == b"HEAD")
    finally:
        answering.pop(scope, None)
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)


async def _request(stream: trio.SocketStream, connection: h11.Connection) -> h11.Request | None:
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await stream.receive_some(RECEIVE_BYTES))


def _page(request: h11.Request, pages: Pages) -> Page:
    if request.method not in (b"GET", b"HEAD"):
        return Page(405, TEXT, b"GET and HEAD only\n")
    return pages.page(request.target.decode("ascii", "replace"))


async def _send(stream: trio.SocketStream, connection: h11.Connection, page: Page, *, is_head: bool = False) -> None:
    headers = [
        ("content-type", page.content_type),
        ("content-length", str(len(page.content))),
        ("cache-control", "no-store"),
        ("connection", "close"),
        *([("allow", "GET, HEAD")] if page.status == 405 else []),
    ]
    parts = [connection.send(h11.Response(status_code=page.status, headers=headers))]
    if not is_head:
        parts.append(connection.send(h11.Data(page.content)))
    parts.append(connection.send(h11.EndOfMessage()))
    await stream.send_all(b"".join(part for part in parts if part))
    await stream.send_eof()


def written(listener: socket.socket) -> str:
    """Return where a socket listens, `host:port` or `unix:/path`."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if listener.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
