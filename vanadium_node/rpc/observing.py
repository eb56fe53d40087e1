"""What somebody may want to know of a server's life: calls, refusals, connections, handshakes. Logs and metrics hang on it.

An observer costs nothing where none is given: the methods it wants to hear of are wrapped once, when the server starts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vanadium_node.errors import ErrorCode
from vanadium_node.rpc.call import Call
from vanadium_node.rpc.tracing import TraceContext

OK: Final = "ok"
"""The code of a call that was answered with a result; others have an ErrorCode's."""

call_log = logging.getLogger("vanadium_node.rpc.calls")
"""One line a call, at debug. It is looked at when a server starts: turned on later, it stays silent."""


class Handshake(StrEnum):
    """How a handshake ended."""

    DONE = "done"
    FAILED = "failed"
    """The peer broke the protocol, or showed what it may not show."""
    LEFT = "left"
    """The peer closed the connection, or it broke; a probe does that."""
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"
    """Closed because there were too many connections, or because others waited for its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedCall:
    """A call that ran. `code` is `ok` or an ErrorCode; `seconds` are trio's, from its start to its end or last item."""

    call: Call
    code: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedCall:
    """A call that never ran."""

    method: str
    """A method of this server; empty where the peer made a name up."""
    code: ErrorCode
    reason: str
    peer: str
    """The names that the peer presented, and its address."""


class Observer:
    """Hears of what happens; override what you need. Called in the event loop: return at once, and never wait.

    What an observer raises is logged and goes no further.
    """

    def call_ended(self, ended: EndedCall) -> None:
        """Hear of a call that has run, however it ended."""

    def call_refused(self, refused: RefusedCall) -> None:
        """Hear of a call that was refused before it ran."""

    def connection_opened(self) -> None:
        """Hear of a new connection, before its handshake."""

    def connection_closed(self) -> None:
        """Hear of its end."""

    def handshake_ended(self, outcome: Handshake, seconds: float) -> None:
        """Hear how a handshake ended, and how long it took."""


class Observers(Observer):
    """Several observers as one; their mistakes do no harm to what they observe."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def __bool__(self) -> bool:
        return bool(self._observers)

    def call_ended(self, ended: EndedCall) -> None:
        """Tell all."""
        self._tell(lambda each: each.call_ended(ended))

    def call_refused(self, refused: RefusedCall) -> None:
        """Tell all."""
        self._tell(lambda each: each.call_refused(refused))

    def connection_opened(self) -> None:
        """Tell all."""
        self._tell(lambda each: each.connection_opened())

    def connection_closed(self) -> None:
        """Tell all."""
        self._tell(lambda each: each.connection_closed())

    def handshake_ended(self, outcome: Handshake, seconds: float) -> None:
        """Tell all."""
        self._tell(lambda each: each.handshake_ended(outcome, seconds))

    def _tell(self, about: Callable[[Observer], None]) -> None:
        for each in self._observers:
            try:
                about(each)
            except Exception:  # noqa: BLE001 - what observes calls must not break them
                call_log.exception("an observer of calls failed")


class CallLog(Observer):
    """Writes one line for each call, at debug."""

    def call_ended(self, ended: EndedCall) -> None:
        """Write method, code, duration, names and trace."""
        call, peer = ended.call, ended.call.peer
        trace = TraceContext.parse(call.trace_id)
        fields: dict[str, object] = {
            "method": f"{call.suffix}.{call.method}" if call.suffix else call.method,
            "code": ended.code,
            "duration_ms": round(ended.seconds * 1000, 3),
            "peer": list(peer.names) if peer.uid is None else [f"user {peer.uid}"],
            "peer_address": peer.address,
            "trace_id": "" if trace is None else trace.trace_id,
            "span_id": "" if trace is None else trace.span_id,
        }
        call_log.debug(
            "%s %s %.3f ms peer=%s trace=%s",
            fields["method"],
            ended.code,
            fields["duration_ms"],
            ",".join(peer.names) or str(peer),
            fields["trace_id"] or "-",
            extra=fields,
        )


def observers_of(given: Sequence[Observer]) -> Observers:
    """Return the given observers, and the log of calls where it is turned on."""
    return Observers((*given, CallLog()) if call_log.isEnabledFor(logging.DEBUG) else given)
