"""Asking a socket again for a moment, instead of going to sleep at once, where one message follows another closely.

A process that sleeps until the next message is woken by the system, on a processor that has gone to sleep as well and has
forgotten what it knew: between two processes of one machine that takes longer than a whole call, and costs as much CPU as asking
does. Calls that one caller makes one after another to a server on the same machine are twice as fast with this, for the CPU that
they took before (`tests/benchmarks/rpc`). Linux does the same for the processors of virtual machines (`cpuidle-haltpoll`).

It costs nothing where it cannot help: a connection is polled only after messages that came alone and close together, for a few
turns of the scheduler, in which all other tasks run; a turn in which they had much to do is the last, since the process is awake
anyway. On a single processor whoever asks keeps the peer from answering, so there nobody does.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import Final

import trio

CLOSE_SECONDS: Final = 500e-6
"""Messages that follow each other in less are close: two ends on one machine, one after another, need 100 to 250 µs for a call."""

CLOSE_MESSAGES: Final = 3
"""So many close ones in a row are a sequence; a connection for one call never polls."""

TURNS: Final = 32
"""How many times a socket is asked at most: some 150 µs of an idle scheduler."""

BUSY_SECONDS: Final = 100e-6
"""A turn that takes longer was one with work for others."""


@cache
def _may_poll() -> bool:
    """Tell whether this process has a processor besides the one that its peer on this machine may need."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) > 1
    return (os.cpu_count() or 1) > 1


class Polling:
    """Whether the messages of one connection are close to each other, and asking for the next one while they are."""

    __slots__ = ("_close", "is_due")

    def __init__(self) -> None:
        self._close = 0
        self.is_due = False
        """Whether the next message is worth asking for."""

    def received(self, messages: int, seconds: float) -> None:
        """Take note that so many messages came together, so many seconds after those before them."""
        self._close = self._close + 1 if messages == 1 and seconds < CLOSE_SECONDS else 0
        self.is_due = self._close >= CLOSE_MESSAGES and _may_poll()

    async def poll(self, sock: socket.socket, size: int) -> bytes | None:
        """Return what the socket has within the next turns, `size` bytes at most; None where that is nothing. Raises OSError."""
        recv, checkpoint, clock = sock.recv, trio.lowlevel.checkpoint, trio.current_time
        began: float | None = None
        for _ in range(TURNS):
            await checkpoint()  # in the first turn whoever waited for the message before acts upon it
            now = clock()
            try:
                return recv(size)
            except BlockingIOError:
                if began is not None and now - began > BUSY_SECONDS:
                    break
            began = now
        return None
