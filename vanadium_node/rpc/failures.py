"""Errors of calls, in both directions: from a method's exception to the wire, and from the wire to the caller's exception."""

from __future__ import annotations

from typing import Final

import trio

from vanadium_node.errors import CallError, ErrorCode, InputError, NotTrustedError, VanadiumError, clip
from vanadium_node.wire.frames import Wire

MAX_SENTENCE: Final = 2000
"""Characters of an error's sentence, either way: it may quote what a peer sent, and lists rejected names with reasons."""

TURNED_AWAY_MS: Final = 500
"""When to come again to a server that closed the connection because it has too much to do, and could not say more."""


def error_of(error: BaseException) -> CallError:
    """Return what a method's exception is for its caller: our errors by their kind, a single one out of a group too."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    match error:
        case CallError():
            return error
        case InputError():
            return CallError(ErrorCode.BAD_ARG, str(error))
        case NotTrustedError():
            return CallError(ErrorCode.NOT_TRUSTED, str(error))
        case trio.TooSlowError():
            return CallError(ErrorCode.TIMEOUT, "the method took too long")
        case VanadiumError():
            return CallError(ErrorCode.INTERNAL, str(error))
        case _:
            return CallError(ErrorCode.INTERNAL, "the method failed; the server's log says why")


def turned_away(sentence: str) -> CallError:
    """Return the error of what a server with too much to do has not begun with."""
    return CallError(
        ErrorCode.OVERLOADED, sentence, fields={"retry_after_ms": TURNED_AWAY_MS}, hint="try again in a moment"
    )


def call_error(fields: list[Wire]) -> CallError:
    """Return the error of a response; one that is malformed is an internal error of the server."""
    match fields:
        case [str(code), str(sentence), dict(details)] if code in list(ErrorCode):
            kept = {k: v for k, v in details.items() if isinstance(k, str) and type(v) in (str, int)}
            return CallError(ErrorCode(code), clip(sentence, MAX_SENTENCE), fields=kept)
        case _:
            return CallError(ErrorCode.INTERNAL, "the server answered with an error that cannot be read")
