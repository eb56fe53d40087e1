"""One connection: frames in, events out; wishes in, bytes out. It holds the streams, and never waits for anything.

The driver calls `receive` with the peer's bytes and acts on the events; it calls `send_…` and then sends `outgoing`,
joined. A fault of the peer ends the connection: `receive` reports one `Failed` and nothing after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from vanadium_node.errors import ErrorCode, InputError, ProtocolError
from vanadium_node.wire import handshake
from vanadium_node.wire import stream as streams
from vanadium_node.wire.events import (
    TRANSITIONS,
    ConnectionEvent,
    ConnectionState,
    Event,
    Failed,
    ReceivedItem,
    Refused,
)
from vanadium_node.wire.flow import Flow
from vanadium_node.wire.frames import (
    Auth,
    Cancel,
    Credit,
    End,
    Frame,
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
)  # fmt: skip
from vanadium_node.wire.handshake import HandshakeEvent, HandshakeState, Role
from vanadium_node.wire.limits import DEFAULT_LIMITS, Limits
from vanadium_node.wire.plain import decode_plain, encode_bytes_item, encode_bytes_response, encode_plain_request
from vanadium_node.wire.splitter import FrameSplitter
from vanadium_node.wire.stream import Stream, StreamEvent, StreamState
from vanadium_node.wire.stream_table import StreamTable


class Connection:
    """The protocol's state at one end of one connection."""

    __slots__ = (
        "_authenticates",
        "_flow",
        "_limits",
        "_pings",
        "_splitter",
        "_streams",
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
        self._streams = StreamTable(role)
        self.own = self._streams.own
        """Calls that this end made."""
        self.incoming = self._streams.incoming
        """Calls that the peer made."""
        self.outgoing: list[bytes] = []
        """Encoded frames to send, in order, large ones in parts; the driver takes them with `take_outgoing`."""
        self.outgoing_bytes = 0
        self._authenticates = authenticates
        self._limits = limits
        self._flow = Flow(limits.max_frame_bytes)
        self._splitter = FrameSplitter(limits.max_auth_bytes if authenticates else limits.max_frame_bytes)
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
                frame = decode_plain(content) or decode_frame(content)
                if frame is None:
                    continue
                kind = type(frame)
                if self.handshake is not HandshakeState.OPEN and kind is not Auth and kind is not Goaway:
                    raise ProtocolError("the peer sent something before it had shown its credentials")
                _HANDLERS[kind](self, frame, len(content), events)
        except ProtocolError as error:
            events.append(self.fail(ErrorCode.BAD_ARG, error.message))
        return events

    def receive_end(self) -> Failed | None:
        """Take note that the peer closed the channel; in the middle of a frame that is a fault."""
        if self._splitter.is_clean or self.state is ConnectionState.FAILED:
            return None
        return self.fail(ErrorCode.BAD_ARG, "the peer closed the connection in the middle of a frame")

    def fail(self, code: ErrorCode, reason: str) -> Failed:
        """End the connection for the peer's fault, telling it why; nothing is sent after that, whatever is wished."""
        if self.state is not ConnectionState.FAILED:
            self._queue(Goaway(0, code.value, reason))
            self._change(ConnectionEvent.FAULT)
            self.own.clear()
            self.incoming.clear()
        return Failed(reason)

    @property
    def incomplete_frame(self) -> int:
        """Which frame the peer has begun and not ended, as a number that no other has; 0 where there is none."""
        return 0 if self._splitter.is_clean else self._splitter.incomplete

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
        if self.state is ConnectionState.FAILED:
            return
        state = handshake.TRANSITIONS[self.role, self.handshake, HandshakeEvent.SENT_AUTH]
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
        number = self._streams.next_own
        plain = None
        if granted is None and not (has_items or discharges or trace_id):
            plain = encode_plain_request(number, method, suffix, arguments, deadline_ms)
        if plain is None:
            others = (has_items, granted, discharges or [], trace_id)
            plain = encode_frame(Request(number, method, suffix, arguments, deadline_ms, *others))
        self._queue_parts((plain,))
        self._streams.open_own(has_items=has_items)
        return number

    def send_response(self, number: int, result: Wire) -> None:
        """Answer a call of the peer's with a result; nothing happens when it has been cancelled."""
        if number in self.incoming:
            if type(result) is bytes:
                self._queue_parts(encode_bytes_response(number, result))
            else:
                self._queue(Response(number, result, None))
            self._streams.close_incoming(number)

    def send_error(self, number: int, code: ErrorCode, sentence: str, fields: Mapping[str, str | int]) -> None:
        """Answer a call of the peer's with an error; nothing happens when it has been cancelled."""
        if number in self.incoming:
            self._queue(Response(number, None, error_fields(code, sentence, fields)))
            self._streams.close_incoming(number)

    def may_send_item(self, number: int) -> bool:
        """Tell whether the stream is open with credit for an item; when it is closed there is nobody to read one."""
        stream = self._streams.find(number)
        return stream is not None and self._flow.may_send(stream)

    def send_item(self, number: int, value: Wire) -> None:
        """Send an item on an open stream. Raises InputError where `may_send_item` would have said no."""
        stream = self._streams.find(number)
        if stream is None or not self._flow.may_send(stream):
            raise InputError(f"no item can be sent on stream {number} now")
        self._step(stream, StreamEvent.CALLER_ITEM if number in self.own else StreamEvent.CALLEE_ITEM, InputError)
        size = (
            self._queue_parts(encode_bytes_item(number, value))
            if type(value) is bytes
            else self._queue(Item(number, value))
        )
        self._flow.sent(stream, size)

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
        stream = self._streams.find(number)
        if stream is not None and (returned := self._flow.read_from_stream(stream, size)):
            self._queue(Credit(number, returned))
        if returned := self._flow.read_from_connection(size):
            self._queue(Credit(0, returned))

    def send_ping(self, number: int) -> None:
        """Ask for a sign of life; nothing happens before both ends are known, and after a fault."""
        if self.handshake is HandshakeState.OPEN and self.state is not ConnectionState.FAILED:
            self._queue(Ping(0, number))

    def send_goaway(self, code: str, reason: str) -> None:
        """Take no new calls, and tell the peer so."""
        if self.state is ConnectionState.ACTIVE:
            self._queue(Goaway(0, code, reason))
            self._change(ConnectionEvent.GOAWAY)

    # Frames that came in

    def _on_auth(self, frame: Auth, _size: int, events: list[Event]) -> None:
        state = handshake.TRANSITIONS[self.role, self.handshake, HandshakeEvent.RECEIVED_AUTH]
        if state is None or not self._authenticates:
            raise ProtocolError(f"the peer showed its credentials in the state {self.handshake.name}")
        self._enter(state)
        events.append(frame)

    def _on_request(self, frame: Request, size: int, events: list[Event]) -> None:
        number = frame.stream
        self._streams.open_incoming(frame, size)
        if self.state is not ConnectionState.ACTIVE:
            sentence, fields = "this server is about to stop", {"retry_elsewhere": 1}
        elif (
            len(self.incoming) > self._limits.max_streams
            or self._streams.request_bytes > self._limits.max_request_bytes
        ):
            sentence = f"more than {self._limits.max_streams} calls, or {self._limits.max_request_bytes} bytes of them, at once"
            fields = {"retry_after_ms": 100}
        else:
            events.append(frame)
            return
        self.send_error(number, ErrorCode.OVERLOADED, sentence, fields)
        events.append(Refused(frame, sentence))

    def _on_response(self, frame: Response, _size: int, events: list[Event]) -> None:
        if self.own.pop(frame.stream, None) is not None:
            events.append(frame)
        elif not self._streams.was_own(frame.stream):
            raise ProtocolError(f"the peer answered stream {frame.stream}, which this end never opened")

    def _on_item(self, frame: Item, size: int, events: list[Event]) -> None:
        number = frame.stream
        stream = self._streams.find(number)
        if stream is None and not self._streams.was_open(number):
            raise ProtocolError(f"the peer sent an item on stream {number}, which never was open")
        self._flow.received(stream, size)
        if stream is None:
            self.item_read(number, size)
            return
        self._step(stream, StreamEvent.CALLEE_ITEM if number in self.own else StreamEvent.CALLER_ITEM, ProtocolError)
        events.append(ReceivedItem(number, frame.value, size))

    def _on_end(self, frame: End, _size: int, events: list[Event]) -> None:
        stream = self._streams.of_peer(frame.stream)
        if stream is not None:
            self._step(stream, StreamEvent.END, ProtocolError)
            events.append(frame)

    def _on_cancel(self, frame: Cancel, _size: int, events: list[Event]) -> None:
        if self._streams.of_peer(frame.stream) is not None:
            self._streams.close_incoming(frame.stream)
            events.append(frame)

    def _on_credit(self, frame: Credit, _size: int, events: list[Event]) -> None:
        if frame.stream == 0:
            self._flow.granted(self._flow, frame.size)
        else:
            stream = self._streams.find(frame.stream)
            if stream is None:
                if not self._streams.was_open(frame.stream):
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
        self._change(ConnectionEvent.GOAWAY)
        events.append(frame)

    # Shared by both directions

    def _change(self, event: ConnectionEvent) -> None:
        self.state = TRANSITIONS[self.state, event] or self.state

    def _enter(self, state: HandshakeState) -> None:
        self.handshake = state
        if state is HandshakeState.OPEN:
            self._splitter.max_frame_bytes = self._limits.max_frame_bytes

    def _queue(self, frame: Frame) -> int:
        return self._queue_parts((encode_frame(frame),))

    def _queue_parts(self, parts: tuple[bytes, ...]) -> int:
        size = sum(map(len, parts))
        if size > self._limits.max_frame_bytes:
            raise InputError(
                f"a message of {size} bytes is larger than the limit of {self._limits.max_frame_bytes} bytes",
                hint="send it in parts, as a stream",
            )
        self.outgoing += parts
        self.outgoing_bytes += size
        return size

    def _step(self, stream: Stream, event: StreamEvent, error: type[InputError] | type[ProtocolError]) -> None:
        state = streams.TRANSITIONS[stream.state, event]
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
