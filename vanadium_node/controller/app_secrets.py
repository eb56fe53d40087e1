"""The applications' secrets: a key at the cluster agent and the Kubernetes Secret that holds it, made and removed together."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import trio

from vanadium_node.controller.objects import (
    MADE_FOR,
    MANAGED_BY,
    US,
    application_name,
    application_of,
    digest_of,
    key_of,
    secret,
)
from vanadium_node.controller.site import ClusterAgent, Site
from vanadium_node.controller.undo import Undo
from vanadium_node.kube.injection import secret_in_use, secret_of_pod
from vanadium_node.kube.resources import POD, SECRET, Manifest, name_of, resource_version_of, uid_of
from vanadium_node.kube.workloads import KINDS, resource_for
from vanadium_node.secret_store import fresh_secret

NEW_SECRET_SECONDS: Final = 45.0
"""How long a request for a secret is seen through even after Ctrl-C: abandoned half-way, it could be done after it was undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSecrets:
    """The secrets of a site's applications."""

    site: Site
    agent: ClusterAgent

    async def make(self, undo: Undo, namespace: str, kind: str, application: str, extension: str) -> str:
        """Make a Secret with a new key, and the key good at the cluster agent; return the Secret's name.

        In this order: whatever ends the command, even a `kill -9`, the key that nobody uses can be found, and forgotten.
        """
        name, key = f"secret-{secrets.token_hex(16)}", fresh_secret()
        client = self.site.client
        undo.push(f"delete Secret {namespace}/{name}", lambda: client.delete(SECRET, namespace, name))
        await client.create(SECRET, namespace, secret(name, application_name(kind, application), key))
        undo.push("forget the new key at the cluster agent", lambda: self.agent.forget_secret(key))
        with trio.CancelScope(deadline=trio.current_time() + NEW_SECRET_SECONDS, shield=True):
            await self.agent.new_secret(extension, key)
        await trio.lowlevel.checkpoint_if_cancelled()
        return name

    async def of(self, namespace: str, kind: str, application: str, *, keep: str | None = None) -> list[Manifest]:
        """Return the Secrets that were made for the application, but for the one to keep."""
        return await self._made_for(namespace, application_name(kind, application), keep)

    async def before(self, namespace: str, kind: str, application: str, newest: str) -> list[Manifest]:
        """Return the Secrets that were made for the application before the newest one was: what an earlier start left."""
        stored = await self.site.client.find(SECRET, namespace, newest)
        version = "" if stored is None else resource_version_of(stored)
        return await self._made_for(namespace, application_name(kind, application), newest, version)

    async def _made_for(self, namespace: str, name: str, keep: str | None, not_older_than: str = "") -> list[Manifest]:
        found = await self._all(namespace, f",{MADE_FOR}={digest_of(name)}", not_older_than)
        return [s for s in found if application_of(s) == name and name_of(s) != keep]

    async def unused(self, namespace: str, *, older_than: timedelta) -> list[Manifest]:
        """Return the Secrets that nothing uses; young ones may belong to a command that is at work right now."""
        found = await self._all(namespace)  # first, so that a workload that is made in between is seen
        in_use = await self._in_use(namespace) if found else set()
        limit = datetime.now(UTC) - older_than
        return [s for s in found if name_of(s) not in in_use and _created(s) <= limit]

    async def in_use_by_pods(self, namespace: str) -> set[str]:
        """Return the names of the Secrets that pods use which have not ended, whoever made those."""
        pods = await self.site.client.list(POD, namespace)
        living = [p for p in pods.items if (p.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}]
        return {name for name in (secret_of_pod(pod["spec"]) for pod in living) if name is not None}

    async def _in_use(self, namespace: str) -> set[str]:
        client = self.site.client
        server = await client.version()
        names = await self.in_use_by_pods(namespace)
        for kind in KINDS.values():
            listing = await client.list(resource_for(kind, server), namespace)
            in_use = (secret_in_use({**item, "kind": kind.name}) for item in listing.items)
            names |= {name for name in in_use if name is not None}
        return names

    async def forget(self, namespace: str, stored: Manifest) -> None:
        """Make the key worthless, then delete its Secret: in this order, what fails half-way can be found again."""
        key = key_of(stored)
        if key is not None:
            await self.agent.forget_secret(key)
        await self.site.client.delete(SECRET, namespace, name_of(stored), uid=uid_of(stored))

    async def _all(self, namespace: str, selector: str = "", not_older_than: str = "") -> list[Manifest]:
        labels = f"{MANAGED_BY}={US}{selector}"
        listing = await self.site.client.list(SECRET, namespace, labels=labels, not_older_than=not_older_than)
        return [stored for stored in listing.items if application_of(stored)]


def _created(stored: Manifest) -> datetime:
    return datetime.fromisoformat(stored["metadata"]["creationTimestamp"])
