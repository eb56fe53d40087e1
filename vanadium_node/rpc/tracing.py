"""W3C trace context (https://www.w3.org/TR/trace-context/): which larger request a call belongs to, carried from call to call.

A request's `trace_id` is a `traceparent`: `00-<32 hex: the trace>-<16 hex: the caller's span>-<2 hex: flags>`. Whoever makes
a call while it serves one, or inside `traced()`, sends the same trace with a span of its own. Nothing is sent where no trace
has been begun, and nothing is recorded here: log lines and an application's interceptors carry the ids.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final, Self

SAMPLED: Final = 1
"""The only flag of version 00 that this end knows: somebody upstream may have recorded the trace."""

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_VERSION: Final = "00"
_FORBIDDEN_VERSION: Final = "ff"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of a trace: 32 and 16 lower-case hexadecimal digits, neither all zeros, and the flags."""

    trace_id: str
    span_id: str
    flags: int = SAMPLED

    @classmethod
    def start(cls) -> Self:
        """Begin a trace, with random ids."""
        return cls(_random_hex(16), _random_hex(8))

    @classmethod
    def parse(cls, traceparent: str) -> Self | None:
        """Read a `traceparent`; None for anything else, as the recommendation wants: a broken one restarts the trace.

        Of later versions (§3.2.4) the four fields known here are read, and what follows them is left.
        """
        match = _TRACEPARENT.fullmatch(traceparent) if len(traceparent) <= 512 else None
        if match is None or match[1] == _FORBIDDEN_VERSION or (match[1] == _VERSION and match[5] is not None):
            return None
        if not int(match[2], 16) or not int(match[3], 16):
            return None
        return cls(match[2], match[3], int(match[4], 16) & SAMPLED)

    def child(self) -> Self:
        """Return another span of the same trace."""
        return replace(self, span_id=_random_hex(8))

    def __str__(self) -> str:
        return f"{_VERSION}-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def current_trace() -> TraceContext | None:
    """Return the span that calls made here will be children of: the served call's, or that of `traced`."""
    return _current.get()


@contextmanager
def traced(trace: TraceContext | None = None) -> Iterator[TraceContext]:
    """Make the calls of this block part of a trace: the one given, else the current one, else a new one."""
    chosen = trace or _current.get() or TraceContext.start()
    token = _current.set(chosen)
    try:
        yield chosen
    finally:
        _current.reset(token)


def outgoing_traceparent() -> str:
    """Return what a call made now carries; empty outside of any trace."""
    current = _current.get()
    return "" if current is None else str(current.child())


def enter_trace(traceparent: str) -> None:
    """Continue a caller's trace in the task that serves its call, whose context is the call's own."""
    _current.set(TraceContext.parse(traceparent))


def _random_hex(length: int) -> str:
    """Return `length` random bytes as text; never all zeros, which would be no id."""
    while not any(data := secrets.token_bytes(length)):
        pass
    return data.hex()


_current: Final[ContextVar[TraceContext | None]] = ContextVar("vanadium_trace", default=None)
