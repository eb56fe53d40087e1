"""What goes on on one connection of a client: which calls wait for their answers, who reads them, and how it ends."""

from __future__ import annotations

from math import inf
from typing import Any, Final

import outcome
import trio

from vanadium_node.errors import CallError, ErrorCode, PeerError, ProtocolError, UnreachableError, clip
from vanadium_node.rpc.call_stream import CallStream
from vanadium_node.rpc.deadlines import deadlines_of_run
from vanadium_node.rpc.failures import turned_away
from vanadium_node.rpc.limiting import AuthPace
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.mutual import MutualTrust
from vanadium_node.rpc.naming import Name
from vanadium_node.rpc.tls import TlsChannel
from vanadium_node.wire.events import ConnectionState, Event, Failed, ReceivedItem, Refused
from vanadium_node.wire.frames import Auth, Cancel, Credit, End, Goaway, Pong, Request, Response, Wire

CONNECTION: Final = 0
"""Stream 0, the connection itself, among the deadlines: when to look whether the server still lives."""


UNREAD_SECONDS: Final = 0.02
"""How long a connection may be open without a task that reads from it: longer than one that is made for a call."""


class Reading:
    """A call that reads from the server itself while it waits for its answer."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: outcome.Outcome[Response] | None = None


class Conversation:
    """The calls and streams of one connection that are under way."""

    def __init__(self, name: Name, link: Link, mutual: MutualTrust) -> None:
        self.link = link
        self.waiting: dict[int, trio.lowlevel.Task | Reading] = {}
        """Who waits for the answer of which call."""
        self.streams: dict[int, CallStream[Any]] = {}
        self.is_read = False
        """Somebody reads from the server: a task, or a call that waits for its answer."""
        self.why_over = ""
        """Why no call can be made any more; empty while calls can."""
        self._name = name
        self._mutual = mutual
        self._is_closed = False
        """No task can be started any more."""
        self._is_seen_to = False
        """The next look at the connection is far away."""
        self._is_turned_away = False
        """It is over because the server has too much to do: what it has not answered, it has not begun with."""
        self._deadlines = deadlines_of_run()
        self._auths = AuthPace(trio.current_time())
        self._credit: trio.lowlevel.ParkingLot | None = None
        """Where streams wait for credit."""

    # Calls and streams

    async def answer_to(self, number: int, expiry: float) -> Response:
        """Send what waits, and return the answer to a call that was made just now, at `expiry` at the latest.

        Raises:
            CallError: `timeout`, or `overloaded` where the server turned this end away.
            UnreachableError: the connection ended before.
        """
        waiting, link = self.waiting, self.link
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
            if self.is_read:
                response = await trio.lowlevel.wait_task_rescheduled(abort)
            else:
                response = await self._read_for(number)
        except trio.Cancelled:
            self.give_up(number)
            raise
        self._deadlines.discard((self, number))
        return response

    def follow(self, number: int, stream: CallStream[Any], expiry: float) -> None:
        """Send what waits, and pass what comes on a stream on to it, until it is given up."""
        self.streams[number] = stream
        if not self.is_read:
            self.start_reading()
        if expiry != inf:
            self._deadlines.add((self, number), expiry)
        self.link.flush()

    def give_up(self, number: int) -> None:
        """Cancel a call that nobody waits for any more; nothing happens when it is over."""
        self._deadlines.discard((self, number))
        self.waiting.pop(number, None)
        stream = self.streams.pop(number, None)
        if stream is not None:
            stream.inbox.discard()
        if number in self.link.connection.own:
            self.link.connection.send_cancel(number)
            self.link.wake()

    def expire(self, number: int) -> None:
        """Fail a call whose deadline has passed, or look whether the server still lives."""
        if number == CONNECTION:
            self._look_alive()
            return
        waiter, stream = self.waiting.pop(number, None), self.streams.get(number)
        error = CallError(ErrorCode.TIMEOUT, f"no answer from {self._name} in time", hint="is it overloaded, or stuck?")
        if waiter is not None:
            self._answer(waiter, outcome.Error(error))
        if stream is not None:
            stream.fail(error)
        self.link.connection.send_cancel(number)
        self.link.wake()

    def _look_alive(self) -> None:
        """Ask a silent server for a sign of life, and end the connection to one that gives none; have it be read at all."""
        if self._is_closed:
            return
        if not self.is_read:
            self.start_reading()
        else:
            self._is_seen_to = True
            self._deadlines.add((self, CONNECTION), self.link.look_alive())

    async def meet(self, channel: TlsChannel) -> None:
        """Look at the server. Raises NotTrustedError, UnreachableError, PeerError."""
        self._mutual.binding = channel.binding
        events = self.link.take(b"")
        while not events:
            if events is None:
                raise UnreachableError(f"{self._name} closed the connection: {self.link.fault}")
            events = await self.link.receive()
        match events[0]:
            case Auth() as auth:
                self._mutual.meet(auth)
            case Goaway(_, code, reason):
                sentence = f"{self._name} takes no connection now: {clip(reason) or clip(code)}"
                raise turned_away(sentence) if code == ErrorCode.OVERLOADED.value else UnreachableError(sentence)
            case Failed(reason):
                raise ProtocolError(f"{self._name} broke the protocol: {reason}")
            case other:
                raise ProtocolError(f"{self._name} began with a frame of kind {type(other).__name__}")
        self._mutual.check_server("")
        if not self._handle(events[1:]):
            if self._is_turned_away:
                raise self.ended()
            kind = ProtocolError if self.link.connection.state is ConnectionState.FAILED else UnreachableError
            raise kind(f"{self._name} ended the connection as it began: {self.link.fault}")

    def begin(self) -> None:
        """Look after the connection from now on.

        What the server sends is read by the call that waits for its answer, as long as there is one at a time; a task for it is
        started only when that is not so, or the connection stays. So one that is made for a call comes and goes without.
        """
        self._is_seen_to = False
        self._deadlines.add((self, CONNECTION), trio.current_time() + UNREAD_SECONDS)

    def start_reading(self) -> None:
        self.is_read = True
        self.link.background.start(self._read_on)
        self._look_alive()

    async def _read_on(self) -> None:
        """Read from the server until the connection is over."""
        try:
            self.link.flush()
            while not self._is_closed and await self._read():
                pass
        except Exception:
            self.end(f"what {self._name} sent could not be handled")
            raise

    async def _read_for(self, number: int) -> Response:
        """Read from the server until a call has its answer."""
        reading = self.waiting[number] = Reading()
        self.is_read = True
        try:
            while reading.answer is None:
                await self._read()
        finally:
            self.is_read = False
            if self._is_closed:
                pass
            elif self.waiting or self.streams:
                self.start_reading()
            elif self._is_seen_to:
                self.begin()
        return reading.answer.unwrap()

    async def _read(self) -> bool:
        """Act on what the server sends next; tell whether more can come. Where it cannot, all calls have failed."""
        events = await self.link.receive()
        if events is not None and self._handle(events):
            return True
        self.end(f"the connection to {self._name} ended: {self.link.fault or 'the server closed it'}")
        return False

    def _answer(self, waiter: trio.lowlevel.Task | Reading, answer: outcome.Outcome[Response]) -> None:
        """Give a call its answer."""
        if isinstance(waiter, Reading):
            waiter.answer = answer
            self.link.interrupt()
        else:
            trio.lowlevel.reschedule(waiter, answer)

    def end(self, reason: str) -> None:
        """Fail all calls, and those still to come."""
        self.why_over = self.why_over or reason
        self._deadlines.discard((self, CONNECTION))
        waiting, self.waiting = self.waiting, {}
        for waiter in waiting.values():
            self._answer(waiter, outcome.Error(self.ended()))
        for stream in self.streams.values():
            stream.fail(self.ended())
        self._tell_credit()

    def ended(self) -> UnreachableError | CallError:
        """Return a new error: one that many tasks raise would collect all their tracebacks."""
        return (
            turned_away(self.why_over)
            if self._is_turned_away
            else UnreachableError(self.why_over, hint="connect again")
        )

    def _handle(self, events: list[Event]) -> bool:
        goes_on = True
        for event in events:
            if type(event) is Response:
                waiter = self.waiting.pop(event.stream, None)
                if isinstance(waiter, Reading):
                    waiter.answer = outcome.Value(event)
                elif waiter is not None:
                    trio.lowlevel.reschedule(waiter, outcome.Value(event))
                elif (stream := self.streams.get(event.stream)) is not None:
                    stream.respond(event)
                    self._tell_credit()
            else:
                goes_on = self._handle_other(event)
                if not goes_on:
                    break  # what came along with it is for nobody any more
        if self.link.connection.outgoing:
            self.link.wake()
        return goes_on

    def _handle_other(self, event: Event) -> bool:
        connection = self.link.connection
        match event:
            case ReceivedItem():
                stream = self.streams.get(event.stream)
                if stream is None:
                    connection.item_read(event.stream, event.size)
                else:
                    stream.inbox.put(event)
            case Credit():
                self._tell_credit()
            case Auth() if self._auths.is_too_often(trio.current_time()):
                self.link.fault = f"{self._name} showed itself too often"
                return False
            case Auth():
                try:
                    self._mutual.meet(event)
                except PeerError as error:
                    self.link.fault = error.message
                    return False
            case Request() if self.link.is_full:
                self.link.fault = f"{self._name} calls this client without end, and does not read the answers"
                return False
            case Request():
                connection.send_error(event.stream, ErrorCode.UNKNOWN_METHOD, "a client has no methods", {})
            case Goaway(_, code, reason):
                self.why_over = f"{self._name} takes no more calls: {clip(reason)}"
                self._is_turned_away = code == ErrorCode.OVERLOADED.value
                self.link.fault = f"{self._name} ended it: {clip(reason)}"
                return not code
            case Failed(reason):
                self.link.fault = reason
                return False
            case End() | Cancel() | Pong() | Response() | Refused():
                pass
        return True

    async def send_item(self, number: int, value: Wire) -> bool:
        """Send an item of a stream when there is credit; tell whether the stream was still open."""
        connection = self.link.connection
        while not connection.may_send_item(number):
            if number not in connection.own or self.link.is_broken:
                return False
            if self._credit is None:
                self._credit = trio.lowlevel.ParkingLot()
            await self._credit.park()
        connection.send_item(number, value)
        self.link.wake()
        if self.link.is_full:
            await self.link.drained()
        await trio.lowlevel.checkpoint()
        return True

    def _tell_credit(self) -> None:
        if self._credit is not None:
            self._credit.unpark_all()

    def close(self) -> None:
        """Send what still waits, as far as the system takes it, and say goodbye."""
        self._is_closed = True
        self.link.flush()
        self.link.close()
        self.end(f"the connection to {self._name} is closed")

    def send_end(self, number: int) -> None:
        """Say that no more items follow."""
        self.link.connection.send_end(number)
        self.link.wake()
