"""A bell: whoever waits is woken by its next ring."""

from __future__ import annotations

import trio


class Bell:
    """Wakes many who wait for news; those who come later wait for the next."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake everybody who waits."""
        self._rung.set()
        self._rung = trio.Event()

    async def wait(self) -> None:
        """Wait for the next ring."""
        await self._rung.wait()

    async def wait_at_most(self, seconds: float) -> None:
        """Wait for the next ring, or so many seconds."""
        with trio.move_on_after(seconds):
            await self._rung.wait()
