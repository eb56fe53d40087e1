"""Following the objects of a kind: what is there first, then every change, without an end and without a gap."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import ApiError, Event, EventType, Object, ObjectStore


async def changes(store: ObjectStore, resource: ResourceType) -> AsyncGenerator[Event, None]:
    """Yield every object of a kind as ADDED, then what happens to them, until closed.

    A follower that was too slow is given the difference between what it knew and what is there.
    """
    known: dict[str, Object] = {}
    while True:
        now = {str(obj["metadata"]["uid"]): obj for obj in store.list(resource)}
        for uid, obj in list(known.items()):
            if uid not in now:
                yield _noted(known, Event(EventType.DELETED, obj))
        version = store.resource_version
        for obj in now.values():
            yield _noted(known, Event(EventType.ADDED, obj))
        try:
            async with aclosing(store.watch(resource, resource_version=version)) as events:
                async for event in events:
                    yield _noted(known, event)
        except ApiError as error:
            if error.status != 410:
                raise


def _noted(known: dict[str, Object], event: Event) -> Event:
    """Keep track of what the follower has been told."""
    uid = str(event.object["metadata"]["uid"])
    if event.type is EventType.DELETED:
        known.pop(uid, None)
    else:
        known[uid] = event.object
    return event
