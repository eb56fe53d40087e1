"""Waiting for what happens in another process, or at the other end of a socket."""

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


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what happens soon, on sockets of this process."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - sockets have no event for it
            await trio.sleep(0.01)
