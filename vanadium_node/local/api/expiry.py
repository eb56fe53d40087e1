"""Events are kept for an hour, as on a real cluster: a pod that crashes for days must not fill memory."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import trio

from vanadium_node.local.api.kinds import EVENT
from vanadium_node.local.api.objects import Object, ObjectStore

LIFETIME: Final = timedelta(hours=1)
LOOK_SECONDS: Final = 60.0


async def expire_events(store: ObjectStore) -> None:
    """Delete events that happened last an hour ago, until cancelled."""
    while True:
        await trio.sleep(LOOK_SECONDS)
        bound = store.now() - LIFETIME
        for event in store.list(EVENT):
            if _last_seen(event) < bound:
                store.delete(EVENT, event["metadata"]["namespace"], event["metadata"]["name"])


def _last_seen(event: Object) -> datetime:
    """Return when the event happened last, or was written where it says nothing that makes sense."""
    series = event.get("series") or {}
    for text in (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime")):
        try:
            return datetime.fromisoformat(str(text)).astimezone()
        except ValueError:
            continue
    return datetime.fromisoformat(event["metadata"]["creationTimestamp"])
