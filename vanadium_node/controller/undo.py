"""Making several changes as one: what was done is undone in reverse when the block fails or is cancelled."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from vanadium_node.errors import VanadiumError

UNDO_SECONDS: Final = 60.0
"""How long undoing may take all in all; a second Ctrl-C ends it at once."""


class Undo:
    """The steps that take back what was done so far."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []

    def push(self, what: str, step: Callable[[], Awaitable[object]]) -> None:
        """Remember how to take something back, before or after doing it: a step must bear that there is nothing to undo."""
        self._steps.append((what, step))

    def keep(self) -> None:
        """Forget all steps: what was done stays."""
        self._steps.clear()

    async def run(self, warn: Callable[[str], None]) -> None:
        """Take everything back; a step that fails is reported, and the others are still taken."""
        while self._steps:
            what, step = self._steps[-1]
            try:
                await step()
            except VanadiumError as error:
                warn(f"could not {what}: {error}")
            self._steps.pop()

    @property
    def pending(self) -> tuple[str, ...]:
        """What would be taken back, the next one first."""
        return tuple(what for what, _ in reversed(self._steps))


@asynccontextmanager
async def undone_on_failure(warn: Callable[[str], None]) -> AsyncIterator[Undo]:
    """Collect steps while the block runs; unless it ends well, take them back, shielded from Ctrl-C but not for ever."""
    undo = Undo()
    try:
        yield undo
        undo.keep()
    finally:
        if undo.pending:
            with trio.move_on_after(UNDO_SECONDS, shield=True) as scope:
                await undo.run(warn)
            if scope.cancelled_caught:
                warn(f"there was no time left to {', to '.join(undo.pending)}")
