"""The life of one pod: directories and address, init containers in order, containers, the end.

A native sidecar is an init container with `restartPolicy: Always`: the next one starts when it has started (its startup probe has
passed), and it is stopped after the containers, in reverse order.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from vanadium_node.local.api.kinds import POD
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore, timestamp
from vanadium_node.local.machine.addresses import Addresses
from vanadium_node.local.machine.bell import Bell
from vanadium_node.local.machine.container import Runner
from vanadium_node.local.machine.journal import Journal, cause_of
from vanadium_node.local.machine.pod_status import ContainerRecord, PodFacts, grace_seconds, pod_status
from vanadium_node.local.machine.processes import Watchdog
from vanadium_node.local.machine.recorder import Recorder
from vanadium_node.local.machine.surroundings import Surroundings
from vanadium_node.local.machine.volumes import Volumes, VolumeUnavailable

VOLUME_RETRY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What all pods of the machine share."""

    store: ObjectStore
    events: Recorder
    journal: Journal
    watchdog: Watchdog
    addresses: Addresses
    news: Bell
    disks: Path
    hosts_file: Callable[[str], Path]
    has_private_names: bool
    node_address: str


class PodWorker:
    """Runs one pod from its arrival on the machine to its removal."""

    def __init__(self, node: Node, pod: Object, directory: Path) -> None:
        self.runners: tuple[Runner, ...] = ()
        self._node = node
        self._pod = pod
        self._directory = directory
        self._volumes = Volumes(node.store, directory, node.disks)
        self._address = ""
        self._began = timestamp(node.store.now())
        self._starting = trio.CancelScope()
        self._asked_to_end = trio.Event()
        self._deadline = float("inf")
        self._stopping: list[Runner] = []
        self._failure: Mapping[str, str] = {}
        self._marks = _marks(pod)

    @property
    def uid(self) -> str:
        """Return the pod's uid."""
        return str(self._pod["metadata"]["uid"])

    def pod(self) -> Object:
        """Return the pod as it is now, or as it last was."""
        metadata = self._pod["metadata"]
        found = self._node.store.find(POD, metadata["namespace"], metadata["name"])
        if found is not None and found["metadata"]["uid"] == metadata["uid"]:
            self._pod = found
        return self._pod

    def has_new_marks(self, pod: Object) -> bool:
        """Tell, once for each change, whether labels or annotations have changed: files may show them."""
        before, self._marks = self._marks, _marks(pod)
        return before != self._marks

    def end(self, grace_seconds: float) -> None:
        """Ask the pod to end, with so much time; asked again, the earlier deadline counts."""
        self._deadline = min(self._deadline, trio.current_time() + grace_seconds)
        self._asked_to_end.set()
        self._starting.cancel()
        for runner in self._stopping:
            runner.hasten(self._deadline)

    async def run(self) -> None:
        """Run the pod. A bug in here becomes an event of the pod; it stays as it is until somebody deletes it."""
        try:
            await self._live()
        except Exception as error:  # noqa: BLE001 - the boundary where a bug in one pod's task must not stop the others
            self._node.journal.bug(f"pod {self._pod['metadata']['namespace']}/{self._pod['metadata']['name']}", error)
            text = f"error syncing pod: {type(cause_of(error)).__name__}; the machine's log has the traceback"
            self._node.events.warning(self.pod(), "FailedSync", text)
            await self._asked_to_end.wait()
        self._remove()

    def publish(self) -> None:
        """Write the pod's status."""
        pod = self.pod()
        facts = PodFacts(
            address=self._address,
            node_address=self._node.node_address,
            start_time=self._began,
            is_set_up=bool(self.runners),
        )
        status = pod_status(pod, self._records(), facts, timestamp(self._node.store.now()))
        status |= self._failure
        if status != pod.get("status"):
            with suppress(ApiError):  # deleted meanwhile
                self._pod = self._node.store.update_status(POD, {**pod, "status": status})

    async def _live(self) -> None:
        self._address = self._node.addresses.take()
        spec = self._pod["spec"]
        async with trio.open_nursery() as nursery:
            if spec.get("activeDeadlineSeconds"):
                self._starting.deadline = trio.current_time() + int(spec["activeDeadlineSeconds"])
            with self._starting:
                self.publish()
                await self._mount()
                self.runners = self._made_runners()
                self.publish()
                nursery.start_soon(self._refresh_volumes)
                await self._run_to_the_end(nursery)
            if self._starting.cancelled_caught and not self._asked_to_end.is_set():
                self._fail_by_deadline()
            await self._stop()
            self.publish()
            await self._asked_to_end.wait()
            nursery.cancel_scope.cancel()

    async def _mount(self) -> None:
        """Fill the volumes, as soon as everything that fills them is there."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            try:
                self._volumes.fill(self.pod())
                return
            except VolumeUnavailable as error:
                self._node.events.warning(self.pod(), "FailedMount", str(error))
            except OSError as error:
                self._node.events.warning(self.pod(), "FailedMount", f"MountVolume.SetUp failed: {error}")
            await self._node.news.wait_at_most(VOLUME_RETRY_SECONDS)

    async def _refresh_volumes(self) -> None:
        """Keep the volumes as their Secrets and ConfigMaps are; what was deleted stays as it last was."""
        while True:
            await self._node.news.wait()
            try:
                self._volumes.fill(self.pod())
            except VolumeUnavailable:
                continue
            except OSError as error:
                self._node.events.warning(self.pod(), "FailedMount", f"MountVolume.SetUp failed: {error}")

    def _made_runners(self) -> tuple[Runner, ...]:
        around = Surroundings(
            store=self._node.store,
            events=self._node.events,
            watchdog=self._node.watchdog,
            news=self._node.news,
            pod=self.pod,
            publish=self.publish,
            places=self._volumes.places(self._pod),
            directory=self._directory,
            hosts=self._node.hosts_file(self._pod["metadata"]["namespace"]),
            has_private_names=self._node.has_private_names,
            address=self._address,
        )
        return tuple(
            Runner(around, container, record, number)
            for number, (container, record) in enumerate(zip(_containers(self._pod), self._new_records(), strict=True))
        )

    def _records(self) -> tuple[ContainerRecord, ...]:
        return tuple(runner.record for runner in self.runners) or self._new_records()

    def _new_records(self) -> tuple[ContainerRecord, ...]:
        spec = self._pod["spec"]
        has_inits = bool(spec.get("initContainers"))
        inits = [_record(container, is_init=True) for container in spec.get("initContainers") or ()]
        apps = [_record(container, is_init=False) for container in spec["containers"]]
        for record in (*inits[1:], *(apps if has_inits else ())):
            record.state = {"waiting": {"reason": "PodInitializing"}}
        return (*inits, *apps)

    async def _run_to_the_end(self, nursery: trio.Nursery) -> None:
        """Run the containers until they have ended for good, which most never do."""
        for runner in self.runners:
            if not runner.record.is_init:
                continue
            self._start(nursery, runner)
            if runner.record.is_sidecar:
                await runner.started.wait()
            else:
                await runner.ended.wait()
                if runner.record.exit_code != 0:
                    return
        for runner in self._apps:
            self._start(nursery, runner)
        for runner in self._apps:
            await runner.ended.wait()

    def _start(self, nursery: trio.Nursery, runner: Runner) -> None:
        self._stopping.append(runner)
        nursery.start_soon(runner.run)

    @property
    def _apps(self) -> tuple[Runner, ...]:
        return tuple(runner for runner in self.runners if not runner.record.is_init)

    async def _stop(self) -> None:
        """Stop what was started: containers together, then the sidecars one after the other, the last one first."""
        if self._deadline == float("inf"):
            self._deadline = trio.current_time() + grace_seconds(self._pod)
        async with trio.open_nursery() as nursery:
            for runner in self._stopping:
                if not runner.record.is_sidecar:
                    nursery.start_soon(runner.stop, self._deadline)
        for runner in reversed(self._stopping):
            if runner.record.is_sidecar:
                await runner.stop(self._deadline)

    def _fail_by_deadline(self) -> None:
        text = "Pod was active on the node longer than the specified deadline"
        self._node.events.normal(self.pod(), "DeadlineExceeded", text)
        self._failure = {"phase": "Failed", "reason": "DeadlineExceeded", "message": text}

    def _remove(self) -> None:
        """Remove what the pod had, and the pod itself."""
        for runner in self.runners:
            for log in (runner.log, runner.previous_log):
                if log is not None:
                    log.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._node.addresses.give_back(self._address)
        metadata = self._pod["metadata"]
        with suppress(ApiError):  # it has been removed already
            self._node.store.delete(POD, metadata["namespace"], metadata["name"], grace_seconds=0, uid=self.uid)


def _marks(pod: Object) -> tuple[Object, Object]:
    return pod["metadata"].get("labels") or {}, pod["metadata"].get("annotations") or {}


def _containers(pod: Object) -> tuple[Mapping[str, Any], ...]:
    return (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"])


def _record(container: Object, *, is_init: bool) -> ContainerRecord:
    return ContainerRecord(
        name=str(container["name"]),
        image=str(container.get("image") or ""),
        is_init=is_init,
        is_sidecar=is_init and container.get("restartPolicy") == "Always",
    )
