"""What a cluster agent writes down: who asked for what under which name, and whether it was granted. Never a secret.

What changes something is written before it is done, and not done when it cannot be written. Blessings are given even then,
unless the agent is strict: a full disk must not cost replicas their identity. What was not written is counted, and so
are refusals beyond some a second, for a stranger must not push what matters out of the log.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from vanadium_node.cluster_agent.limits import RateLimit, host_of
from vanadium_node.errors import CallError, ErrorCode, StorageError, VanadiumError, clip
from vanadium_node.rpc import Call
from vanadium_node.security.authorization import AuthorizationRequest, Refusal
from vanadium_node.security.keys import PublicKey
from vanadium_node.storage.audit_log import AuditLog, Entry

REFUSALS_A_SECOND: Final = 5
"""Refusals written down for one address; the others are counted."""

MAX_NAMES: Final = 16
MAX_NAME: Final = 200
MAX_REASON: Final = 500
MAX_SUBJECT: Final = 1000
"""Characters of what a line quotes: strangers choose names and grants, and a line has an end (`chain.MAX_LINE_BYTES`)."""


class Audit:
    """The audit log in the words of the cluster agent."""

    def __init__(self, log: AuditLog, *, is_strict: bool) -> None:
        self._log = log
        self._is_strict = is_strict
        self._refusals: RateLimit[str] = RateLimit(REFUSALS_A_SECOND)
        self._unlogged = 0

    def event(self, event: str, **details: object) -> Entry:
        """Write down something of the agent itself."""
        return self._log.put(event=event, **_clipped(details))

    def granted(self, call: Call, **details: object) -> Entry:
        """Write down that a call is granted; see `before_change` and `after_gift`."""
        return self._put(call.method, "granted", call.peer.names, call.peer.public_key, call.peer.address, details)

    async def before_change(self, *entries: Entry) -> None:
        """Wait until entries are durable.

        Raises:
            CallError: they could not be written, so that nothing may be changed.
        """
        try:
            for entry in entries:
                await entry.written()
        except StorageError as error:
            raise CallError(
                ErrorCode.INTERNAL,
                f"nothing was changed, because it could not be written down: {error.message}",
                hint=error.hint,
            ) from error

    async def after_gift(self, entry: Entry) -> None:
        """Wait until an entry about blessings is durable; only a strict agent keeps them back when it is not.

        Raises:
            CallError: the agent is strict, and it could not be written.
        """
        try:
            await entry.written()
        except StorageError as error:
            if self._is_strict:
                raise CallError(
                    ErrorCode.INTERNAL,
                    f"no blessings are given while that cannot be written down: {error.message}",
                    hint=error.hint,
                ) from error

    @contextmanager
    def watching(self, call: Call, **details: object) -> Iterator[dict[str, object]]:
        """Write down a call that ends with an error, with the details known by then."""
        try:
            yield details
        except VanadiumError as error:
            code = error.code if isinstance(error, CallError) else ErrorCode.INTERNAL
            if code is not ErrorCode.OVERLOADED:
                outcome = "failed" if code is ErrorCode.INTERNAL else "refused"
                said = {**details, "code": code.value, "reason": clip(error.message, MAX_REASON)}
                self._refused(call.method, outcome, call.peer.names, call.peer.public_key, call.peer.address, said)
            raise

    def refused(self, request: AuthorizationRequest, refusal: Refusal) -> None:
        """Write down that permissions refused a call."""
        said: dict[str, object] = {"code": ErrorCode.NO_ACCESS.value, "reason": clip(refusal.reason, MAX_REASON)}
        names = request.peer.accepted
        self._refused(request.method, "refused", names, request.peer_public_key, request.peer_address, said)

    def _refused(
        self,
        event: str,
        outcome: str,
        names: tuple[str, ...],
        key: PublicKey | None,
        address: str,
        details: dict[str, object],
    ) -> None:
        if self._refusals.take(host_of(address), trio.current_time()):
            self._unlogged += 1
            return
        if self._unlogged:
            details = {**details, "unlogged": self._unlogged}
            self._unlogged = 0
        self._put(event, outcome, names, key, address, details)

    def _put(
        self,
        event: str,
        outcome: str,
        names: tuple[str, ...],
        key: PublicKey | None,
        address: str,
        details: dict[str, object],
    ) -> Entry:
        return self._log.put(
            event=event,
            outcome=outcome,
            names=[clip(name, MAX_NAME) for name in names[:MAX_NAMES]],
            key="" if key is None else key.fingerprint,
            address=address,
            **_clipped(details),
        )


def _clipped(details: dict[str, object]) -> dict[str, object]:
    """Return details of which no text is longer than a subject may be."""
    return {name: clip(value, MAX_SUBJECT) if isinstance(value, str) else value for name, value in details.items()}
