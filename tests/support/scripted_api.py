"""An HTTP server on a real socket that answers as told, for what a well-behaved API server will not do on demand."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import trio

Handler = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request, and the way to answer it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: h11.Connection
    stream: trio.SocketStream

    async def answer(self, status: int, document: object, **headers: str) -> None:
        """Answer with a JSON document."""
        await self.begin(status, **headers)
        await self.send(json.dumps(document))
        await self.end()

    async def begin(self, status: int, **headers: str) -> None:
        """Begin an answer that goes on."""
        fields = [("content-type", "application/json"), *((k.replace("_", "-"), v) for k, v in headers.items())]
        await self._emit(h11.Response(status_code=status, headers=fields))

    async def send(self, text: str) -> None:
        """Send a piece of the answer."""
        await self._emit(h11.Data(data=text.encode()))

    async def end(self) -> None:
        """End the answer."""
        await self._emit(h11.EndOfMessage())

    async def _emit(self, event: Any) -> None:
        data = self.connection.send(event)
        if data:
            await self.stream.send_all(data)


@dataclass
class ScriptedApi:
    """The server: where it is, what it was asked, and what it will answer next."""

    url: str
    handlers: list[Handler]
    otherwise: Handler | None = None
    """What answers when no handler is left."""
    seen: list[str] = field(default_factory=list)

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                request = await self._next(connection, stream, h11.Request)
                if request is None:
                    return
                body = b""
                while isinstance(data := await self._next(connection, stream, h11.Data), h11.Data):
                    body += bytes(data.data)
                self.seen.append(f"{request.method.decode()} {request.target.decode()}")
                exchange = Exchange(
                    method=request.method.decode(),
                    target=request.target.decode(),
                    headers={k.decode(): v.decode() for k, v in request.headers},
                    body=body,
                    connection=connection,
                    stream=stream,
                )
                handler = self.handlers.pop(0) if self.handlers or self.otherwise is None else self.otherwise
                await handler(exchange)
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            return
        finally:
            with trio.move_on_after(1, shield=True):
                await stream.aclose()

    async def _next(self, connection: h11.Connection, stream: trio.SocketStream, wanted: type) -> Any:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        return event if isinstance(event, wanted) else None


@asynccontextmanager
async def scripted_api(
    handlers: Sequence[Handler] = (), otherwise: Handler | None = None
) -> AsyncIterator[ScriptedApi]:
    """Serve requests, the n-th by the n-th handler and the others by `otherwise`, while the block runs."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        api = ScriptedApi(url=f"http://127.0.0.1:{port}", handlers=list(handlers), otherwise=otherwise)
        nursery.start_soon(trio.serve_listeners, api._serve, listeners)
        yield api
        nursery.cancel_scope.cancel()
