"""Schedules of cron jobs: text → times."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from vanadium_node.local.api.errors import Cause

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def times(schedule: str, zone: str | None, after: datetime, *, reverse: bool = False) -> Iterator[datetime]:
    """Return the times of a schedule after a moment, or with `reverse` before it, by the clock of a time zone (default UTC).

    Raises:
        ValueError: the text is no schedule, or the time zone is unknown; the sentence says what is wrong.
    """
    try:
        return CronSim(NAMED.get(schedule, schedule), after.astimezone(_zone(zone)), reverse=reverse)
    except CronSimError as error:
        raise ValueError(str(error)) from error


def schedule_faults(schedule: str, zone: str | None) -> Iterator[Cause]:
    """Yield what is wrong with the schedule of a cron job."""
    fields = schedule.split()
    if not schedule.startswith("@") and len(fields) != 5:
        yield Cause.wrong("spec.schedule", schedule, f"expected exactly 5 fields, found {len(fields)}: {schedule}")
        return
    try:
        _zone(zone)
    except ValueError as error:
        yield Cause.wrong("spec.timeZone", zone, str(error))
        return
    try:
        times(schedule, None, EPOCH)
    except ValueError as error:
        yield Cause.wrong("spec.schedule", schedule, str(error))


def _zone(name: str | None) -> Any:
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"unknown time zone {name}") from error
