"""Calling the methods of a server on one connection, which `connect` makes; any number of calls and streams at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import ceil, inf
from typing import Any, Final, TypeVar

import outcome
import trio

from vanadium_node.errors import (
    CallError,
    DecodeError,
    ErrorCode,
    InputError,
    PeerError,
    ProtocolError,
    UnreachableError,
    clip,
)
from vanadium_node.rpc.call import PeerIdentity
from vanadium_node.rpc.call_stream import CallStream
from vanadium_node.rpc.deadlines import carried_deadline, deadlines_of_run
from vanadium_node.rpc.failures import call_error, turned_away
from vanadium_node.rpc.inbox import Inbox
from vanadium_node.rpc.limiting import AuthPace
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.mutual import MutualTrust
from vanadium_node.rpc.naming import Name
from vanadium_node.rpc.tls import TlsChannel
from vanadium_node.rpc.tracing import outgoing_traceparent
from vanadium_node.rpc.types import Codec, codec_of, to_wire
from vanadium_node.security.blessing import Blessings
from vanadium_node.wire.events import ConnectionState, Event, Failed, ReceivedItem, Refused
from vanadium_node.wire.frames import Auth, Cancel, Credit, End, Goaway, Pong, Request, Response, Wire

T = TypeVar("T")
DEFAULT_TIMEOUT: Final = 30.0
"""Seconds for a call, and for connecting, unless the caller says otherwise."""

MAX_PATIENCE_SECONDS: Final = 1e9
"""Of the time for a call. Whoever gives more, 30 years, gives any."""

CONNECTION: Final = 0
"""Stream 0, the connection itself, among the deadlines: when to look whether the server still lives."""


UNREAD_SECONDS: Final = 0.02
"""How long a connection may be open without a task that reads from it: longer than one that is made for a call."""


class Reading:
    """A call that reads from the server itself while it waits for its answer."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: outcome.Outcome[Response] | None = None


class Client:
    """An open connection to a server, on which any number of tasks make calls at once."""

    def __init__(self, name: Name, link: Link, mutual: MutualTrust) -> None:
        self.name = name
        self._link = link
        self._mutual = mutual
        self._waiting: dict[int, trio.lowlevel.Task | Reading] = {}
        """Who waits for the answer of which call."""
        self._is_read = False
        """Somebody reads from the server: a task, or a call that waits for its answer."""
        self._is_closed = False
        """No task can be started any more."""
        self._is_seen_to = False
        """The next look at the connection is far away."""
        self._streams: dict[int, CallStream[Any]] = {}
        self._deadlines = deadlines_of_run()
        self._auths = AuthPace(trio.current_time())
        self._end = ""
        """Why no call can be made any more; empty while calls can."""
        self._is_turned_away = False
        """It is because the server has too much to do: what it has not answered, it has not begun with."""
        self._credit: trio.lowlevel.ParkingLot | None = None
        """Where streams wait for credit."""
        self._codecs: dict[object, Codec] = {}
        """Codecs of results asked for so far: the program's annotations, so they are few."""

    @property
    def server(self) -> PeerIdentity:
        """Who the server is, as it showed itself last."""
        return self._mutual.server

    @property
    def is_open(self) -> bool:
        """Whether calls can still be made: the connection has not ended, and the server does not drain."""
        return not self._end

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
        if self._mutual.needs_preparation() and not self._end:
            discharges = await self._mutual.prepare(method, arguments, deadline)
            now = trio.current_time()
        patience = deadline - now
        number = self._request(
            method, suffix, arguments, granted, patience, trace_id, has_items=False, discharges=discharges
        )
        waiting, link = self._waiting, self._link
        waiting[number] = trio.lowlevel.current_task()
        if expiry != inf:
            self._deadlines.add((self, number), expiry)
        if len(waiting) == 1:
            link.flush()
        else:
            link.wake()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            waiting.pop(number, None)  # and no more: trio is walking through its tasks, and none may be added now
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            response: Response
            if self._is_read:
                response = await trio.lowlevel.wait_task_rescheduled(abort)
            else:
                response = await self._read_for(number)
        except trio.Cancelled:
            self._give_up(number)
            raise
        self._deadlines.discard((self, number))
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
        needs_preparation = self._mutual.needs_preparation() and not self._end
        discharges = await self._mutual.prepare(method, arguments, deadline) if needs_preparation else None
        patience = deadline - trio.current_time()
        number = self._request(
            method, suffix, arguments, granted, patience, "", has_items=has_items, discharges=discharges
        )
        stream: CallStream[Any] = CallStream(self, number, method, Inbox(self._link, codec_of(returns)), result)
        self._streams[number] = stream
        if not self._is_read:
            self._start_reading()
        if expiry != inf:
            self._deadlines.add((self, number), expiry)
        self._link.flush()
        try:
            yield stream
        finally:
            self._give_up(number)
            self._link.wake()

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
        if self._end:
            raise self._ended()
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

    def _give_up(self, number: int) -> None:
        """Cancel a call that nobody waits for any more; nothing happens when it is over."""
        self._deadlines.discard((self, number))
        self._waiting.pop(number, None)
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.inbox.discard()
        if number in self._link.connection.own:
            self._link.connection.send_cancel(number)
            self._link.wake()

    def expire(self, number: int) -> None:
        """Fail a call whose deadline has passed, or look whether the server still lives."""
        if number == CONNECTION:
            self._look_alive()
            return
        waiter, stream = self._waiting.pop(number, None), self._streams.get(number)
        error = CallError(ErrorCode.TIMEOUT, f"no answer from {self.name} in time", hint="is it overloaded, or stuck?")
        if waiter is not None:
            self._answer(waiter, outcome.Error(error))
        if stream is not None:
            stream.fail(error)
        self._link.connection.send_cancel(number)
        self._link.wake()

    # The connection

    def _look_alive(self) -> None:
        """Ask a silent server for a sign of life, and end the connection to one that gives none; have it be read at all."""
        if self._is_closed:
            return
        if not self._is_read:
            self._start_reading()
        else:
            self._is_seen_to = True
            self._deadlines.add((self, CONNECTION), self._link.look_alive())

    async def meet(self, channel: TlsChannel) -> None:
        """Look at the server. Raises NotTrustedError, UnreachableError, PeerError."""
        self._mutual.binding = channel.binding
        events = self._link.take(b"")
        while not events:
            if events is None:
                raise UnreachableError(f"{self.name} closed the connection: {self._link.fault}")
            events = await self._link.receive()
        match events[0]:
            case Auth() as auth:
                self._mutual.meet(auth)
            case Goaway(_, code, reason):
                sentence = f"{self.name} takes no connection now: {clip(reason) or clip(code)}"
                raise turned_away(sentence) if code == ErrorCode.OVERLOADED.value else UnreachableError(sentence)
            case Failed(reason):
                raise ProtocolError(f"{self.name} broke the protocol: {reason}")
            case other:
                raise ProtocolError(f"{self.name} began with a frame of kind {type(other).__name__}")
        self._mutual.check_server("")
        if not self._handle(events[1:]):
            if self._is_turned_away:
                raise self._ended()
            kind = ProtocolError if self._link.connection.state is ConnectionState.FAILED else UnreachableError
            raise kind(f"{self.name} ended the connection as it began: {self._link.fault}")

    def begin(self) -> None:
        """Look after the connection from now on.

        What the server sends is read by the call that waits for its answer, as long as there is one at a time; a task for it is
        started only when that is not so, or the connection stays. So one that is made for a call comes and goes without.
        """
        self._is_seen_to = False
        self._deadlines.add((self, CONNECTION), trio.current_time() + UNREAD_SECONDS)

    def _start_reading(self) -> None:
        self._is_read = True
        self._link.background.start(self._read_on)
        self._look_alive()

    async def _read_on(self) -> None:
        """Read from the server until the connection is over."""
        try:
            self._link.flush()
            while not self._is_closed and await self._read():
                pass
        except Exception:
            self.end(f"what {self.name} sent could not be handled")
            raise

    async def _read_for(self, number: int) -> Response:
        """Read from the server until a call has its answer."""
        reading = self._waiting[number] = Reading()
        self._is_read = True
        try:
            while reading.answer is None:
                await self._read()
        finally:
            self._is_read = False
            if self._is_closed:
                pass
            elif self._waiting or self._streams:
                self._start_reading()
            elif self._is_seen_to:
                self.begin()
        return reading.answer.unwrap()

    async def _read(self) -> bool:
        """Act on what the server sends next; tell whether more can come. Where it cannot, all calls have failed."""
        events = await self._link.receive()
        if events is not None and self._handle(events):
            return True
        self.end(f"the connection to {self.name} ended: {self._link.fault or 'the server closed it'}")
        return False

    def _answer(self, waiter: trio.lowlevel.Task | Reading, answer: outcome.Outcome[Response]) -> None:
        """Give a call its answer."""
        if isinstance(waiter, Reading):
            waiter.answer = answer
            self._link.interrupt()
        else:
            trio.lowlevel.reschedule(waiter, answer)

    def end(self, reason: str) -> None:
        """Fail all calls, and those still to come."""
        self._end = self._end or reason
        self._deadlines.discard((self, CONNECTION))
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting.values():
            self._answer(waiter, outcome.Error(self._ended()))
        for stream in self._streams.values():
            stream.fail(self._ended())
        self._tell_credit()

    def _ended(self) -> UnreachableError | CallError:
        """Return a new error: one that many tasks raise would collect all their tracebacks."""
        return turned_away(self._end) if self._is_turned_away else UnreachableError(self._end, hint="connect again")

    def _handle(self, events: list[Event]) -> bool:
        goes_on = True
        for event in events:
            if type(event) is Response:
                waiter = self._waiting.pop(event.stream, None)
                if isinstance(waiter, Reading):
                    waiter.answer = outcome.Value(event)
                elif waiter is not None:
                    trio.lowlevel.reschedule(waiter, outcome.Value(event))
                elif (stream := self._streams.get(event.stream)) is not None:
                    stream.respond(event)
                    self._tell_credit()
            else:
                goes_on = self._handle_other(event)
                if not goes_on:
                    break  # what came along with it is for nobody any more
        if self._link.connection.outgoing:
            self._link.wake()
        return goes_on

    def _handle_other(self, event: Event) -> bool:
        connection = self._link.connection
        match event:
            case ReceivedItem():
                stream = self._streams.get(event.stream)
                if stream is None:
                    connection.item_read(event.stream, event.size)
                else:
                    stream.inbox.put(event)
            case Credit():
                self._tell_credit()
            case Auth() if self._auths.is_too_often(trio.current_time()):
                self._link.fault = f"{self.name} showed itself too often"
                return False
            case Auth():
                try:
                    self._mutual.meet(event)
                except PeerError as error:
                    self._link.fault = error.message
                    return False
            case Request() if self._link.is_full:
                self._link.fault = f"{self.name} calls this client without end, and does not read the answers"
                return False
            case Request():
                connection.send_error(event.stream, ErrorCode.UNKNOWN_METHOD, "a client has no methods", {})
            case Goaway(_, code, reason):
                self._end = f"{self.name} takes no more calls: {clip(reason)}"
                self._is_turned_away = code == ErrorCode.OVERLOADED.value
                self._link.fault = f"{self.name} ended it: {clip(reason)}"
                return not code
            case Failed(reason):
                self._link.fault = reason
                return False
            case End() | Cancel() | Pong() | Response() | Refused():
                pass
        return True

    async def send_item(self, number: int, value: Wire) -> bool:
        """Send an item of a stream when there is credit; tell whether the stream was still open."""
        connection = self._link.connection
        while not connection.may_send_item(number):
            if number not in connection.own or self._link.is_broken:
                return False
            if self._credit is None:
                self._credit = trio.lowlevel.ParkingLot()
            await self._credit.park()
        connection.send_item(number, value)
        self._link.wake()
        if self._link.is_full:
            await self._link.drained()
        await trio.lowlevel.checkpoint()
        return True

    def _tell_credit(self) -> None:
        if self._credit is not None:
            self._credit.unpark_all()

    def close(self) -> None:
        """Send what still waits, as far as the system takes it, and say goodbye."""
        self._is_closed = True
        self._link.flush()
        self._link.close()
        self.end(f"the connection to {self.name} is closed")

    def send_end(self, number: int) -> None:
        """Say that no more items follow."""
        self._link.connection.send_end(number)
        self._link.wake()


def _due(timeout: float | None) -> tuple[float, float, float]:
    """Return now, when a call must be over, and when this client has to end it, by trio's clock.

    The last is infinity where the scope's own deadline comes first and its cancellation ends the call. A caller that is cancelled
    already must be over at -inf.
    """
    now, deadline, expiry = trio.current_time(), trio.current_effective_deadline(), carried_deadline()
    if timeout is not None and now + timeout < expiry:
        expiry = now + timeout
    return (now, deadline, inf) if expiry >= deadline else (now, expiry, expiry)
