"""Giving replicas their blessings: whoever knows a secret gets extensions of what it stands for, to a key of its own."""

import ipaddress
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from vanadium_node.claim import Ownership
from vanadium_node.cluster_agent.audit import Audit
from vanadium_node.cluster_agent.limits import Limits
from vanadium_node.errors import CallError, ErrorCode, InputError, StorageError
from vanadium_node.rpc import Call, Service, Tag, method
from vanadium_node.secret_store import SecretStore, StoredSecret
from vanadium_node.security.authorization import everyone
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PublicKey

_log: Final = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time of this machine's clock."""
    return datetime.now(UTC)


class ClusterAgent(Service):
    """ClusterAgent gives replicas their blessings."""

    authorizer = staticmethod(everyone)
    """The secret itself is what a caller must know."""

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

    @method(tag=Tag.READ)
    def time(self, call: Call) -> datetime:
        """Returns the time of the agent's clock, so that pod agents notice when theirs is wrong."""
        return self._now()

    @method(tag=Tag.READ)
    async def seek_blessings(self, call: Call, secret: str) -> Blessings:
        """Returns the blessings behind a secret, extended to the caller's own key and address."""
        with self._audit.watching(call) as details, self._limits.admitted():
            self._limits.check_address(call.peer.address)
            caller = call.peer.public_key
            if caller is None:
                raise CallError(ErrorCode.BAD_ARG, "blessings are given only to a caller that has proved a key")
            found = await self._find(secret)
            details |= {"secret": found.record.id, "subject": str(found.blessings)}
            self._limits.check_secret(found.record.id)
            now = self._now()
            blessings = await self._extended(found, caller, call.peer.address, now)
            written = self._audit.granted(call, secret=found.record.id, subject=str(blessings))
            try:
                await self._store.record_use(secret, now=now)
            except StorageError as error:  # a full disk must not cost replicas their identity
                _log.error("the use of a secret was not counted: %s", error)
            await self._audit.after_gift(written)
        _log.info("gave %s to %s at %s", blessings, caller, call.peer.address)
        return blessings

    async def _find(self, secret: str) -> StoredSecret:
        found = await self._store.search(secret)
        if found is None:
            raise CallError(
                ErrorCode.NOT_FOUND,
                "the secret is unknown here: it was forgotten, or made at another cluster agent",
                hint="start or update the application again, so that it gets a new one",
            )
        return found

    async def _extended(self, found: StoredSecret, caller: PublicKey, address: str, now: datetime) -> Blessings:
        """Return the blessings of a secret, extended to a key."""
        ttl = shorter(self._ttl, found.record.ttl)
        caveat = expiry_caveat(now, ttl, found.blessings.expiry)
        try:
            return await self._ownership.principal.bless(caller, found.blessings, extension_of(address), [caveat])
        except InputError as error:
            raise CallError(ErrorCode.INTERNAL, f"the blessings cannot be extended: {error.message}") from error


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


def shorter(one: timedelta | None, other: timedelta | None) -> timedelta | None:
    """Return the shorter of two lifetimes; None has no end."""
    return min((each for each in (one, other) if each is not None), default=None)


def expiry_caveat(now: datetime, ttl: timedelta | None, granted_until: datetime | None) -> Caveat:
    """Return the caveat of a replica's blessings: the lifetime they are given, never beyond what was granted."""
    end = replicas_end(now, ttl, granted_until)
    return Caveat.unconstrained() if end is None else Caveat.expiry(end)


def replicas_end(given: datetime, ttl: timedelta | None, granted_until: datetime | None) -> datetime | None:
    """Return when blessings end that a replica was given at that time, None where they do not."""
    return min((end for end in (given + ttl if ttl else None, granted_until) if end is not None), default=None)
