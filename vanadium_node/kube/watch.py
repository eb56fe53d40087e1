"""Following collections: list, watch from there, and list again when the server has forgotten where we were (410).

A watch that ends or goes quiet is renewed from the last version seen; connection failures are retried with growing pauses,
since whoever follows has a deadline of its own. Refusals (401, 403, 404 of the collection) are raised.
"""

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias

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


@dataclass(slots=True)
class _Mirror:
    """A scope's objects as known here, and the version they are of (`""`: not known, list first)."""

    scope: Scope
    items: dict[str, Manifest] = field(default_factory=dict)
    version: str = ""

    def snapshot(self) -> Snapshot:
        return Snapshot(scope=self.scope, items=tuple(self.items.values()))

    def apply(self, event: Event) -> bool:
        """Bring the objects up to date and tell whether that changed anything."""
        self.version = resource_version_of(event.item) or self.version
        match event.kind:
            case "ADDED" | "MODIFIED":
                self.items[uid_of(event.item)] = event.item
                return True
            case "DELETED":
                return self.items.pop(uid_of(event.item), None) is not None
            case _:  # BOOKMARK, and whatever later versions add
                return False


Changes: TypeAlias = "trio.MemorySendChannel[Snapshot | KubernetesError]"


async def follow(client: KubeClient, scope: Scope, send: Changes) -> None:
    """Send a snapshot of the scope now and after each change until cancelled, or until the server refuses: that comes last."""
    mirror = _Mirror(scope)
    failures = 0
    while True:
        if mirror.version:
            failure, heard = await _watch(client, mirror, send)
        else:
            failure = await _list(client, mirror, send)
            heard = failure is None
        failures = 0 if heard else failures
        if failure is None and heard:
            continue
        if failure is not None and failure.status in FATAL:
            await send.send(failure)
            return
        if failure is not None and failure.status == GONE:
            mirror.version = ""
        await trio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
        failures += 1


async def _list(client: KubeClient, mirror: _Mirror, send: Changes) -> KubernetesError | None:
    scope = mirror.scope
    try:
        listing = await client.list(scope.resource, scope.namespace, labels=scope.labels, fields=scope.fields)
    except KubernetesError as error:
        return error
    mirror.items = {uid_of(item): item for item in listing.items}
    mirror.version = listing.resource_version
    await send.send(mirror.snapshot())
    return None


async def _watch(client: KubeClient, mirror: _Mirror, send: Changes) -> tuple[KubernetesError | None, bool]:
    """Follow one watch to its end; return what ended it early, and whether the server said anything before."""
    scope = mirror.scope
    lines_in, lines = trio.open_memory_channel[str | KubernetesError](math.inf)
    read = partial(
        client.stream_lines,
        scope.resource.path(scope.namespace),
        scope.query(mirror.version),
        lines_in,
        quiet_seconds=QUIET_SECONDS,
        doing=f"watch {scope.resource.title(scope.namespace, None)}",
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        outcome = await _take(lines, mirror, send)
        nursery.cancel_scope.cancel()
    return outcome


async def _take(
    lines: trio.MemoryReceiveChannel[str | KubernetesError], mirror: _Mirror, send: Changes
) -> tuple[KubernetesError | None, bool]:
    heard = False
    async for line in lines:
        if isinstance(line, KubernetesError):
            return line, heard
        if not line:
            continue
        try:
            event = Event.parse(line, mirror.scope)
        except KubernetesError as error:
            return error, heard
        heard = True
        if mirror.apply(event):
            await send.send(mirror.snapshot())
    return None, heard


@asynccontextmanager
async def following(
    client: KubeClient, scopes: Sequence[Scope]
) -> AsyncIterator[trio.MemoryReceiveChannel[Snapshot | KubernetesError]]:
    """Follow several scopes while the block runs. One channel gives their snapshots, and the refusal that ended one of them."""
    send, receive = trio.open_memory_channel[Snapshot | KubernetesError](0)
    async with trio.open_nursery() as nursery:
        for scope in scopes:
            nursery.start_soon(follow, client, scope, send)
        yield receive
        nursery.cancel_scope.cancel()
