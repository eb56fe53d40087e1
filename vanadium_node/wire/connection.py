"""One connection: frames in, events out; wishes in, bytes out. It holds the streams, and never waits for anything.

The driver calls `receive` with the peer's bytes and acts on the events; it calls `send_…` and then sends `outgoing`,
joined. A fault of the peer ends the connection: `receive` reports one `Failed` and nothing after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from vanadium_node.errors import ErrorCode, InputError, ProtocolError
from vanadium_node.wire import handshake
from vanadium_node.wire import stream as streams
from vanadium_node.wire.flow import Flow
from vanadium_node.wire.frames import (
    Auth,
    Cancel,
    Credit,
    End,
    Frame,
    FrameSplitter,
    Goaway,
    Item,
    Ping,
    Pong,
    Request,
    Response,
    Wire,
    decode_frame,
    encode_frame,
    error_fields,
)
from vanadium_node.wire.handshake import HandshakeEvent, HandshakeState, Role
from vanadium_node.wire.limits import DEFAULT_LIMITS, STREAM_WINDOW_BYTES, Limits
from vanadium_node.wire.stream import Stream, StreamEvent, StreamState


class ReceivedItem(NamedTuple):
    """An item; `size` is to be given back with `item_read` when somebody has read it."""

    stream: int
    value: Wire
    size: int


class Failed(NamedTuple):
    """The peer broke the protocol; the connection is over, and a goaway with the reason is in `outgoing`."""

    reason: str


Event: TypeAlias = Auth | Request | Response | ReceivedItem | End | Cancel | Credit | Pong | Goaway | Failed
"""What `receive` reports: frames as they are, where they are right, and the two above."""


class ConnectionState(Enum):
    """How far a connection is, once it can carry frames."""

    ACTIVE = auto()
    DRAINING = auto()
    """One end takes no new calls; the running ones finish."""
    FAILED = auto()


class ConnectionEvent(Enum):
    """What changes a connection as a whole."""

    GOAWAY = auto()
    """Sent or received."""
    FAULT = auto()


TRANSITIONS: Final[Mapping[tuple[ConnectionState, ConnectionEvent], ConnectionState]] = MappingProxyType(
    {
        (ConnectionState.ACTIVE, ConnectionEvent.GOAWAY): ConnectionState.DRAINING,
        (ConnectionState.ACTIVE, ConnectionEvent.FAULT): ConnectionState.FAILED,
        (ConnectionState.DRAINING, ConnectionEvent.GOAWAY): ConnectionState.DRAINING,
        (ConnectionState.DRAINING, ConnectionEvent.FAULT): ConnectionState.FAILED,
    }
)
"""FAILED has no row: nothing leads out of it, and bytes that still come in are not looked at."""

_OWN_PARITY: Final[Mapping[Role, int]] = MappingProxyType({Role.CLIENT: 1, Role.SERVER: 0})


class Connection:
    """The protocol's state at one end of one connection."""

    __slots__ = (
        "_authenticates",
        "_flow",
        "_last_local",
        "_last_remote",
        "_limits",
        "_parity",
        "_pings",
        "_request_bytes",
        "_splitter",
        "handshake",
        "incoming",
        "outgoing",
        "outgoing_bytes",
        "own",
        "role",
        "state",
    )

    def __init__(self, role: Role, limits: Limits = DEFAULT_LIMITS, *, authenticates: bool = True) -> None:
        """Start one end. Without `authenticates` (unix sockets, whose peer the system names) calls may be made at once."""
        self.role = role
        self.state = ConnectionState.ACTIVE
        self.handshake = HandshakeState.START if authenticates else HandshakeState.OPEN
        self.own: dict[int, Stream] = {}
        """Calls that this end made."""
        self.incoming: dict[int, Stream] = {}
        """Calls that the peer made."""
        self.outgoing: list[bytes] = []
        """Encoded frames to send, in order; the driver takes them with `take_outgoing`."""
        self.outgoing_bytes = 0
        self._authenticates = authenticates
        self._limits = limits
        self._flow = Flow(limits.max_frame_bytes)
        self._splitter = FrameSplitter(limits.max_auth_bytes if authenticates else limits.max_frame_bytes)
        self._parity = _OWN_PARITY[role]
        self._last_local = -1 if self._parity else 0
        self._last_remote = -1 if not self._parity else 0
        self._request_bytes = 0
        self._pings = 0

    # Bytes in, events out

    def receive(self, data: bytes) -> list[Event]:
        """Return what the peer's bytes mean. After a `Failed` there is nothing more, whatever comes."""
        events: list[Event] = []
        if self.state is ConnectionState.FAILED:
            return events
        self._pings = 0
        try:
            for content in self._splitter.split(data):
                frame = decode_frame(content)
                if frame is None:
                    continue
                if self.handshake is not HandshakeState.OPEN and type(frame) is not Auth and type(frame) is not Goaway:
                    raise ProtocolError("the peer sent something before it had shown its credentials")
                _HANDLERS[type(frame)](self, frame, len(content), events)
        except ProtocolError as error:
            events.append(self.fail(ErrorCode.BAD_ARG, error.message))
        return events

    def receive_end(self) -> Failed | None:
        """Take note that the peer closed the channel; in the middle of a frame that is a fault."""
        if self._splitter.is_clean or self.state is ConnectionState.FAILED:
            return None
        return self.fail(ErrorCode.BAD_ARG, "the peer closed the connection in the middle of a frame")

    def fail(self, code: ErrorCode, reason: str) -> Failed:
        """End the connection for the peer's fault, telling it why."""
        if self.state is not ConnectionState.FAILED:
            self._queue(Goaway(0, code.value, reason))
            self.state = TRANSITIONS[self.state, ConnectionEvent.FAULT]
        return Failed(reason)

    # Wishes in, bytes out

    def take_outgoing(self) -> bytes:
        """Return all frames that wait to be sent, joined."""
        outgoing = self.outgoing
        data = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
        outgoing.clear()
        self.outgoing_bytes = 0
        return data

    def send_auth(self, auth: Auth) -> None:
        """Show this end. Raises InputError where it is not our turn."""
        state = handshake.TRANSITIONS.get((self.role, self.handshake, HandshakeEvent.SENT_AUTH))
        if state is None:
            raise InputError(f"a {self.role} cannot show itself in the state {self.handshake.name}")
        self._queue(auth)
        self._enter(state)

    def send_request(
        self,
        method: str,
        suffix: str,
        arguments: list[Wire],
        *,
        deadline_ms: int | None = None,
        has_items: bool = False,
        granted: bytes | None = None,
        discharges: list[bytes] | None = None,
        trace_id: str = "",
    ) -> int:
        """Make a call and return its stream. Raises InputError before both ends are known, and when draining."""
        if self.handshake is not HandshakeState.OPEN or self.state is not ConnectionState.ACTIVE:
            raise InputError(f"no call can be made in the states {self.handshake.name} and {self.state.name}")
        number = self._last_local + 2
        request = Request(
            number, method, suffix, arguments, deadline_ms, has_items, granted, discharges or [], trace_id
        )
        self._queue(request)
        self._last_local = number
        state = StreamState.OPEN if has_items else StreamState.ENDED
        self.own[number] = Stream(state, STREAM_WINDOW_BYTES, 0)
        return number

    def send_response(self, number: int, result: Wire) -> None:
        """Answer a call of the peer's with a result; nothing happens when it has been cancelled."""
        if number in self.incoming:
            self._queue(Response(number, result, None))
            self._close_incoming(number)

    def send_error(self, number: int, code: ErrorCode, sentence: str, fields: Mapping[str, str | int]) -> None:
        """Answer a call of the peer's with an error; nothing happens when it has been cancelled."""
        if number in self.incoming:
            self._queue(Response(number, None, error_fields(code, sentence, fields)))
            self._close_incoming(number)

    def may_send_item(self, number: int) -> bool:
        """Tell whether the stream is open with credit for an item; when it is closed there is nobody to read one."""
        stream = self._stream(number)
        return stream is not None and self._flow.may_send(stream)

    def send_item(self, number: int, value: Wire) -> None:
        """Send an item on an open stream. Raises InputError where `may_send_item` would have said no."""
        stream = self._stream(number)
        if stream is None or not self._flow.may_send(stream):
            raise InputError(f"no item can be sent on stream {number} now")
        self._step(stream, StreamEvent.CALLER_ITEM if number in self.own else StreamEvent.CALLEE_ITEM, InputError)
        self._flow.sent(stream, self._queue(Item(number, value)))

    def send_end(self, number: int) -> None:
        """Say that no more items follow on a call of ours; nothing happens when it is over or ended already."""
        stream = self.own.get(number)
        if stream is not None and stream.state is StreamState.OPEN:
            self._step(stream, StreamEvent.END, InputError)
            self._queue(End(number))

    def send_cancel(self, number: int) -> None:
        """Give up a call of ours; nothing happens when it is over."""
        if self.own.pop(number, None) is not None and self.state is not ConnectionState.FAILED:
            self._queue(Cancel(number))

    def item_read(self, number: int, size: int) -> None:
        """Give credit back for an item that somebody has read, in batches of half a window."""
        if self.state is ConnectionState.FAILED:
            return
        stream = self._stream(number)
        if stream is not None and (returned := self._flow.read_from_stream(stream, size)):
            self._queue(Credit(number, returned))
        if returned := self._flow.read_from_connection(size):
            self._queue(Credit(0, returned))

    def send_ping(self, number: int) -> None:
        """Ask for a sign of life."""
        self._queue(Ping(0, number))

    def send_goaway(self, code: str, reason: str) -> None:
        """Take no new calls, and tell the peer so."""
        if self.state is ConnectionState.ACTIVE:
            self._queue(Goaway(0, code, reason))
            self.state = TRANSITIONS[self.state, ConnectionEvent.GOAWAY]

    # Frames that came in

    def _on_auth(self, frame: Auth, _size: int, events: list[Event]) -> None:
        state = handshake.TRANSITIONS.get((self.role, self.handshake, HandshakeEvent.RECEIVED_AUTH))
        if state is None or not self._authenticates:
            raise ProtocolError(f"the peer showed its credentials in the state {self.handshake.name}")
        self._enter(state)
        events.append(frame)

    def _on_request(self, frame: Request, size: int, events: list[Event]) -> None:
        number = frame.stream
        if number & 1 == self._parity or number <= self._last_remote:
            raise ProtocolError(f"the peer opened stream {number}, which is not its next one")
        self._last_remote = number
        self._request_bytes += size
        self.incoming[number] = Stream(
            StreamState.OPEN if frame.has_items else StreamState.ENDED, STREAM_WINDOW_BYTES, size
        )
        if self.state is not ConnectionState.ACTIVE:
            self.send_error(number, ErrorCode.OVERLOADED, "this server is about to stop", {"retry_elsewhere": 1})
        elif len(self.incoming) > self._limits.max_streams or self._request_bytes > self._limits.max_request_bytes:
            sentence = f"more than {self._limits.max_streams} calls, or {self._limits.max_request_bytes} bytes of them, at once"
            self.send_error(number, ErrorCode.OVERLOADED, sentence, {"retry_after_ms": 100})
        else:
            events.append(frame)

    def _on_response(self, frame: Response, _size: int, events: list[Event]) -> None:
        if self.own.pop(frame.stream, None) is not None:
            events.append(frame)
        elif not self._is_closed(frame.stream) or frame.stream & 1 != self._parity:
            raise ProtocolError(f"the peer answered stream {frame.stream}, which this end never opened")

    def _on_item(self, frame: Item, size: int, events: list[Event]) -> None:
        number = frame.stream
        stream = self._stream(number)
        if stream is None and not self._is_closed(number):
            raise ProtocolError(f"the peer sent an item on stream {number}, which never was open")
        self._flow.received(stream, size)
        if stream is None:
            self.item_read(number, size)
            return
        self._step(stream, StreamEvent.CALLEE_ITEM if number in self.own else StreamEvent.CALLER_ITEM, ProtocolError)
        events.append(ReceivedItem(number, frame.value, size))

    def _on_end(self, frame: End, _size: int, events: list[Event]) -> None:
        stream = self._of_peer(frame.stream)
        if stream is not None:
            self._step(stream, StreamEvent.END, ProtocolError)
            events.append(frame)

    def _on_cancel(self, frame: Cancel, _size: int, events: list[Event]) -> None:
        if self._of_peer(frame.stream) is not None:
            self._close_incoming(frame.stream)
            events.append(frame)

    def _on_credit(self, frame: Credit, _size: int, events: list[Event]) -> None:
        if frame.stream == 0:
            self._flow.granted(self._flow, frame.size)
        else:
            stream = self._stream(frame.stream)
            if stream is None:
                if not self._is_closed(frame.stream):
                    raise ProtocolError(f"the peer granted credit to stream {frame.stream}, which never was open")
                return
            self._flow.granted(stream, frame.size)
        events.append(frame)

    def _on_ping(self, frame: Ping, _size: int, _events: list[Event]) -> None:
        self._pings += 1
        if self._pings > self._limits.max_pings:
            raise ProtocolError(f"the peer sent more than {self._limits.max_pings} pings at once")
        self._queue(Pong(0, frame.number))

    def _on_pong(self, frame: Pong, _size: int, events: list[Event]) -> None:
        events.append(frame)

    def _on_goaway(self, frame: Goaway, _size: int, events: list[Event]) -> None:
        self.state = TRANSITIONS[self.state, ConnectionEvent.GOAWAY]
        events.append(frame)

    # Shared by both directions

    def _enter(self, state: HandshakeState) -> None:
        self.handshake = state
        if state is HandshakeState.OPEN:
            self._splitter.max_frame_bytes = self._limits.max_frame_bytes

    def _queue(self, frame: Frame) -> int:
        data = encode_frame(frame)
        if len(data) > self._limits.max_frame_bytes:
            raise InputError(
                f"a message of {len(data)} bytes is larger than the limit of {self._limits.max_frame_bytes} bytes",
                hint="send it in parts, as a stream",
            )
        self.outgoing.append(data)
        self.outgoing_bytes += len(data)
        return len(data)

    def _close_incoming(self, number: int) -> None:
        self._request_bytes -= self.incoming.pop(number).request_bytes

    def _stream(self, number: int) -> Stream | None:
        return (self.own if number & 1 == self._parity else self.incoming).get(number)

    def _of_peer(self, number: int) -> Stream | None:
        """Return the open stream of a frame that only a caller sends; None for a closed one."""
        stream = self.incoming.get(number)
        if stream is None and (number & 1 == self._parity or not self._is_closed(number)):
            raise ProtocolError(f"the peer ended or cancelled stream {number}, which it never opened")
        return stream

    def _is_closed(self, number: int) -> bool:
        """Tell whether a stream that is not open now once was."""
        return 0 < number <= (self._last_local if number & 1 == self._parity else self._last_remote)

    def _step(self, stream: Stream, event: StreamEvent, error: type[InputError] | type[ProtocolError]) -> None:
        state = streams.TRANSITIONS.get((stream.state, event))
        if state is None:
            raise error(f"{event.name} is not possible on a stream in the state {stream.state.name}")
        stream.state = state


_HANDLERS: Final[Mapping[type[Frame], Callable[..., None]]] = MappingProxyType(
    {
        Auth: Connection._on_auth,
        Request: Connection._on_request,
        Response: Connection._on_response,
        Item: Connection._on_item,
        End: Connection._on_end,
        Cancel: Connection._on_cancel,
        Credit: Connection._on_credit,
        Ping: Connection._on_ping,
        Pong: Connection._on_pong,
        Goaway: Connection._on_goaway,
    }
)
"""What to do about each frame. One table for all connections: bound methods would tie each connection into a cycle."""
