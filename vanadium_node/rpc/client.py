"""Calling the methods of a server on one connection, which `connect` makes; any number of calls and streams at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import ceil, inf
from typing import Any, Final, TypeVar

import trio

from vanadium_node.errors import DecodeError, InputError
from vanadium_node.rpc.call import PeerIdentity
from vanadium_node.rpc.call_stream import CallStream
from vanadium_node.rpc.conversation import Conversation
from vanadium_node.rpc.deadlines import carried_deadline
from vanadium_node.rpc.failures import call_error
from vanadium_node.rpc.inbox import Inbox
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.mutual import MutualTrust
from vanadium_node.rpc.naming import Name
from vanadium_node.rpc.tracing import outgoing_traceparent
from vanadium_node.rpc.types import Codec, codec_of, to_wire
from vanadium_node.security.blessing import Blessings

T = TypeVar("T")
DEFAULT_TIMEOUT: Final = 30.0
"""Seconds for a call, and for connecting, unless the caller says otherwise."""

MAX_PATIENCE_SECONDS: Final = 1e9
"""Of the time for a call. Whoever gives more, 30 years, gives any."""


class Client:
    """An open connection to a server, on which any number of tasks make calls at once."""

    def __init__(self, name: Name, link: Link, mutual: MutualTrust) -> None:
        self.name = name
        self.conversation = Conversation(name, link, mutual)
        """What goes on on the connection; for whoever made it."""
        self._link = link
        self._mutual = mutual
        self._codecs: dict[object, Codec] = {}
        """Codecs of results asked for so far: the program's annotations, so they are few."""

    @property
    def server(self) -> PeerIdentity:
        """Who the server is, as it showed itself last."""
        return self._mutual.server

    @property
    def is_open(self) -> bool:
        """Whether calls can still be made: the connection has not ended, and the server does not drain."""
        return not self.conversation.why_over

    # Calls

    async def call(
        self,
        method: str,
        *arguments: object,
        returns: Any = object,
        granted: Blessings | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        trace_id: str = "",
        suffix: str | None = None,
    ) -> Any:
        """Call a method and return its result, checked against the type `returns` (by default, whatever CBOR carries).

        `granted` are blessings for the server, bound to its key. The scope's own deadline counts too, if it is earlier than
        `timeout` seconds from now. Cancelling the caller cancels the method. `trace_id` is a W3C `traceparent`; without one
        the current trace goes on (`tracing`). `suffix` is another object of the server than the name's.

        Raises:
            CallError: the method's error, or `timeout`.
            UnreachableError: the connection ended before the answer; the method may have run. Where the server turned this
                end away because it has too much to do, it has not, and the error is a CallError, `overloaded`.
            NotTrustedError: the server's names no longer count.
        """
        now, deadline, expiry = _due(timeout)
        if deadline == -inf:
            await trio.lowlevel.checkpoint()
        discharges = None
        if self._mutual.needs_preparation() and not self.conversation.why_over:
            discharges = await self._mutual.prepare(method, arguments, deadline)
            now = trio.current_time()
        patience = deadline - now
        number = self._request(
            method, suffix, arguments, granted, patience, trace_id, has_items=False, discharges=discharges
        )
        response = await self.conversation.answer_to(number, expiry)
        if response.error is not None:
            raise call_error(response.error)
        if returns is object:
            return response.result
        codec = self._codecs.get(returns)
        if codec is None:
            codec = self._codecs[returns] = codec_of(returns)
        try:
            return codec.from_wire(response.result)
        except InputError as error:
            raise DecodeError(f"the result of {method} is wrong: {error.message}") from error

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        *arguments: object,
        returns: Any = object,
        result: Any = object,
        granted: Blessings | None = None,
        timeout: float | None = None,
        has_items: bool = False,
        suffix: str | None = None,
    ) -> AsyncIterator[CallStream[Any]]:
        """Call a method that streams: iterate over the items it yields, each of type `returns`; send it items with `has_items`.

        Leaving the block before the end cancels the method. Raises as `call` does, from the iteration and `result`.
        """
        _, deadline, expiry = _due(timeout)
        if deadline == -inf:
            await trio.lowlevel.checkpoint()
        needs_preparation = self._mutual.needs_preparation() and not self.conversation.why_over
        discharges = await self._mutual.prepare(method, arguments, deadline) if needs_preparation else None
        patience = deadline - trio.current_time()
        number = self._request(
            method, suffix, arguments, granted, patience, "", has_items=has_items, discharges=discharges
        )
        talk = self.conversation
        stream: CallStream[Any] = CallStream(talk, number, method, Inbox(self._link, codec_of(returns)), result)
        talk.follow(number, stream, expiry)
        try:
            yield stream
        finally:
            talk.give_up(number)
            self._link.wake()

    def close(self) -> None:
        """Send what still waits, as far as the system takes it, and say goodbye."""
        self.conversation.close()

    def _request(
        self,
        method: str,
        suffix: str | None,
        arguments: Sequence[object],
        granted: Blessings | None,
        patience: float,
        trace_id: str,
        *,
        has_items: bool,
        discharges: list[bytes] | None = None,
    ) -> int:
        if self.conversation.why_over:
            raise self.conversation.ended()
        self._mutual.check_server(method)
        return self._link.connection.send_request(
            method,
            self.name.suffix if suffix is None else suffix,
            [to_wire(argument) for argument in arguments],
            deadline_ms=None if patience > MAX_PATIENCE_SECONDS else max(0, ceil(patience * 1000)),
            has_items=has_items,
            granted=None if granted is None else granted.encoded,
            discharges=discharges,
            trace_id=trace_id or outgoing_traceparent(),
        )


def _due(timeout: float | None) -> tuple[float, float, float]:
    """Return now, when a call must be over, and when this client has to end it, by trio's clock.

    The last is infinity where the scope's own deadline comes first and its cancellation ends the call. A caller that is cancelled
    already must be over at -inf.
    """
    now, deadline, expiry = trio.current_time(), trio.current_effective_deadline(), carried_deadline()
    if timeout is not None and now + timeout < expiry:
        expiry = now + timeout
    return (now, deadline, inf) if expiry >= deadline else (now, expiry, expiry)
