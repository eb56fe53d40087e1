"""How long to wait before the next try: nothing at first, then 10 s, doubling to 5 min, as a kubelet does."""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 10.0
LAST_SECONDS: Final = 300.0
FORGOTTEN_AFTER_SECONDS: Final = 600.0
"""A container that ran for so long starts from the beginning."""


class BackOff:
    """The waiting times of one container."""

    def __init__(self) -> None:
        self._next = 0.0

    def after(self, seconds_it_ran: float) -> float:
        """Return how long to wait after a failure."""
        if seconds_it_ran >= FORGOTTEN_AFTER_SECONDS:
            self._next = 0.0
        now = self._next
        self._next = min(max(now * 2, FIRST_SECONDS), LAST_SECONDS)
        return now
