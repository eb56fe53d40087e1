"""All that a cluster agent serves on its one object, who may call it, and how the agent itself is."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import trio

from vanadium_node.claim import Claimable, Ownership
from vanadium_node.cluster_agent.admin import ClusterAgentAdmin
from vanadium_node.cluster_agent.audit import Audit
from vanadium_node.cluster_agent.issuing import ClusterAgent, utc_now
from vanadium_node.cluster_agent.limits import Limits
from vanadium_node.rpc import Call
from vanadium_node.secret_store import SecretStore
from vanadium_node.security.access import Permissions
from vanadium_node.security.authorization import AuthorizationRequest, Refusal, permissions_authorizer
from vanadium_node.security.pattern import Pattern
from vanadium_node.storage.audit_log import AuditLog

LOOK_SECONDS: Final = 1.0

_log: Final = logging.getLogger(__name__)


class ClusterAgentObject(Claimable, ClusterAgent, ClusterAgentAdmin):
    """All that a cluster agent serves, on one object."""

    def __init__(
        self,
        ownership: Ownership,
        store: SecretStore,
        *,
        audit: Audit,
        limits: Limits,
        claimer: Sequence[Pattern],
        token: str | None,
        permissions: Permissions,
        ttl: timedelta | None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        Claimable.__init__(self, ownership, claimer=claimer, token=token, permissions=permissions)
        ClusterAgent.__init__(self, ownership, store, audit=audit, limits=limits, ttl=ttl, now=now)
        ClusterAgentAdmin.__init__(self, ownership, store, audit=audit, limits=limits, ttl=ttl, now=now)

    async def claim(self, call: Call, pairing_token: str) -> None:
        """Gives the server the blessings granted on the call and, with them, its owner. The same claim may be repeated."""
        subject = "" if call.granted is None else str(call.granted)
        with self._audit.watching(call, subject=subject), self._limits.admitted():
            self._limits.check_address(call.peer.address)
            await super().claim(call, pairing_token)

    async def before_claim(self, call: Call) -> None:
        """Write the claim down before it is made."""
        await self._audit.before_change(self._audit.granted(call, subject=str(call.granted)))


@dataclass(frozen=True, slots=True)
class OwnersOnly:
    """The authorizer of a cluster agent: whom its permissions name; nobody before the claim. Refusals are written down."""

    ownership: Ownership
    audit: Audit

    def __call__(self, request: AuthorizationRequest) -> Refusal | None:
        """Return None, or why the call is refused."""
        if self.ownership.permissions is None:
            refusal: Refusal | None = Refusal(
                "this cluster agent is not claimed yet; run 'vanadium-node controller claim-cluster-agent'"
            )
        else:
            refusal = permissions_authorizer(self.ownership.permissions)(request)
        if refusal is not None:
            self.audit.refused(request, refusal)
        return refusal


@dataclass(frozen=True, slots=True)
class Condition:
    """How a cluster agent is: what its store and its audit log suffer from."""

    store: SecretStore
    log: AuditLog

    def reasons(self) -> tuple[str, ...]:
        """Return why the agent is not ready, a sentence each; empty when it is. What still can be served is served."""
        trouble = self.log.trouble
        return (*self.store.troubles(), *(() if trouble is None else (str(trouble),)))

    async def watch(self) -> None:
        """Log each change, until cancelled."""
        said: tuple[str, ...] = ()
        while True:
            now = self.reasons()
            if now != said:
                if now:
                    _log.error("not ready: %s", "; and ".join(now))
                else:
                    _log.info("ready again")
                said = now
            await trio.sleep(LOOK_SECONDS)
