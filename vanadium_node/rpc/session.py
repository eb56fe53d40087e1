"""A server's end of one connection: it authorizes each call, then runs it, and answers.

Whatever the peer does wrong ends this connection, or this call, with a reason; nothing of it leaves as an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import trio

from vanadium_node.errors import ErrorCode, InputError, NotTrustedError, ProtocolError, VanadiumError, clip
from vanadium_node.rpc.admission import Admission, arguments_of
from vanadium_node.rpc.call import Call, PeerIdentity
from vanadium_node.rpc.discharging import NONE, Collected
from vanadium_node.rpc.failures import MAX_SENTENCE, error_of
from vanadium_node.rpc.host import Host
from vanadium_node.rpc.inbox import Inbox
from vanadium_node.rpc.limiting import AuthPace
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.refusing import RETRY_AFTER_MS, log, refusal_sentence, tell_refusal, why_unknown
from vanadium_node.rpc.running import Running
from vanadium_node.rpc.service import Method
from vanadium_node.rpc.trust import PeerTrust
from vanadium_node.security.blessing import Blessings
from vanadium_node.wire.events import Event, Failed, ReceivedItem, Refused
from vanadium_node.wire.frames import Auth, Cancel, Credit, End, Goaway, Pong, Request, Response
from vanadium_node.wire.handshake import verify_auth


class Session:
    """The calls of one connection."""

    def __init__(self, host: Host, link: Link, address: str, uid: int | None, gids: tuple[int, ...] = ()) -> None:
        self.host = host
        self.link = link
        self.shown: Blessings | None = None
        self.shown_discharges = NONE
        """What this end showed."""
        self.binding = b""
        self.is_turned_away = False
        """It ended because there were too many."""
        self.postponed: list[Event] = []
        self._address = address
        self._system_identity = PeerIdentity(address=address, uid=uid, gids=gids)
        self._admission = Admission(host, self._system_identity)
        self._running: dict[int, Running] = {}
        self._inboxes: dict[int, Inbox] = {}
        self.credit = trio.lowlevel.ParkingLot()
        """Where methods that yield wait for credit."""
        self._now = host.now()
        self._time = trio.current_time()
        self._auths = AuthPace(self._time)
        self.load = host.loads.of(uid)
        """What the peer takes, on this connection and its others; all strangers count as one until they have shown themselves."""

    @property
    def trust(self) -> PeerTrust | None:
        """What the peer has proved; None until it has shown itself, and for good on unix sockets."""
        return self._admission.trust

    def __str__(self) -> str:
        who = self._system_identity if self.trust is None else self.trust.credentials.blessings or "nobody"
        return f"{who} at {self._address}" if self._address else str(who)

    def show(self, blessings: Blessings | None, discharges: Collected, auth: Auth) -> None:
        """Show this end, at first or renewed, with a frame that is signed already."""
        self.shown, self.shown_discharges = blessings, discharges
        self._admission.showed(blessings)
        self.link.connection.send_auth(auth)
        self.link.flush()

    def take_postponed(self) -> list[Event]:
        """Return the events that `handle` has not acted upon."""
        postponed, self.postponed = self.postponed, []
        return postponed

    # Events of the connection

    def handle(self, events: list[Event]) -> bool:
        """Act on a batch of events, and send what there is to send; tell whether the connection goes on.

        When more answers wait for the peer than may, the rest of the batch is left in `postponed`.
        """
        self._now = self.host.now()
        self._time = trio.current_time()
        goes_on = True
        link, flush_much = self.link, self.link.flush_much
        rest = iter(events)
        for event in rest:
            if type(event) is Request:
                self._begin(event)
                if flush_much() and link.is_full:
                    self.postponed = list(rest)
            else:
                goes_on = self._handle_other(event)
                if not goes_on:
                    break  # what came along with it is for nobody any more
        link.flush()
        return goes_on and not link.is_broken

    def _handle_other(self, event: Event) -> bool:
        match event:
            case ReceivedItem():
                inbox = self._inboxes.get(event.stream)
                if inbox is not None:
                    inbox.put(event)
                else:
                    self.link.connection.item_read(event.stream, event.size)
            case End():
                if (inbox := self._inboxes.get(event.stream)) is not None:
                    inbox.end()
            case Cancel():
                self._abandon(event.stream)
            case Credit():
                self.credit.unpark_all()
            case Auth():
                return self._authenticate(event)
            case Failed(reason):
                self.link.blame(reason)
                return False
            case Goaway(_, code, reason):
                self.link.fault = f"the peer ended the connection: {clip(code)} {clip(reason)}"
                return not code
            case Refused(request, reason):
                self._tell_refusal(request, self._method_of(request), ErrorCode.OVERLOADED, reason)
            case Pong() | Request() | Response():
                pass
        return True

    def _authenticate(self, auth: Auth) -> bool:
        """Take the peer's credentials, at first or renewed."""
        connection = self.link.connection
        if self._auths.is_too_often(self._time):
            self.link.blame(connection.fail(ErrorCode.BAD_ARG, "the peer showed itself too often").reason)
            return False
        try:
            credentials = verify_auth(auth, connection.role.other, self.binding, self.host.chains)
        except (ProtocolError, NotTrustedError) as error:
            code = ErrorCode.NOT_TRUSTED if isinstance(error, NotTrustedError) else ErrorCode.BAD_ARG
            self.link.blame(connection.fail(code, error.message).reason)
            return False
        self._admission.know(PeerTrust(credentials, self._address, self.host.validators))
        self.load.connections -= 1
        self.load = self.host.loads.of(credentials.public_key)
        self.load.connections += 1
        return self._may_stay()

    def _may_stay(self) -> bool:
        """Count the connection as that of its peer, who is known now; end it where there are too many. Tell whether it goes on."""
        reason = self.host.crowd.enter(self)
        if reason:
            self.is_turned_away = True
            self.link.blame(self.link.connection.fail(ErrorCode.OVERLOADED, reason).reason)
        return not reason

    # Calls

    def _begin(self, request: Request) -> None:
        """Find, authorize, decode, and only then run."""
        number = request.stream
        methods = self.host.objects.get(request.suffix)
        method = None if methods is None else methods.get(request.method)
        if method is None:
            code, sentence = why_unknown(request, methods is not None)
            self._refuse(request, None, code, sentence)
            return
        try:
            peer, refusal = self._admission.judge(method, request, self._now)
            if refusal is not None:
                self._refuse(request, method, ErrorCode.NO_ACCESS, refusal.reason)
                return
            values = arguments_of(method, request)
            granted = None if request.granted is None else self._admission.granted(request.granted)
        except InputError as error:
            self._refuse(request, method, ErrorCode.BAD_ARG, error.message)
            return
        except Exception as error:  # noqa: BLE001 - authorizers, validators and value types are the application's
            self.answer_error(number, method, error)
            return
        call = Call(
            peer=peer,
            method=method.name,
            suffix=request.suffix,
            tags=method.tags,
            local_names=self._admission.local_names,
            deadline=inf if request.deadline_ms is None else self._time + request.deadline_ms / 1000,
            granted=granted,
            trace_id=request.trace_id,
        )
        if method.may_block:
            if self.load.calls >= self.host.limits.max_calls_per_peer:
                self._refuse_one_more(request, method)
                return
            self._start(Running(self, number, method, call, values, self.load), request.has_items)
            return
        try:
            result = method.function(call, *values)
        except Exception as error:  # noqa: BLE001 - whatever a method raises is the answer to its call
            self.answer_error(number, method, error)
        else:
            self.answer(number, method, result)

    def _start(self, running: Running, has_items: bool) -> None:
        number = running.number
        if running.method.items_in is not None:
            inbox = Inbox(self.link, running.method.items_in)
            if not has_items:
                inbox.end()
            self._inboxes[number] = inbox
            running.values.append(inbox)
        self._running[number] = running
        running.load.calls += 1
        if running.call.deadline != inf:
            self.host.deadlines.add((self, number), running.call.deadline)
        self.host.workers.start(running)

    # Answers

    def answer(self, number: int, method: Method, result: Any) -> None:
        """Answer with a result; whoever batches sends it."""
        try:
            self.link.connection.send_response(number, method.result.to_wire(result))
        except InputError as error:
            log.exception("%s returned something that cannot be sent", method.name)
            self._error(
                number, ErrorCode.INTERNAL, f"{method.name} returned something that cannot be sent: {error.message}"
            )

    def answer_error(self, number: int, method: Method, error: Exception) -> None:
        """Answer with what a method raised."""
        known = error_of(error)
        if known.code is ErrorCode.INTERNAL:
            bug = None if isinstance(error, VanadiumError) else error
            log.error("%s called by %s failed: %s", method.name, self, known, exc_info=bug)
        self._error(number, known.code, str(known), known.fields)

    def finish(self, number: int) -> None:
        """Forget a call that a worker has run, and send its answer."""
        if (running := self._running.pop(number, None)) is not None:
            running.load.calls -= 1
        self.host.deadlines.discard((self, number))
        inbox = self._inboxes.pop(number, None)
        if inbox is not None:
            inbox.end()
            inbox.discard()
        if self._running:
            self.link.wake()
        else:
            self.link.flush()
            self.host.became_quiet.unpark_all()

    def expire(self, number: int) -> None:
        """Answer a call whose deadline has passed, and cancel it."""
        self._error(number, ErrorCode.TIMEOUT, "the call's deadline has passed")
        self._abandon(number)
        self.link.wake()

    def begin(self) -> bool:
        """Count the connection as its peer's, until it is closed; a local user is known already. Tell whether it may go on."""
        self.load.connections += 1
        return self._system_identity.uid is None or self._may_stay()

    def close(self) -> None:
        """Cancel all calls: there is nobody to answer to any more."""
        for number in list(self._running):
            self._abandon(number)
        self.load.connections -= 1
        self.host.crowd.leave(self)
        self.credit.unpark_all()

    @property
    def is_quiet(self) -> bool:
        """Whether no call is being run."""
        return not self._running

    def _abandon(self, number: int) -> None:
        self.host.deadlines.discard((self, number))
        running = self._running.get(number)
        if running is not None:
            running.cancel()

    def _refuse_one_more(self, request: Request, method: Method) -> None:
        most = self.host.limits.max_calls_per_peer
        reason = f"{most} calls of {self} are running already, the most that one peer may have"
        self._refuse(request, method, ErrorCode.OVERLOADED, reason, {"retry_after_ms": RETRY_AFTER_MS})

    def _refuse(
        self,
        request: Request,
        method: Method | None,
        code: ErrorCode,
        reason: str,
        fields: Mapping[str, str | int] | None = None,
    ) -> None:
        """Answer a call that is not run, and say so."""
        self._tell_refusal(request, method, code, reason)
        self._error(request.stream, code, refusal_sentence(method, code, reason), fields)

    def _tell_refusal(self, request: Request, method: Method | None, code: ErrorCode, reason: str) -> None:
        local_names = self._admission.own_names()
        tell_refusal(self.host, request, method, code, reason, peer=str(self), local_names=local_names)

    def _method_of(self, request: Request) -> Method | None:
        return self.host.objects.get(request.suffix, {}).get(request.method)

    def _error(
        self, number: int, code: ErrorCode, sentence: str, fields: Mapping[str, str | int] | None = None
    ) -> None:
        sentence = clip(sentence, MAX_SENTENCE)
        try:
            self.link.connection.send_error(number, code, sentence, fields or {})
        except InputError as error:  # too long, or of a type that the author should not have given it
            log.error("the fields of an error cannot be sent: %s", error)
            self.link.connection.send_error(number, code, sentence, {})
