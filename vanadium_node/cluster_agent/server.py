"""Running a cluster agent: open what it keeps, serve, and drain when asked to stop."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import trio

from vanadium_node.agent import open_principal
from vanadium_node.claim import Ownership, open_ownership
from vanadium_node.cluster_agent.service import ClusterAgentObject, OwnersOnly, utc_now
from vanadium_node.config import ClusterAgentSettings
from vanadium_node.errors import ConfigurationError, InputError
from vanadium_node.rpc import serve
from vanadium_node.secret_store import open_secret_store
from vanadium_node.security.access import MAX_TEXT_BYTES, AccessList, Permissions, Tag
from vanadium_node.storage.files import make_private_directory, read_limited

DATABASE: Final = "secrets.db"
MAX_TOKEN_BYTES: Final = 4096

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where a cluster agent serves, and the names that it shows there; an unclaimed one shows none that counts."""

    addresses: tuple[str, ...]
    names: tuple[str, ...]

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
        StorageError: what it keeps is damaged or cannot be written.
    """
    make_private_directory(settings.root_dir)
    async with _open_ownership(settings) as ownership, open_secret_store(settings.root_dir / DATABASE) as store:
        service = ClusterAgentObject(
            ownership,
            store,
            claimer=settings.claimer,
            token=_token(settings),
            permissions=Permissions(dict.fromkeys(Tag, AccessList(in_=settings.admin))),
            ttl=settings.blessing_ttl,
            now=now,
        )
        async with serve(
            service,
            ownership.principal,
            listen=[settings.listen],
            authorizer=OwnersOnly(ownership),
            now=now,
            drain_timeout=settings.drain_timeout,
        ) as server:
            claimed = ownership.principal.store.default if ownership.is_claimed else None
            serving = Serving(addresses=tuple(server.addresses), names=() if claimed is None else claimed.names)
            _log.info("serving at %s as %s, %d secrets", serving.addresses[0], claimed or "unclaimed", store.count())
            if claimed is None:
                key = ownership.principal.public_key.fingerprint
                _log.info(
                    "waiting for its claim: 'controller claim-cluster-agent --fingerprint %s' claims no other", key
                )
            task_status.started(serving)
            await (trio.Event() if stop is None else stop).wait()
            _log.info("stopping: running calls have %g s", settings.drain_timeout.total_seconds())


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


def _permissions(settings: ClusterAgentSettings) -> Permissions | None:
    if settings.permissions_file is None:
        return settings.permissions
    text = read_limited(settings.permissions_file, max_bytes=MAX_TEXT_BYTES).decode(errors="replace")
    try:
        return Permissions.parse(text)
    except InputError as error:
        raise ConfigurationError(f"'{settings.permissions_file}': {error.message}", hint=error.hint) from error


def _token(settings: ClusterAgentSettings) -> str | None:
    file: Path | None = settings.pairing_token_file
    if file is None:
        return settings.pairing_token
    token = read_limited(file, max_bytes=MAX_TOKEN_BYTES).decode(errors="replace").strip()
    if not token:
        raise ConfigurationError(f"the pairing token file '{file}' is empty", hint="write a token into it")
    return token
