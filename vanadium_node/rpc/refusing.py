"""Calls that are not run: what their callers are told, and what the log and the observers are."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vanadium_node.errors import ErrorCode, clip
from vanadium_node.rpc.host import Host
from vanadium_node.rpc.observing import RefusedCall
from vanadium_node.rpc.service import Method
from vanadium_node.rpc.tracing import TraceContext
from vanadium_node.wire.frames import Request

log = logging.getLogger("vanadium_node.rpc")

RETRY_AFTER_MS: Final = 100
"""When a peer with too many calls may come again."""

_REFUSALS: Final[Mapping[ErrorCode, str]] = MappingProxyType(
    {
        ErrorCode.NO_ACCESS: "{} is refused: {}",
        ErrorCode.BAD_ARG: "{}: {}",
        ErrorCode.OVERLOADED: "{} is not run now: {}",
    }
)
"""What the caller is told when a method is not run, with the method's name and the reason."""


def refusal_sentence(method: Method | None, code: ErrorCode, reason: str) -> str:
    """Return what the caller is told."""
    return reason if method is None else _REFUSALS[code].format(method.name, reason)


def why_unknown(request: Request, has_object: bool) -> tuple[ErrorCode, str]:
    """Return why there is nothing to call."""
    if has_object:
        sentence = f"there is no method '{clip(request.method, 80)}'; '__signature' tells what there is"
        return ErrorCode.UNKNOWN_METHOD, sentence
    return ErrorCode.UNKNOWN_OBJECT, f"there is no object '{clip(request.suffix, 80)}'"


def tell_refusal(
    host: Host,
    request: Request,
    method: Method | None,
    code: ErrorCode,
    reason: str,
    *,
    peer: str,
    local_names: tuple[str, ...],
) -> None:
    """Say that a call was refused: both ends' names, what was wanted, and why not."""
    name = clip(request.method, 80) if method is None else method.name
    trace = TraceContext.parse(request.trace_id)
    log.info(
        "refused %s of %s to %s: %s",
        name,
        ",".join(local_names) or "this server",
        peer,
        reason,
        extra={
            "method": name,
            "code": code.value,
            "local_names": list(local_names),
            "peer": peer,
            "trace_id": "" if trace is None else trace.trace_id,
        },
    )
    known = "" if method is None else method.name
    host.observer.call_refused(RefusedCall(method=known, code=code, reason=reason, peer=peer))
