"""A real cluster agent in this process, whose calls can be counted and can go wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio
from agent_parties import blessed
from faults import Fault, Faults

from vanadium_node.claim import Ownership
from vanadium_node.cluster_agent.audit import Audit
from vanadium_node.cluster_agent.issuing import utc_now
from vanadium_node.cluster_agent.limits import Limits
from vanadium_node.cluster_agent.service import ClusterAgentObject
from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.rpc import Call, serve
from vanadium_node.secret_store import open_secret_store
from vanadium_node.security.access import Permissions
from vanadium_node.security.principal import Principal
from vanadium_node.storage.audit_log import open_audit_log


@dataclass(frozen=True)
class WatchedCalls:
    """Counts a call as a step, and kills who made it before it is done, or after."""

    faults: Faults

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        fault = self.faults.step(call.method)
        if fault is Fault.KILL:
            self.faults.kill()
            raise CallError(ErrorCode.CANCELLED, "the caller is dead, and nothing was done")
        yield
        if fault is Fault.KILL_AFTER:
            self.faults.kill()


@asynccontextmanager
async def watched_agent(root: Principal, folder: Path, faults: Faults) -> AsyncIterator[str]:
    """Run the cluster agent `NAME:cluster-agent`, which obeys its root; give its address, HOST:PORT."""
    principal = await blessed(root, "cluster-agent")
    permissions = Permissions.of(Admin=[str(root.store.default)])
    async with (
        open_secret_store(folder / "secrets.db") as store,
        open_audit_log(folder / "audit.jsonl", max_bytes=2**30, keep=1, now=utc_now) as log,
    ):
        service = ClusterAgentObject(
            Ownership.given(principal, permissions),
            store,
            audit=Audit(log, is_strict=False),
            limits=Limits(per_secret=0, per_address=0, in_flight=64, clock=trio.current_time),
            claimer=(),
            token=None,
            permissions=permissions,
            ttl=None,
        )
        listen = ["127.0.0.1:0"]
        async with serve(service, principal, listen=listen, interceptors=[WatchedCalls(faults)]) as server:
            yield server.addresses[0]
