"""The cluster agent's methods: an administrator stores blessings behind a secret, a replica gets some of its own for it."""

import ipaddress
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from vanadium_node.claim import Claimable, Ownership
from vanadium_node.errors import CallError, ErrorCode, InputError, StorageError
from vanadium_node.rpc import Call, Service, Tag, method
from vanadium_node.secret_store import KnownSecret, SecretStore, StoredSecret
from vanadium_node.security.access import Permissions
from vanadium_node.security.authorization import (
    AuthorizationRequest,
    Refusal,
    everyone,
    permissions_authorizer,
)
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.pattern import Pattern

PAGE: Final = 64
"""Secrets that are read at a time while they are listed: each is checked, and other calls run in between."""

_log: Final = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


class ClusterAgent(Service):
    """ClusterAgent gives replicas their blessings."""

    authorizer = staticmethod(everyone)
    """The secret itself is what a caller must know."""

    def __init__(
        self, ownership: Ownership, store: SecretStore, *, ttl: timedelta | None, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._ownership = ownership
        self._store = store
        self._ttl = ttl
        self._now = now

    @method(tag=Tag.READ)
    async def seek_blessings(self, call: Call, secret: str) -> Blessings:
        """Returns the blessings behind a secret, extended to the caller's own key and address."""
        caller = call.peer.public_key
        if caller is None:
            raise CallError(ErrorCode.BAD_ARG, "blessings are given only to a caller that has proved a key")
        found = self._store.find(secret)
        if found is None:
            raise CallError(
                ErrorCode.NOT_FOUND,
                "the secret is unknown here: it was forgotten, or made at another cluster agent",
                hint="start or update the application again, so that it gets a new one",
            )
        now = self._now()
        extension = extension_of(call.peer.address)
        caveats = [expiry_caveat(now, self._ttl, found.blessings.expiry)]
        try:
            blessings = await self._ownership.principal.bless(caller, found.blessings, extension, caveats)
        except InputError as error:
            raise CallError(ErrorCode.INTERNAL, f"the blessings cannot be extended: {error.message}") from error
        try:
            await self._store.record_use(secret, now=now)
        except StorageError as error:  # a full disk must not cost replicas their identity
            _log.error("the use of a secret was not counted: %s", error)
        _log.info("gave %s to %s at %s", blessings, caller, call.peer.address)
        return blessings


class ClusterAgentAdmin(Service):
    """ClusterAgentAdmin makes, lists and forgets the secrets of applications."""

    def __init__(
        self, ownership: Ownership, store: SecretStore, *, ttl: timedelta | None, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._ownership = ownership
        self._store = store
        self._ttl = ttl
        self._now = now

    @method(tag=Tag.ADMIN)
    async def new_secret(self, call: Call) -> str:
        """Returns a new secret, with which extensions of the blessings granted on this call can be had."""
        granted = call.granted
        if granted is None:
            raise CallError(ErrorCode.BAD_ARG, "no blessings are granted on the call", hint="bless the agent's key")
        if granted.public_key != self._ownership.principal.public_key:
            raise CallError(
                ErrorCode.BAD_ARG,
                f"the blessings granted on the call are bound to the key {granted.public_key}, not to the cluster agent's",
                hint=f"bless the key {self._ownership.principal.public_key}",
            )
        secret = await self._store.new(granted, created_by=", ".join(call.peer.names), now=self._now())
        _log.info("new secret for %s, by %s", granted, ", ".join(call.peer.names))
        return secret

    @method(tag=Tag.ADMIN)
    async def forget_secret(self, call: Call, secret: str) -> None:
        """Forgets a secret and the blessings behind it."""
        await self._store.forget(secret)
        _log.info("forgot a secret, by %s", ", ".join(call.peer.names))

    @method(tag=Tag.ADMIN)
    async def list_secrets(self, call: Call) -> AsyncIterator[KnownSecret]:
        """Returns what is known about each secret, in the order of their hashes; the secrets themselves nobody knows."""
        after = b""
        while page := self._store.page(after, PAGE):
            for after, stored in page:
                yield self._known(after, stored)

    def _known(self, key: bytes, stored: StoredSecret) -> KnownSecret:
        expiry, used = stored.blessings.expiry, stored.last_used
        return KnownSecret(
            key=key,
            names=stored.blessings.names,
            created=stored.created,
            created_by=stored.created_by,
            expires=expiry,
            uses=stored.uses,
            last_used=used,
            replicas_until=None if used is None else replicas_end(used, self._ttl, expiry),
        )


class ClusterAgentObject(Claimable, ClusterAgent, ClusterAgentAdmin):
    """All that a cluster agent serves, on one object."""

    def __init__(
        self,
        ownership: Ownership,
        store: SecretStore,
        *,
        claimer: Sequence[Pattern],
        token: str | None,
        permissions: Permissions,
        ttl: timedelta | None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        Claimable.__init__(self, ownership, claimer=claimer, token=token, permissions=permissions)
        ClusterAgent.__init__(self, ownership, store, ttl=ttl, now=now)
        ClusterAgentAdmin.__init__(self, ownership, store, ttl=ttl, now=now)


@dataclass(frozen=True, slots=True)
class OwnersOnly:
    """The authorizer of a cluster agent: whom its permissions name; nobody before the claim."""

    ownership: Ownership

    def __call__(self, request: AuthorizationRequest) -> Refusal | None:
        """Return None, or why the call is refused."""
        if self.ownership.permissions is None:
            return Refusal("this cluster agent is not claimed yet; run 'vanadium-node controller claim-cluster-agent'")
        return permissions_authorizer(self.ownership.permissions)(request)


def extension_of(address: str) -> str:
    """Return the extension for a caller at `IP:port` or `[IPv6]:port`: the address, spelled out where it would hold `::`."""
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return f"local:{port}" if port else "local"
    if isinstance(ip, ipaddress.IPv6Address):
        return f"{ip.ipv4_mapped or ip.exploded}:{port}"
    return f"{ip}:{port}"


def expiry_caveat(now: datetime, ttl: timedelta | None, granted_until: datetime | None) -> Caveat:
    """Return the caveat of a replica's blessings: the agent's lifetime for them, never beyond what was granted."""
    end = replicas_end(now, ttl, granted_until)
    return Caveat.unconstrained() if end is None else Caveat.expiry(end)


def replicas_end(given: datetime, ttl: timedelta | None, granted_until: datetime | None) -> datetime | None:
    """Return when blessings end that a replica was given at that time, None where they do not."""
    return min((end for end in (given + ttl if ttl else None, granted_until) if end is not None), default=None)
