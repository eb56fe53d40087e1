"""Following collections: list, watch from there, and list again when the server has forgotten where we were (410).

A watch that ends or goes quiet is renewed from the last version seen; connection failures are retried with growing pauses,
since whoever follows has a deadline of its own. Refusals (401, 403, 404 of the collection) are raised.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from vanadium_node.errors import KubernetesError, clip
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import Manifest, Resource, resource_version_of, uid_of

WATCH_SECONDS: Final = 240
"""How long the server is asked to keep one watch; with bookmarks it says something about once a minute."""

QUIET_SECONDS: Final = 90.0
"""A watch that said nothing for so long, not even a bookmark, is taken for dead: half-open connections look like that."""

PAUSES: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Pauses in seconds between attempts to reach the server, the last one repeated."""

GONE: Final = 410
FATAL: Final = frozenset({400, 401, 403, 404, 405})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What to follow: a collection, in a namespace, narrowed by selectors."""

    resource: Resource
    namespace: str | None = None
    labels: str = ""
    fields: str = ""

    def query(self, version: str) -> dict[str, str]:
        """Return the query of a watch that starts after `version`."""
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        query["timeoutSeconds"] = str(WATCH_SECONDS)
        return query | {k: v for k, v in {"labelSelector": self.labels, "fieldSelector": self.fields}.items() if v}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a watch."""

    kind: str
    item: Manifest

    @classmethod
    def parse(cls, line: str, scope: Scope) -> "Event":
        """Read a line.

        Raises:
            KubernetesError: it is an error of the server, or no event.
        """
        try:
            event = json.loads(line)
            kind, item = str(event["type"]), event["object"]
            item.get("metadata")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise KubernetesError(f"the watch of {scope.resource.plural} sent a line that is no event") from error
        if kind == "ERROR":
            raise KubernetesError(
                f"the watch of {scope.resource.plural} ended: {clip(str(item.get('message', 'unknown error')))}",
                status=int(item.get("code") or 500),
                reason=str(item.get("reason") or ""),
            )
        return cls(kind=kind, item=item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All objects of a scope after some change. Snapshots come in order; some in between may be left out."""

    scope: Scope
    items: tuple[Manifest, ...]


async def follow(client: KubeClient, scope: Scope, send: trio.MemorySendChannel[Snapshot | KubernetesError]) -> None:
    """Send a snapshot of the scope now and after each change, until cancelled.

    Raises:
        KubernetesError: the server refuses the list or the watch.
    """
    failures = 0
    version = ""
    items: dict[str, Manifest] = {}
    while True:
        try:
            if not version:
                listing = await client.list(scope.resource, scope.namespace, labels=scope.labels, fields=scope.fields)
                items, version = {uid_of(item): item for item in listing.items}, listing.resource_version
                await send.send(Snapshot(scope=scope, items=tuple(items.values())))
            async with aclosing(_events(client, scope, version)) as events:
                async for event in events:
                    version, failures = resource_version_of(event.item) or version, 0
                    if _apply(items, event):
                        await send.send(Snapshot(scope=scope, items=tuple(items.values())))
        except KubernetesError as error:
            if error.status in FATAL:
                raise
            if error.status == GONE:
                version = ""
            pause = PAUSES[min(failures, len(PAUSES) - 1)]
            failures += 1
            await trio.sleep(pause)


async def _events(client: KubeClient, scope: Scope, version: str) -> AsyncGenerator[Event, None]:
    doing = f"watch {scope.resource.title(scope.namespace, None)}"
    path = scope.resource.path(scope.namespace)
    async with client.lines(path, scope.query(version), quiet_seconds=QUIET_SECONDS, doing=doing) as lines:
        async for line in lines:
            if line:
                yield Event.parse(line, scope)


def _apply(items: dict[str, Manifest], event: Event) -> bool:
    """Bring `items` up to date and tell whether that changed anything."""
    match event.kind:
        case "ADDED" | "MODIFIED":
            items[uid_of(event.item)] = event.item
            return True
        case "DELETED":
            return items.pop(uid_of(event.item), None) is not None
        case _:  # BOOKMARK, and whatever later versions add
            return False


@asynccontextmanager
async def following(
    client: KubeClient, scopes: Sequence[Scope]
) -> AsyncIterator[trio.MemoryReceiveChannel[Snapshot | KubernetesError]]:
    """Follow several scopes while the block runs. One channel gives their snapshots, and the refusal that ended one of them."""
    send, receive = trio.open_memory_channel[Snapshot | KubernetesError](0)

    async def follow_until_refused(scope: Scope) -> None:
        try:
            await follow(client, scope, send)
        except KubernetesError as error:
            await send.send(error)

    async with trio.open_nursery() as nursery:
        for scope in scopes:
            nursery.start_soon(follow_until_refused, scope)
        yield receive
        nursery.cancel_scope.cancel()
