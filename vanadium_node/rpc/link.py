"""A connection with its socket and channel: reads batches of events, writes frames joined.

Frames queue up in the connection; `flush` encrypts and sends them all at once, right away, and `wake` leaves that to the
writer's task at the end of the scheduler's round, so that calls of the same round share one record and one `send`. A long round
is sent in parts, so that the peer works on the first while this end works on the rest.
What the system does not take is the writer's to send; `drained` waits for that when a peer does not read.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import trio

from vanadium_node.errors import ProtocolError
from vanadium_node.rpc.background import Background
from vanadium_node.rpc.polling import Polling
from vanadium_node.rpc.tls import Channel
from vanadium_node.wire.connection import Connection
from vanadium_node.wire.events import Event
from vanadium_node.wire.limits import Limits

_RECEIVE_BYTES = 1 << 17
"""Read at once. More would have the system map and unmap memory for every small message (malloc's threshold)."""

_MORE = getattr(socket, "MSG_MORE", 0)
"""Linux's flag for 'do not send yet, more comes'."""

_FRAMES_AT_ONCE = 32
_BYTES_AT_ONCE = 1 << 17
"""What a round may queue before it is sent without waiting for the round's end."""


class Link:
    """One end of a connection. A task that writes is started when it is first needed."""

    __slots__ = (
        "_channel",
        "_drained",
        "_incomplete",
        "_incomplete_since",
        "_is_armed",
        "_polling",
        "_rest",
        "_writer",
        "background",
        "connection",
        "fault",
        "is_broken",
        "is_peers_fault",
        "is_pinged",
        "last_received",
        "limits",
        "socket",
    )

    def __init__(
        self, sock: socket.socket, channel: Channel, connection: Connection, limits: Limits, background: Background
    ) -> None:
        self.socket = sock
        self.connection = connection
        self.limits = limits
        self.is_broken = False
        """Nothing can be sent any more."""
        self.fault = ""
        """Why the connection ended, where the reason is known."""
        self.is_peers_fault = False
        """It ended because of something that the peer did or failed to do, not just because it is gone."""
        self.last_received = trio.current_time()
        self.is_pinged = False
        """A ping was sent, and nothing has come since."""
        self._incomplete = 0
        self._incomplete_since = 0.0
        self._channel = channel
        self.background = background
        self._polling = Polling()
        self._rest: memoryview | None = None
        self._writer: trio.lowlevel.Task | None = None
        self._is_armed = False
        self._drained: trio.lowlevel.ParkingLot | None = None
        """Where those wait who have sent more than the peer reads."""

    async def receive(self) -> list[Event] | None:
        """Return what the next bytes of the peer mean, maybe nothing yet; None when the connection is over."""
        try:
            data = await self._polling.poll(self.socket, _RECEIVE_BYTES) if self._polling.is_due else None
            if data is None:
                await trio.lowlevel.wait_readable(self.socket)
                data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except trio.ClosedResourceError:
            return []  # `interrupt`
        except OSError as error:
            self._ended(f"the connection broke: {error.strerror or error}")
            return None
        if not data:
            ended = self.connection.receive_end()
            if ended is None:
                self._ended("the peer closed the connection")
            else:
                self.blame(ended.reason)
            return None
        now = trio.current_time()
        seconds, self.last_received = now - self.last_received, now
        self.is_pinged = False
        events = self.take(data)
        self._polling.received(0 if events is None else len(events), seconds)
        return events

    def interrupt(self) -> None:
        """Have `receive` return, with no events if nothing came: there is something to look at besides the peer."""
        if self.socket.fileno() != -1:
            trio.lowlevel.notify_closing(self.socket)  # wakes whoever waits for the socket, and does nothing to it

    def take(self, data: bytes) -> list[Event] | None:
        """Return what bytes of the socket mean; empty ones, what the channel still held from its handshake."""
        try:
            frames = self._channel.decrypt(data)
        except ProtocolError as error:
            self.blame(error.message)
            return None
        if frames is None:
            self._ended("the peer closed the connection")
            return None
        return self.connection.receive(frames) if frames else []

    def blame(self, reason: str) -> None:
        """Take note that the connection is over because of the peer, and how."""
        self.is_peers_fault = True
        self.fault = self.fault or reason
        self._tell_drained()

    def _ended(self, reason: str) -> None:
        self.fault = self.fault or reason
        self.is_broken = True
        self._tell_drained()

    def flush(self) -> None:
        """Send everything that waits, as far as the system takes it now."""
        if self._rest is not None or self.is_broken or not self.connection.outgoing:
            return
        try:
            data = self._channel.encrypt(self.connection.take_outgoing())
        except ProtocolError as error:
            self.blame(error.message)
            self.abort()
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(error)
            return
        if sent != len(data):
            self._rest = memoryview(data)[sent:]
            self.wake()

    def flush_much(self) -> bool:
        """Send what waits if it is so much that the peer had better begin with it; tell whether it was."""
        connection = self.connection
        if len(connection.outgoing) < _FRAMES_AT_ONCE and connection.outgoing_bytes < _BYTES_AT_ONCE:
            return False
        self.flush()
        return True

    def wake(self) -> None:
        """Have the writer send what waits, after the other tasks of this round have added theirs; at once when it is much."""
        self.flush_much()
        if self._is_armed or self.is_broken:
            return
        self._is_armed = True
        if self._writer is None:
            self.background.start(self._write)
        else:
            trio.lowlevel.reschedule(self._writer)

    async def _write(self) -> None:
        """Send what waits whenever woken, until cancelled or the connection breaks."""
        self._writer = trio.lowlevel.current_task()
        try:
            await self._write_on()
        except Exception:
            self.abort()
            raise

    async def _write_on(self) -> None:
        while not self.is_broken:
            try:
                await self._send_rest()
            except OSError as error:
                self._break(error)
                break
            self.flush()
            if self._rest is None and not self.connection.outgoing:
                self._tell_drained()
                self._is_armed = False
                await trio.lowlevel.wait_task_rescheduled(self._writer_cancelled)

    def _writer_cancelled(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        # The writer is about to be cancelled: a `wake` between now and then must not schedule it a second time.
        self._is_armed = True
        return trio.lowlevel.Abort.SUCCEEDED

    async def _send_rest(self) -> None:
        while self._rest is not None and not self.is_broken:
            try:
                await trio.lowlevel.wait_writable(self.socket)
                sent = self.socket.send(self._rest)
            except (BlockingIOError, trio.ClosedResourceError):
                continue
            self._rest = self._rest[sent:] if sent != len(self._rest) else None

    async def drained(self) -> None:
        """Wait until everything is sent, or the connection is broken."""
        while (self._rest is not None or self.connection.outgoing) and not self.is_broken:
            self.wake()
            if self._drained is None:
                self._drained = trio.lowlevel.ParkingLot()
            await self._drained.park()

    def look_alive(self) -> float:
        """Ping a peer that was silent for the idle time, and end the connection to one that stays silent as long again.

        Returns when to look next, by trio's clock.
        """
        idle_seconds = self.limits.idle_timeout.total_seconds()
        now = trio.current_time()
        silent = now - self.last_received
        if silent >= 2 * idle_seconds and self.is_pinged:
            self.blame(f"nothing came for {silent:.0f} s, not even an answer to a ping")
            self.abort()
        elif silent >= idle_seconds and not self.is_pinged:
            self.is_pinged = True
            self.connection.send_ping(0)
            self.flush()
        elif self._is_slow(now, 2 * idle_seconds):
            self.blame(f"a frame that it began {now - self._incomplete_since:.0f} s ago is still not whole")
            self.abort()
        due = self.last_received + (2 if self.is_pinged else 1) * idle_seconds
        return max(due, now + idle_seconds / 4)

    def _is_slow(self, now: float, patience: float) -> bool:
        """Tell whether the peer has been sending one frame for so long: bytes that trickle in are no silence."""
        incomplete = self.connection.incomplete_frame
        if not incomplete or incomplete != self._incomplete:
            self._incomplete, self._incomplete_since = incomplete, now
        return now - self._incomplete_since > patience

    def _tell_drained(self) -> None:
        if self._drained is not None:
            self._drained.unpark_all()

    @property
    def queued_bytes(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self.connection.outgoing_bytes + (0 if self._rest is None else len(self._rest))

    @property
    def is_full(self) -> bool:
        """Whether more waits for the peer than may: nothing more is to be queued before it is `drained`."""
        return self.queued_bytes > self.limits.max_queued_bytes

    def _break(self, error: OSError) -> None:
        self._ended(f"the connection broke: {error.strerror or error}")
        self.abort()

    def abort(self) -> None:
        """End the connection at once; whoever reads or writes it notices."""
        self.is_broken = True
        with suppress(OSError):  # it may be shut down already
            self.socket.shutdown(socket.SHUT_RDWR)
        self._tell_drained()

    def close(self) -> None:
        """Say goodbye as far as the system takes it, and send nothing more."""
        if not self.is_broken and self._rest is None:
            with suppress(OSError):  # in one packet with the end, which comes next
                self.socket.send(self._channel.close(), _MORE)
        self.is_broken = True
        self._tell_drained()
