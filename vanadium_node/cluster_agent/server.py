"""Running a cluster agent: open what it keeps, serve, and drain when asked to stop."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import trio

from vanadium_node.claim import Claimable, Ownership, open_ownership
from vanadium_node.cluster_agent.service import ClusterAgent, ClusterAgentAdmin
from vanadium_node.errors import ConfigurationError
from vanadium_node.rpc import serve
from vanadium_node.secret_store import open_secret_store
from vanadium_node.security.access import AccessList, Permissions, Tag
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.storage.credentials import CredentialsDirectory
from vanadium_node.storage.files import make_private_directory

DATABASE: Final = "secrets.db"
DEFAULT_TTL: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a cluster agent runs.

    `claimer` with `root_blessings` say who may claim it, and `admin` who is to be its administrator then. With `credentials`
    and `permissions` it needs no claim. `blessing_ttl` is the life of what replicas get; zero means for ever.
    """

    directory: Path
    listen: tuple[str, ...] = (":8193",)
    root_blessings: Blessings | None = None
    claimer: Pattern | None = None
    admin: tuple[Pattern, ...] = ()
    pairing_token: str | None = None
    blessing_ttl: timedelta = DEFAULT_TTL
    credentials: Path | None = None
    permissions: Permissions | None = None


async def run(settings: Settings, *, task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve until cancelled; report the addresses once it serves.

    Raises:
        ConfigurationError: nobody could ever claim it.
        StorageError: what it keeps is damaged or cannot be written.
    """
    make_private_directory(settings.directory)
    ownership = await _ownership(settings)
    async with open_secret_store(settings.directory / DATABASE) as store:
        services = (
            Claimable(
                ownership,
                claimer=settings.claimer,
                token=settings.pairing_token,
                permissions=Permissions({Tag.ADMIN: AccessList(in_=settings.admin)}),
            ),
            ClusterAgent(ownership, store, ttl=settings.blessing_ttl),
            ClusterAgentAdmin(ownership, store),
        )
        async with serve(services, ownership.principal, listen=settings.listen) as server:
            task_status.started(tuple(server.addresses))
            await trio.sleep_forever()


async def _ownership(settings: Settings) -> Ownership:
    if settings.credentials is not None:
        if settings.permissions is None:
            raise ConfigurationError(
                "a cluster agent with credentials of its own needs permissions too",
                hint='give --permissions FILE or --v23.permissions.literal \'{"Admin": {"In": ["root:admin"]}}\'',
            )
        return Ownership.given(CredentialsDirectory(settings.credentials).open(), settings.permissions)
    roots = BlessingRoots()
    if settings.root_blessings is not None:
        roots = roots.with_roots_of(settings.root_blessings)
    ownership = await open_ownership(settings.directory, roots)
    if not ownership.is_claimed and (settings.root_blessings is None or settings.claimer is None or not settings.admin):
        raise ConfigurationError(
            "this cluster agent has no owner, and nobody could claim it",
            hint="set --root-blessings, --claimer and --admin (ROOT_BLESSINGS, CLAIMER, ADMIN)",
        )
    return ownership
