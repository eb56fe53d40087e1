"""A wrong clock for one Python process: with this folder in PYTHONPATH, `datetime.now()` is SHIFT_SECONDS ahead, in all of it."""

import datetime
import os
from typing import Self

SHIFT = datetime.timedelta(seconds=float(os.environ.get("SHIFT_SECONDS", "0")))


class ShiftedDatetime(datetime.datetime):
    """A datetime whose now is another one."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Self:
        """Return the wrong time."""
        return super().now(tz) + SHIFT


datetime.datetime = ShiftedDatetime  # type: ignore[misc]
