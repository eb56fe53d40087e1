"""A server's end of one connection: it authorizes each call, then runs it, and answers.

Whatever the peer does wrong ends this connection, or this call, with a reason; nothing of it leaves as an exception.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import trio

from vanadium_node.errors import (
    CallError,
    DecodeError,
    ErrorCode,
    InputError,
    NotTrustedError,
    ProtocolError,
    VanadiumError,
    clip,
)
from vanadium_node.rpc.call import Call, PeerIdentity
from vanadium_node.rpc.deadlines import Deadlines
from vanadium_node.rpc.discharging import NONE, Collected, Discharging
from vanadium_node.rpc.failures import MAX_SENTENCE, error_of
from vanadium_node.rpc.inbox import Inbox
from vanadium_node.rpc.limiting import AuthPace, PeerLoad, PeerLoads
from vanadium_node.rpc.link import Link
from vanadium_node.rpc.observing import Observer, RefusedCall
from vanadium_node.rpc.service import Method
from vanadium_node.rpc.tracing import TraceContext, enter_trace
from vanadium_node.rpc.trust import PeerTrust, names_of
from vanadium_node.rpc.workers import Worker, Workers
from vanadium_node.security.authorization import (
    AuthorizationRequest,
    Authorizer,
    Refusal,
    default_authorizer,
    everyone,
)
from vanadium_node.security.blessing import Blessings, ChainCache
from vanadium_node.security.discharge import Discharge
from vanadium_node.security.principal import Principal
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.validation import NOBODY, Validation, Validator
from vanadium_node.wire.events import Event, Failed, ReceivedItem, Refused
from vanadium_node.wire.frames import Auth, Cancel, Credit, End, Goaway, Pong, Request, Response
from vanadium_node.wire.handshake import verify_auth
from vanadium_node.wire.limits import Limits

log = logging.getLogger("vanadium_node.rpc")

Objects: TypeAlias = Mapping[str, Mapping[str, Method]]
"""Suffix → name of a method → the method."""

PURE_AUTHORIZERS: Final[frozenset[Authorizer]] = frozenset({default_authorizer, everyone})
"""Those that decide by the request alone: their answer is remembered as long as the request is the same."""


RETRY_AFTER_MS: Final = 100
"""When a peer with too many calls may come again."""


@dataclass(kw_only=True)
class Host:
    """What all sessions of a server share."""

    objects: Objects
    principal: Principal | None
    authorizer: Authorizer
    limits: Limits
    validators: Mapping[int, Validator]
    now: Callable[[], datetime]
    workers: Workers
    deadlines: Deadlines[tuple[Session, int]]
    discharging: Discharging | None = None
    discharges: Collected = NONE
    """What is shown with the server's own blessings."""
    discharged: Blessings | None = None
    """The blessings that those were fetched for."""
    observer: Observer = field(default_factory=Observer)
    loads: PeerLoads = field(default_factory=PeerLoads)
    chains: ChainCache = field(default_factory=ChainCache)
    became_quiet: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    """Whoever waits for calls to end is woken when a connection has none any more."""


@dataclass(slots=True, eq=False)
class Running:
    """A call that is being run by a worker."""

    session: Session
    number: int
    method: Method
    call: Call
    values: list[Any]
    load: PeerLoad
    worker: Worker | None = None

    def started(self, worker: Worker) -> None:
        """Take note of the worker, to be able to cancel it."""
        self.worker = worker

    def cancel(self) -> None:
        """Have the method cancelled at its next checkpoint."""
        if self.worker is not None:
            self.worker.scope.cancel()

    async def run(self) -> None:
        """Run the method and answer."""
        if self.call.trace_id:
            enter_trace(self.call.trace_id)
        try:
            if self.method.items_out is not None:
                await self.session.stream_items(self)
                result = None
            else:
                result = await self.method.function(self.call, *self.values)
        except Exception as error:  # noqa: BLE001 - whatever a method raises is the answer to its call
            self.session.answer_error(self.number, self.method, error)
        else:
            self.session.answer(self.number, self.method, result)
        finally:
            self.session.finish(self.number)


class Session:
    """The calls of one connection. `trust` is None until the peer has shown itself, and for good on unix sockets."""

    def __init__(self, host: Host, link: Link, address: str, uid: int | None, gids: tuple[int, ...] = ()) -> None:
        self.host = host
        self.link = link
        self.trust: PeerTrust | None = None
        self.shown: Blessings | None = None
        self.shown_discharges = NONE
        """What this end showed."""
        self.binding = b""
        self.postponed: list[Event] = []
        self._address = address
        self._system_identity = PeerIdentity(address=address, uid=uid, gids=gids)
        self._running: dict[int, Running] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._credit = trio.lowlevel.ParkingLot()
        self._refusals: dict[Method, tuple[Validation, tuple[str, ...], Refusal | None]] = {}
        self._now = host.now()
        self._time = trio.current_time()
        self._auths = AuthPace(self._time)
        self._roots: BlessingRoots | None = None
        self._local_names: tuple[str, ...] = ()
        self.load = host.loads.of(uid)
        """What the peer takes, on this connection and its others; all strangers count as one until they have shown themselves."""

    def __str__(self) -> str:
        who = self._system_identity if self.trust is None else self.trust.credentials.blessings or "nobody"
        return f"{who} at {self._address}" if self._address else str(who)

    def show(self, blessings: Blessings | None, discharges: Collected, auth: Auth) -> None:
        """Show this end, at first or renewed, with a frame that is signed already."""
        self.shown, self.shown_discharges, self._roots = blessings, discharges, None
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
                goes_on = self._handle_other(event) and goes_on
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
                self._credit.unpark_all()
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
            self.link.blame(connection.fail(ErrorCode.OVERLOADED, "the peer showed itself too often").reason)
            return False
        try:
            credentials = verify_auth(auth, connection.role.other, self.binding, self.host.chains)
        except (ProtocolError, NotTrustedError) as error:
            code = ErrorCode.NOT_TRUSTED if isinstance(error, NotTrustedError) else ErrorCode.BAD_ARG
            self.link.blame(connection.fail(code, error.message).reason)
            return False
        self.trust = PeerTrust(credentials, self._address, self.host.validators)
        self.load.connections -= 1
        self.load = self.host.loads.of(credentials.public_key)
        self.load.connections += 1
        self._refusals.clear()
        return True

    # Calls

    def _begin(self, request: Request) -> None:
        """Find, authorize, decode, and only then run."""
        number = request.stream
        methods = self.host.objects.get(request.suffix)
        method = None if methods is None else methods.get(request.method)
        if method is None:
            self._refuse_unknown(request, methods is not None)
            return
        try:
            peer, refusal = self._judge(method, request)
            if refusal is not None:
                self._refuse(request, method, ErrorCode.NO_ACCESS, refusal.reason)
                return
            values = self._arguments(method, request)
            granted = None if request.granted is None else self._granted(request.granted)
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
            local_names=self._local_names,
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

    def _judge(self, method: Method, request: Request) -> tuple[PeerIdentity, Refusal | None]:
        """Return who the peer is for this call, and why it may not make it."""
        if self.trust is None:
            peer, validation = self._system_identity, NOBODY
        else:
            principal = self.host.principal
            if principal is None:
                raise RuntimeError("an authenticated connection of a server without a principal")
            if principal.roots is not self._roots:
                self._roots = principal.roots
                self._local_names = names_of(self.shown, principal.roots)
            peer, validation = self.trust.judge(
                method.name,
                method.tags,
                now=self._now,
                roots=self._roots,
                local_names=self._local_names,
                discharges=tuple(map(Discharge.decode, request.discharges)) if request.discharges else (),
            )
        known = self._refusals.get(method)
        if known is not None and known[0] is validation and known[1] is self._local_names:
            return peer, known[2]
        authorizer = method.authorizer or self.host.authorizer
        refusal = authorizer(
            AuthorizationRequest(
                local_names=self._local_names,
                peer=validation,
                peer_public_key=peer.public_key,
                local_public_key=None if self.host.principal is None else self.host.principal.public_key,
                method=method.name,
                tags=method.tags,
                peer_address=peer.address,
                peer_uid=peer.uid,
                peer_gids=peer.gids,
            )
        )
        if authorizer in PURE_AUTHORIZERS:
            self._refusals[method] = (validation, self._local_names, refusal)
        return peer, refusal

    def _arguments(self, method: Method, request: Request) -> list[Any]:
        given = request.arguments
        if not method.required <= len(given) <= len(method.arguments):
            expected = " ".join(argument.name for argument in method.arguments) or "none"
            raise InputError(f"it takes the arguments {expected}; {len(given)} were given")
        if request.has_items and method.items_in is None:
            raise InputError("it takes no stream of items")
        try:
            return [argument.codec.from_wire(value) for argument, value in zip(method.arguments, given, strict=False)]
        except InputError:
            for argument, value in zip(method.arguments, given, strict=False):
                try:
                    argument.codec.from_wire(value)
                except InputError as error:
                    raise DecodeError(f"the argument '{argument.name}' is wrong: {error.message}") from error
            raise

    def _granted(self, encoded: bytes) -> Blessings:
        """Return blessings granted on the call, which must be for this server's key."""
        granted = Blessings.decode(encoded, self.host.chains)
        principal = self.host.principal
        if principal is not None and granted.public_key != principal.public_key:
            raise InputError(
                f"the granted blessings {granted} are bound to the key {granted.public_key}, not to this server's, "
                f"{principal.public_key}"
            )
        return granted

    async def stream_items(self, running: Running) -> None:
        """Send what a method yields, as far as the caller gives credit, in batches."""
        connection, codec = self.link.connection, running.method.items_out
        if codec is None:
            raise RuntimeError("a method that yields nothing")
        sent = 0
        async with aclosing(running.method.function(running.call, *running.values)) as items:
            async for item in items:
                try:
                    value = codec.to_wire(item)
                except InputError as error:
                    sentence = f"{running.method.name} yielded something that cannot be sent: {error.message}"
                    raise CallError(ErrorCode.INTERNAL, sentence) from error
                while not connection.may_send_item(running.number):
                    if running.number not in connection.incoming:
                        return
                    await self._credit.park()
                connection.send_item(running.number, value)
                self.link.wake()
                sent += 1
                if self.link.is_full:
                    await self.link.drained()
                elif sent % ITEMS_IN_A_ROW == 0:
                    await trio.lowlevel.checkpoint()

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

    def begin(self) -> None:
        """Count the connection as its peer's, until it is closed."""
        self.load.connections += 1

    def close(self) -> None:
        """Cancel all calls: there is nobody to answer to any more."""
        for number in list(self._running):
            self._abandon(number)
        self.load.connections -= 1
        self._credit.unpark_all()

    @property
    def is_quiet(self) -> bool:
        """Whether no call is being run."""
        return not self._running

    def _abandon(self, number: int) -> None:
        self.host.deadlines.discard((self, number))
        running = self._running.get(number)
        if running is not None:
            running.cancel()

    def _refuse_unknown(self, request: Request, has_object: bool) -> None:
        if has_object:
            sentence = f"there is no method '{clip(request.method, 80)}'; '__signature' tells what there is"
            self._refuse(request, None, ErrorCode.UNKNOWN_METHOD, sentence)
        else:
            sentence = f"there is no object '{clip(request.suffix, 80)}'"
            self._refuse(request, None, ErrorCode.UNKNOWN_OBJECT, sentence)

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
        sentence = reason if method is None else _REFUSALS[code].format(method.name, reason)
        self._error(request.stream, code, sentence, fields)

    def _method_of(self, request: Request) -> Method | None:
        return self.host.objects.get(request.suffix, {}).get(request.method)

    def _tell_refusal(self, request: Request, method: Method | None, code: ErrorCode, reason: str) -> None:
        """Say that a call was refused: both ends' names, what was wanted, and why not."""
        name = clip(request.method, 80) if method is None else method.name
        local_names, trace = self._own_names(), TraceContext.parse(request.trace_id)
        log.info(
            "refused %s of %s to %s: %s",
            name,
            ",".join(local_names) or "this server",
            self,
            reason,
            extra={
                "method": name,
                "code": code.value,
                "local_names": list(local_names),
                "peer": str(self),
                "trace_id": "" if trace is None else trace.trace_id,
            },
        )
        known = "" if method is None else method.name
        self.host.observer.call_refused(RefusedCall(method=known, code=code, reason=reason, peer=str(self)))

    def _error(
        self, number: int, code: ErrorCode, sentence: str, fields: Mapping[str, str | int] | None = None
    ) -> None:
        self.link.connection.send_error(number, code, clip(sentence, MAX_SENTENCE), fields or {})

    def _own_names(self) -> tuple[str, ...]:
        """Return the names of this end for the log, also where no call was judged yet."""
        principal = self.host.principal
        return names_of(self.shown, principal.roots) if principal is not None else ()


ITEMS_IN_A_ROW: Final = 64
"""A method that yields without waiting lets others run after so many items; its credit may last for a hundred thousand."""

_REFUSALS: Final[Mapping[ErrorCode, str]] = MappingProxyType(
    {
        ErrorCode.NO_ACCESS: "{} is refused: {}",
        ErrorCode.BAD_ARG: "{}: {}",
        ErrorCode.OVERLOADED: "{} is not run now: {}",
    }
)
"""What the caller is told when a method is not run, with the method's name and the reason."""
