"""Waiting for what happens in another process."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def until(ask: Callable[[], Awaitable[T]], *, seconds: float = 120) -> T:
    """Ask again and again until the answer is true, and return it."""
    with trio.fail_after(seconds):
        while True:
            answer = await ask()
            if answer:
                return answer
            await trio.sleep(0.05)
