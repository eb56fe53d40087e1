"""What is known about secrets, for people and for machines."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from vanadium_node.config import format_duration
from vanadium_node.errors import clip
from vanadium_node.secret_store import KnownSecret

if TYPE_CHECKING:
    from rich.table import Table


def order(known: KnownSecret) -> tuple[tuple[str, ...], datetime, bytes]:
    """Return what secrets are sorted by: their names, then their age."""
    return known.names, known.created, known.key


def describe(known: KnownSecret) -> str:
    """Return one line about a secret."""
    if known.is_damaged:
        return f"{known.id}: the record is damaged; it gives nothing any more"
    used = "never used" if known.last_used is None else f"used {known.uses} times, last {_time(known.last_used)}"
    said = [f"made {_time(known.created)} by {clip(known.created_by)}", used]
    if known.ttl_seconds is not None:
        said.append(f"for {_ttl(known)} at a time")
    if known.expires is not None:
        said.append(f"until {_time(known.expires)}")
    return f"{known.id} {', '.join(map(clip, known.names))}: {', '.join(said)}"


def table(found: list[KnownSecret]) -> Table:
    """Return secrets as a table."""
    from rich.table import Table as RichTable

    shown = RichTable("ID", "Name", "Made", "By", "Uses", "Last used", "TTL", "Expires", box=None, pad_edge=False)
    for known in found:
        if known.is_damaged:
            shown.add_row(known.id, "(damaged)", style="red")
            continue
        last = "never" if known.last_used is None else _time(known.last_used)
        expires = "never" if known.expires is None else _time(known.expires)
        names, maker = "\n".join(map(clip, known.names)), clip(known.created_by)
        row = (known.id, names, _time(known.created), maker, str(known.uses), last, _ttl(known), expires)
        shown.add_row(*row, style="dim" if known.last_used is None else "")
    return shown


def to_json(known: KnownSecret) -> dict[str, object]:
    """Return a secret's record for machines; times are in ISO 8601."""
    values = {name: getattr(known, name) for name in ("created", "expires", "last_used", "replicas_until")}
    times = {name: None if time is None else time.isoformat() for name, time in values.items()}
    return {
        "id": known.id,
        "key": known.key.hex(),
        "names": list(known.names),
        "createdBy": known.created_by,
        "created": times["created"],
        "expires": times["expires"],
        "ttlSeconds": known.ttl_seconds,
        "uses": known.uses,
        "lastUsed": times["last_used"],
        "replicasUntil": times["replicas_until"],
        "damaged": known.is_damaged,
    }


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"


def _ttl(known: KnownSecret) -> str:
    return "-" if known.ttl_seconds is None else format_duration(timedelta(seconds=known.ttl_seconds))
