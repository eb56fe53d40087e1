"""The kubelet: a worker for each pod of this machine, and what the API asks about its containers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import trio

from vanadium_node.local.api.kinds import CONFIG_MAP, POD, SECRET, ResourceType
from vanadium_node.local.api.objects import ApiError, EventType, Object
from vanadium_node.local.machine.container import Runner
from vanadium_node.local.machine.container_logs import ContainerLog, seconds_ago
from vanadium_node.local.machine.following import changes
from vanadium_node.local.machine.pod import Node, PodWorker
from vanadium_node.local.machine.pod_status import grace_seconds


class Kubelet:
    """Runs the pods that were given to this machine. Implements `PodLogs` of the API."""

    def __init__(self, node: Node, name: str, directory: Path) -> None:
        self._node = node
        self._name = name
        self._directory = directory
        self._workers: dict[str, PodWorker] = {}
        self._count = 0

    async def run(self) -> None:
        """Run pods until cancelled, which ends all of them."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce, SECRET)
            nursery.start_soon(self._announce, CONFIG_MAP)
            async with aclosing(changes(self._node.store, POD)) as events:
                async for event in events:
                    self._follow(nursery, event.type, event.object)

    async def read_logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        tail_lines: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
        since_seconds: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield what a container has printed, in pieces; with `follow`, until this run of it has ended.

        Raises:
            ApiError: it has not started yet, or has no previous run (400).
        """
        log = self._log(namespace, pod, container, previous=previous)
        since = seconds_ago(self._node.store.now(), since_seconds)
        pieces = log.read(follow=follow, tail_lines=tail_lines, timestamps=timestamps, since=since)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def _announce(self, kind: ResourceType) -> None:
        """Tell pods that objects have changed from which they may be filled."""
        async with aclosing(changes(self._node.store, kind)) as events:
            async for _ in events:
                self._node.news.ring()

    def _follow(self, nursery: trio.Nursery, what: EventType, pod: Object) -> None:
        uid = str(pod["metadata"]["uid"])
        worker = self._workers.get(uid)
        if what is EventType.DELETED:
            if worker is not None:
                worker.end(0)
        elif worker is None and pod["spec"].get("nodeName") == self._name:
            current = self._node.store.find(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])
            if current is not None and current["metadata"]["uid"] == uid:
                self._begin(nursery, current)
        elif worker is not None and "deletionTimestamp" in pod["metadata"]:
            worker.end(float(pod["metadata"].get("deletionGracePeriodSeconds", grace_seconds(pod))))
        elif worker is not None and worker.has_new_marks(pod):
            self._node.news.ring()

    def _begin(self, nursery: trio.Nursery, pod: Object) -> None:
        self._count += 1
        worker = PodWorker(self._node, pod, self._directory / str(self._count))
        self._workers[worker.uid] = worker
        nursery.start_soon(self._work, worker)
        if "deletionTimestamp" in pod["metadata"]:
            worker.end(0)

    async def _work(self, worker: PodWorker) -> None:
        await worker.run()
        del self._workers[worker.uid]

    def _log(self, namespace: str, pod: str, container: str, *, previous: bool) -> ContainerLog:
        runner = self._runner(namespace, pod, container)
        log = None if runner is None else (runner.previous_log if previous else runner.log)
        if log is not None:
            return log
        if previous:
            raise ApiError.bad_request(f'previous terminated container "{container}" in pod "{pod}" not found')
        waiting = {} if runner is None else runner.record.state.get("waiting") or {}
        reason = waiting.get("reason", "ContainerCreating")
        why = f'container "{container}" in pod "{pod}" is waiting to start: {reason}'
        if reason in ("ErrImagePull", "ImagePullBackOff"):
            why = f'container "{container}" in pod "{pod}" is waiting to start: trying and failing to pull image'
        raise ApiError.bad_request(why)

    def _runner(self, namespace: str, pod: str, container: str) -> Runner | None:
        uid = str(self._node.store.get(POD, namespace, pod)["metadata"]["uid"])
        worker = self._workers.get(uid)
        runners = worker.runners if worker is not None else ()
        return next((runner for runner in runners if runner.record.name == container), None)
