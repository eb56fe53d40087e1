"""Tasks that run methods, used again and again.

A new task and a new cancel scope for each call would cost as much as the call. A worker keeps both, and makes a new scope
only after a cancellation. Every call starts with the context variables of the server, whatever the one before has set.
"""

from __future__ import annotations

from contextvars import Context
from typing import Protocol

import outcome
import trio


class Job(Protocol):
    """A call to be run."""

    async def run(self) -> None:
        """Run the method and answer. Only cancellation, and bugs of ours, leave it as exceptions."""

    def started(self, worker: Worker) -> None:
        """Take note of who runs it, to be able to cancel it."""


class Worker:
    """One task. `scope` surrounds the job that it runs."""

    __slots__ = ("scope", "task")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task | None = None


MAX_IDLE = 256
"""Workers kept when there is nothing to do; more end."""


class Workers:
    """The workers of one server."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._idle: list[Worker] = []
        self._context = trio.lowlevel.current_task().context.copy()

    def start(self, job: Job) -> None:
        """Run a job soon, on an idle worker or a new one."""
        if not self._idle:
            worker = Worker()
            job.started(worker)
            self._context.copy().run(self._nursery.start_soon, self._work, worker, job)
            return
        worker = self._idle.pop()
        task = worker.task
        if task is None:
            raise RuntimeError("an idle worker has no task")
        job.started(worker)
        task.context = self._fresh_context()
        trio.lowlevel.reschedule(task, outcome.Value(job))

    def _fresh_context(self) -> Context:
        return self._context.copy()

    async def _work(self, worker: Worker, job: Job) -> None:
        worker.task = trio.lowlevel.current_task()
        while True:
            with worker.scope as scope:
                while True:
                    await job.run()
                    if scope.cancel_called or len(self._idle) >= MAX_IDLE:
                        break
                    job = await self._next(worker)
            if len(self._idle) >= MAX_IDLE:
                return
            worker.scope = trio.CancelScope()
            job = await self._next(worker)

    async def _next(self, worker: Worker) -> Job:
        self._idle.append(worker)

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._idle.remove(worker)
            return trio.lowlevel.Abort.SUCCEEDED

        job: Job = await trio.lowlevel.wait_task_rescheduled(abort)
        return job
