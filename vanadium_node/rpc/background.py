"""The tasks of one connection: started when they are first needed, and ended together, at once, without waiting for them.

A nursery for each connection cost a tenth of connecting; most connections that are made for a call never start a task.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import trio

log = logging.getLogger("vanadium_node.rpc")

Run: TypeAlias = Callable[[], Awaitable[None]]
Spawn: TypeAlias = Callable[..., Any]
"""`start_soon` of a nursery, or `trio.lowlevel.spawn_system_task`."""

SYSTEM: Final[Spawn] = trio.lowlevel.spawn_system_task


class Background:
    """Tasks that somebody else's nursery holds. One that fails is a bug; it is logged, and takes nothing else along."""

    __slots__ = ("_scopes", "_spawn")

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._scopes: list[trio.CancelScope] = []

    def start(self, run: Run) -> None:
        """Run a task until it ends, or all are."""
        scope = trio.CancelScope()
        self._scopes.append(scope)
        self._spawn(self._guarded, run, scope)

    def end(self) -> None:
        """Cancel all tasks; those that wait have let go of what they wait for when this returns."""
        for scope in self._scopes:
            scope.cancel()

    async def _guarded(self, run: Run, scope: trio.CancelScope) -> None:
        with scope:
            if scope.cancel_called:
                return  # before its turn came
            try:
                await run()
            except Exception:
                log.exception("a task of a connection failed")
