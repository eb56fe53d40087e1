"""Administering secrets: make, list and forget them. What changes something is in the audit log before it is done."""

import logging
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Final

import trio

from vanadium_node.claim import Ownership
from vanadium_node.cluster_agent.audit import Audit
from vanadium_node.cluster_agent.issuing import replicas_end, shorter, utc_now
from vanadium_node.cluster_agent.limits import Limits
from vanadium_node.config import format_duration
from vanadium_node.errors import CallError, ErrorCode, InputError
from vanadium_node.rpc import Call, Service, Tag, method
from vanadium_node.secret_store import Criteria, KnownSecret, Record, SecretStore, fresh_secret, is_secret, secret_id
from vanadium_node.security.blessing import Blessings

MAX_TTL_SECONDS: Final = 100 * 366 * 86400

_log: Final = logging.getLogger(__name__)


class ClusterAgentAdmin(Service):
    """ClusterAgentAdmin makes, lists and forgets the secrets of applications."""

    def __init__(
        self,
        ownership: Ownership,
        store: SecretStore,
        *,
        audit: Audit,
        limits: Limits,
        ttl: timedelta | None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._ownership = ownership
        self._store = store
        self._audit = audit
        self._limits = limits
        self._ttl = ttl
        self._now = now

    @method(tag=Tag.ADMIN)
    async def new_secret(self, call: Call, ttl_seconds: int = 0, secret: str = "") -> str:
        """Returns a new secret, with which extensions of the blessings granted on this call can be had.

        They live for ttl_seconds each; 0 is as long as the agent lets them. A caller that has to know the secret beforehand, so
        that it can forget it whatever becomes of this call, gives 256 random bytes in base64url; one in use is refused.
        """
        with self._audit.watching(call) as details, self._limits.admitted():
            granted = self._granted(call)
            details["subject"] = str(granted)
            ttl = self._lifetime(ttl_seconds)
            secret = self._unused(secret) if secret else fresh_secret()
            details["secret"] = secret_id(secret)
            await self._audit.before_change(self._audit.granted(call, **details))
            try:
                await self._store.new(
                    granted, created_by=", ".join(call.peer.names), now=self._now(), ttl=ttl, secret=secret
                )
            except InputError as error:  # somebody gave the same one meanwhile
                raise CallError(ErrorCode.EXISTS, error.message, hint=error.hint) from error
        _log.info("new secret %s for %s, by %s", secret_id(secret), granted, ", ".join(call.peer.names))
        return secret

    def _unused(self, secret: str) -> str:
        """Return a secret that the caller made, if it is one, and nothing stands behind it yet."""
        if not is_secret(secret):
            raise CallError(
                ErrorCode.BAD_ARG, "the secret given is not 256 bytes in base64url", hint="give none, and one is made"
            )
        if self._store.find(secret) is not None:
            raise CallError(ErrorCode.EXISTS, "the secret given is in use", hint="make another one")
        return secret

    @method(tag=Tag.ADMIN)
    async def forget_secret(self, call: Call, secret: str) -> None:
        """Forgets a secret and the blessings behind it."""
        known = secret_id(secret)
        with self._audit.watching(call, secret=known), self._limits.admitted():
            await self._audit.before_change(self._audit.granted(call, secret=known))
            await self._store.forget(secret)
        _log.info("forgot the secret %s, by %s", known, ", ".join(call.peer.names))

    @method(tag=Tag.ADMIN)
    async def list_secrets(self, call: Call) -> AsyncIterator[KnownSecret]:
        """Yields what is known about each secret, in the order of their hashes; the secrets themselves nobody knows."""
        with self._audit.watching(call), self._limits.admitted():
            await self._audit.after_gift(self._audit.granted(call))
            await self._store.check()
            for page in self._store.pages():
                await trio.lowlevel.checkpoint()
                for record in page:
                    yield self._known(record)

    @method(tag=Tag.ADMIN)
    async def forget_secrets(
        self,
        call: Call,
        name: str | None = None,
        idle_seconds: int | None = None,
        is_damaged: bool | None = None,
        is_dry_run: bool = False,
    ) -> AsyncIterator[KnownSecret]:
        """Forgets the secrets that meet all criteria given, at least one, and yields what can be told of each.

        They are those for a name, those neither made nor used for a time, those whose record is damaged; a dry run only yields.
        """
        with self._audit.watching(call), self._limits.admitted():
            if name is None and idle_seconds is None and is_damaged is None:
                raise CallError(ErrorCode.BAD_ARG, "no criterion says which secrets to forget", hint="name one")
            idle_since = None if idle_seconds is None else self._now() - self._duration(idle_seconds)
            criteria = Criteria(name=name, idle_since=idle_since, is_damaged=is_damaged)
            await self._store.check()
            for page in self._store.pages(criteria):
                await trio.lowlevel.checkpoint()  # many pages may hold none of those sought
                for record in page if is_dry_run or not page else await self._forget(call, page, idle_since):
                    yield self._known(record)

    async def _forget(self, call: Call, page: list[Record], idle_since: datetime | None) -> list[Record]:
        """Write down that some secrets are forgotten, do it, and return those that were not used meanwhile."""
        entries = [self._audit.granted(call, secret=each.id, subject=each.name) for each in page]
        await self._audit.before_change(*entries)
        gone = await self._store.forget_all(page, idle_since=idle_since)
        _log.info("forgot %d secrets, by %s", len(gone), ", ".join(call.peer.names))
        return gone

    def _known(self, record: Record) -> KnownSecret:
        """Return what can be told of a record."""
        used, ttl = record.last_used, shorter(self._ttl, record.ttl)
        return KnownSecret(
            key=record.key,
            names=record.names,
            created=record.created,
            created_by=record.created_by,
            expires=record.expires,
            uses=record.uses,
            last_used=used,
            replicas_until=None if used is None else replicas_end(used, ttl, record.expires),
            ttl_seconds=None if record.ttl is None else int(record.ttl.total_seconds()),
            is_damaged=record.is_damaged,
        )

    def _granted(self, call: Call) -> Blessings:
        """Return the blessings granted on a call, which must be for the agent's key."""
        own = self._ownership.principal.public_key
        if call.granted is None:
            raise CallError(ErrorCode.BAD_ARG, "no blessings are granted on the call", hint="bless the agent's key")
        if call.granted.public_key != own:
            raise CallError(
                ErrorCode.BAD_ARG,
                f"the blessings granted on the call are bound to the key {call.granted.public_key}, not to the cluster agent's",
                hint=f"bless the key {own}",
            )
        return call.granted

    def _lifetime(self, seconds: int) -> timedelta | None:
        """Return the lifetime asked for, which must be within the agent's own."""
        ttl = self._duration(seconds)
        if self._ttl is not None and ttl > self._ttl:
            raise CallError(
                ErrorCode.BAD_ARG,
                f"a lifetime of {format_duration(ttl)} is longer than this cluster agent gives, {format_duration(self._ttl)}",
                hint="ask for a shorter one, or start the agent with a longer --blessing-ttl",
            )
        return ttl or None

    def _duration(self, seconds: int) -> timedelta:
        if not 0 <= seconds <= MAX_TTL_SECONDS:
            raise CallError(ErrorCode.BAD_ARG, f"{seconds} s is no sensible time", hint="give seconds, not negative")
        return timedelta(seconds=seconds)
