"""Running a cluster agent: open what it keeps, serve, and drain when asked to stop."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import trio

from vanadium_node.agent import open_principal
from vanadium_node.claim import Ownership, open_ownership
from vanadium_node.cluster_agent.audit import Audit
from vanadium_node.cluster_agent.issuing import utc_now
from vanadium_node.cluster_agent.limits import Limits
from vanadium_node.cluster_agent.service import ClusterAgentObject, Condition, OwnersOnly
from vanadium_node.config import ClusterAgentSettings
from vanadium_node.errors import ConfigurationError, StorageError
from vanadium_node.health import Health, health_endpoint, once_sound
from vanadium_node.rpc import serve
from vanadium_node.rpc.limiting import limits_of
from vanadium_node.secret_store import SecretStore, open_secret_store
from vanadium_node.security.access import AccessList, Permissions, Tag
from vanadium_node.storage.audit_log import AuditLog, open_audit_log
from vanadium_node.storage.files import held, make_private_directory, read_limited
from vanadium_node.storage.permission_files import PermissionsFile

DATABASE: Final = "secrets.db"
AUDIT_LOG: Final = "audit.jsonl"
LOCK_FILE: Final = "lock"
RESTORING: Final = "restoring"
"""A file that is there as long as a backup is put back only in part."""

MAX_TOKEN_BYTES: Final = 4096

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where a cluster agent serves, and the names that it shows there; an unclaimed one shows none that counts."""

    addresses: tuple[str, ...]
    names: tuple[str, ...]
    not_ready: Callable[[], tuple[str, ...]]
    """Returns why it is not ready now, a sentence each, for probes and people; empty when it is."""

    @property
    def name(self) -> str:
        """How to call it: `/HOST:PORT`, or `/(PATTERN)@HOST:PORT` when it is claimed."""
        pattern = f"({self.names[0]})@" if self.names else ""
        return f"/{pattern}{self.addresses[0]}"


async def run(
    settings: ClusterAgentSettings,
    *,
    stop: trio.Event | None = None,
    now: Callable[[], datetime] = utc_now,
    task_status: trio.TaskStatus[Serving] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set, then let running calls end; or until cancelled. Report once it serves.

    Raises:
        ConfigurationError: nobody could ever claim it, or it cannot listen where it should.
        StorageError: its directory cannot be used, another process uses it, or a backup is there only in part. Damage and a
            full disk end nothing: its health tells, and what can be served is; without its own key, once that is restored.
    """
    stop = trio.Event() if stop is None else stop
    make_private_directory(settings.root_dir)
    with held(settings.root_dir / LOCK_FILE, f"the directory '{settings.root_dir}'"):
        if (settings.root_dir / RESTORING).exists():
            raise StorageError(
                f"restoring a backup into '{settings.root_dir}' was cut short",
                hint="restore into it again ('cluster-agent restore'), then start",
            )
        async with health_endpoint(settings.health_listen) as health, AsyncExitStack() as stack:
            ownership = await once_sound(lambda: stack.enter_async_context(_open_ownership(settings)), health, stop)
            if ownership is None:
                return
            store = await stack.enter_async_context(open_secret_store(settings.root_dir / DATABASE))
            log = await stack.enter_async_context(_open_audit_log(settings, now))
            await _serve(settings, ownership, store, log, health, stop, now, task_status)


async def _serve(
    settings: ClusterAgentSettings,
    ownership: Ownership,
    store: SecretStore,
    log: AuditLog,
    health: Health,
    stop: trio.Event,
    now: Callable[[], datetime],
    task_status: trio.TaskStatus[Serving],
) -> None:
    audit = Audit(log, is_strict=settings.audit_strict)
    condition = Condition(store, log)
    service = _service(settings, ownership, store, audit, now)
    key = ownership.principal.public_key.fingerprint
    async with (
        serve(
            service,
            ownership.principal,
            listen=[settings.listen],
            authorizer=OwnersOnly(ownership, audit),
            limits=limits_of(settings),
            now=now,
            drain_timeout=settings.drain_timeout,
            observers=health.observers,
        ) as server,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(condition.watch)
        claimed = ownership.principal.store.default if ownership.is_claimed else None
        serving = Serving(
            addresses=tuple(server.addresses),
            names=() if claimed is None else claimed.names,
            not_ready=condition.reasons,
        )
        with suppress(StorageError):  # the condition tells
            await audit.event("started", agent=str(claimed or "unclaimed"), key=key).written()
        _log.info("serving at %s as %s", serving.addresses[0], claimed or "unclaimed")
        _log.info("the audit log goes on after line %d, hash %s", log.last.seq, log.last.hash)
        if claimed is None:
            _log.info("waiting for its claim: 'controller claim-cluster-agent --fingerprint %s' claims no other", key)
        health.not_ready = condition.reasons
        task_status.started(serving)
        await stop.wait()
        _log.info("stopping: running calls have %g s", settings.drain_timeout.total_seconds())
        health.not_ready = lambda: ("it is stopping",)
        audit.event("stopping", key=key)
        nursery.cancel_scope.cancel()


def _service(
    settings: ClusterAgentSettings, ownership: Ownership, store: SecretStore, audit: Audit, now: Callable[[], datetime]
) -> ClusterAgentObject:
    return ClusterAgentObject(
        ownership,
        store,
        audit=audit,
        limits=Limits(
            per_secret=settings.rate_per_secret,
            per_address=settings.rate_per_address,
            in_flight=settings.max_in_flight,
            clock=trio.current_time,
        ),
        claimer=settings.claimer,
        token=_token(settings),
        permissions=Permissions(dict.fromkeys(Tag, AccessList(in_=settings.admin))),
        ttl=settings.blessing_ttl,
        now=now,
    )


def _open_audit_log(
    settings: ClusterAgentSettings, now: Callable[[], datetime]
) -> AbstractAsyncContextManager[AuditLog]:
    path = settings.audit_file or settings.root_dir / AUDIT_LOG
    return open_audit_log(path, max_bytes=settings.audit_max_size, keep=settings.audit_keep, now=now)


@asynccontextmanager
async def _open_ownership(settings: ClusterAgentSettings) -> AsyncIterator[Ownership]:
    """Open the principal the agent is: its own with permissions, or one that is or will be claimed."""
    permissions = _permissions(settings)
    if permissions is not None:
        async with open_principal(credentials=settings.credentials) as principal:
            for root in settings.root_blessings:
                principal.roots = principal.roots.with_roots_of(root)
            yield Ownership.given(principal, permissions)
        return
    ownership = await open_ownership(settings.root_dir, settings.root_blessings)
    if not ownership.is_claimed and not (settings.root_blessings and settings.claimer and settings.admin):
        raise ConfigurationError(
            "this cluster agent has no owner, and nobody could claim it",
            hint="set --root-blessings, --claimer and --admin (ROOT_BLESSINGS, CLAIMER, ADMIN)",
        )
    yield ownership


def _permissions(settings: ClusterAgentSettings) -> Permissions | PermissionsFile | None:
    if settings.permissions_file is None:
        return settings.permissions
    return PermissionsFile(settings.permissions_file).checked()


def _token(settings: ClusterAgentSettings) -> str | None:
    file: Path | None = settings.pairing_token_file
    if file is None:
        return settings.pairing_token
    token = read_limited(file, max_bytes=MAX_TOKEN_BYTES).decode(errors="replace").strip()
    if not token:
        raise ConfigurationError(f"the pairing token file '{file}' is empty", hint="write a token into it")
    return token
