"""Waiting for what is damaged to be put right: a daemon that ended over it would only be started again, and again."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import trio

from vanadium_node.errors import DamagedError
from vanadium_node.health.endpoint import Health

T = TypeVar("T")

RETRY_SECONDS: Final = 2.0

_log: Final = logging.getLogger(__name__)


async def once_sound(open_: Callable[[], Awaitable[T]], health: Health, stop: trio.Event) -> T | None:
    """Return what `open_` returns; while it finds damage be alive and not ready, say why, and look again every two seconds.

    Returns None if `stop` is set first.
    """
    said = ""
    not_ready = health.not_ready
    while not stop.is_set():
        try:
            opened = await open_()
        except DamagedError as error:
            reason = str(error)
        else:
            health.not_ready = not_ready
            if said:
                _log.info("what was damaged is sound again")
            return opened
        health.not_ready = partial(_reasons, reason)
        if reason != said:
            _log.error("not ready: %s; it is looked at again every %g s", reason, RETRY_SECONDS)
            said = reason
        with trio.move_on_after(RETRY_SECONDS):
            await stop.wait()
    return None


def _reasons(*reasons: str) -> tuple[str, ...]:
    return reasons
