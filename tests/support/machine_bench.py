"""A machine with a store of its own, for tests that make objects and wait for what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trio

from vanadium_node.local.api.bootstrap import new_store
from vanadium_node.local.api.kinds import DEPLOYMENT, EVENT, POD, REPLICA_SET, ResourceType
from vanadium_node.local.api.logs import PodLogs
from vanadium_node.local.api.objects import Object, ObjectStore
from vanadium_node.local.machine import run_machine

BEGIN = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
WAIT_SECONDS = 20.0
SLEEP = ["sh", "-c", "exec sleep 1000"]


def trio_time() -> Callable[[], datetime]:
    """Return a wall clock that goes as trio's clock does, so that a test's clock moves both."""
    began = trio.current_time()
    return lambda: BEGIN + timedelta(seconds=trio.current_time() - began)


def container(name: str = "app", command: list[str] | None = None, **more: Any) -> Object:
    """Make a container that sleeps, or runs a command."""
    return {"name": name, "image": "image:1", "command": command or SLEEP, **more}


def shell(text: str, name: str = "app", **more: Any) -> Object:
    """Make a container that runs a line of shell."""
    return container(name, ["sh", "-c", text], **more)


@dataclass(frozen=True)
class Bench:
    """A running machine and its store."""

    store: ObjectStore
    logs: PodLogs
    root: Path

    def pod(
        self, *containers: Object, name: str = "pod", labels: Mapping[str, str] | None = None, **spec: Any
    ) -> Object:
        """Create a pod; it gets little time to end, as tests are impatient."""
        metadata = {"name": name, "labels": dict(labels or {})}
        made = {"terminationGracePeriodSeconds": 5, "containers": list(containers), **spec}
        return self.store.create(POD, {"metadata": metadata, "spec": made})

    def deployment(self, *containers: Object, name: str = "web", replicas: int = 2, **spec: Any) -> Object:
        """Create a deployment."""
        template = {
            "metadata": {"labels": {"app": name}},
            "spec": {"containers": list(containers) or [container()], "terminationGracePeriodSeconds": 5},
        }
        made = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template, **spec}
        return self.store.create(DEPLOYMENT, {"metadata": {"name": name}, "spec": made})

    async def until(
        self, holds: Callable[[Object], bool], kind: ResourceType = POD, name: str = "pod", namespace: str = "default"
    ) -> Object:
        """Wait until something holds of an object, and return it."""
        with trio.fail_after(WAIT_SECONDS):
            async with aclosing(self.store.watch(kind, namespace)) as events:
                async for event in events:
                    if event.object["metadata"]["name"] == name and holds(event.object):
                        return event.object
        raise AssertionError("a watch without an end has ended")

    async def until_any(self, holds: Callable[[Object], bool], kind: ResourceType = POD) -> Object:
        """Wait until something holds of any object of a kind, and return that object."""
        with trio.fail_after(WAIT_SECONDS):
            async with aclosing(self.store.watch(kind)) as events:
                async for event in events:
                    if holds(event.object):
                        return event.object
        raise AssertionError("a watch without an end has ended")

    async def until_event(self, reason: str, name: str = "pod") -> Object:
        """Wait until an object has an event of this reason, and return the event."""
        return await self.until_any(lambda e: e["involvedObject"]["name"] == name and e["reason"] == reason, EVENT)

    async def until_ready(self, name: str = "pod") -> Object:
        """Wait until a pod is ready."""
        return await self.until(lambda pod: conditions(pod).get("Ready") == "True", name=name)

    async def until_waiting(self, reason: str, name: str = "pod", number: int = 0) -> Object:
        """Wait until a container of a pod waits for this reason, and return its status."""

        def waits(pod: Object) -> bool:
            statuses = pod.get("status", {}).get("containerStatuses", ())
            return bool(statuses) and statuses[number]["state"].get("waiting", {}).get("reason") == reason

        pod = await self.until(waits, name=name)
        status: Object = pod["status"]["containerStatuses"][number]
        return status

    async def until_gone(self, name: str = "pod", kind: ResourceType = POD) -> None:
        """Wait until an object is no more."""
        with trio.fail_after(WAIT_SECONDS):
            version = self.store.resource_version
            if self.store.find(kind, "default", name) is None:
                return
            async with aclosing(self.store.watch(kind, "default", version)) as events:
                async for event in events:
                    if event.type == "DELETED" and event.object["metadata"]["name"] == name:
                        return

    async def until_rolled_out(self, name: str = "web") -> Object:
        """Wait until all pods of a deployment are new and available."""

        def is_done(deployment: Object) -> bool:
            status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
            seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
            counts = [status.get(key, 0) for key in ("updatedReplicas", "replicas", "availableReplicas")]
            return seen and counts == [wanted] * 3

        return await self.until(is_done, DEPLOYMENT, name)

    async def log(self, name: str = "pod", container: str = "app", **options: Any) -> str:
        """Return what a container has printed."""
        pieces = [piece async for piece in self.logs.read_logs("default", name, container, **options)]
        return b"".join(pieces).decode()

    async def until_logged(self, text: str, name: str = "pod", container: str = "app") -> str:
        """Wait until a container has printed something, and return all of its output."""
        seen = b""
        await self.until(lambda pod: _has_started(pod, container), name=name)
        with trio.fail_after(WAIT_SECONDS):
            async with aclosing(self.logs.read_logs("default", name, container, follow=True)) as pieces:
                async for piece in pieces:
                    seen += piece
                    if text in seen.decode():
                        return seen.decode()
        raise AssertionError(f"the container ended without printing {text!r}: {seen!r}")

    def pods(self) -> tuple[Object, ...]:
        """Return the pods that nobody has asked to end."""
        return tuple(pod for pod in self.store.list(POD) if "deletionTimestamp" not in pod["metadata"])

    def replica_sets(self) -> tuple[Object, ...]:
        """Return the replica sets, by revision."""
        key = "deployment.kubernetes.io/revision"
        return tuple(sorted(self.store.list(REPLICA_SET), key=lambda rs: int(rs["metadata"]["annotations"][key])))

    def reasons(self, name: str = "pod") -> list[str]:
        """Return the reasons of an object's events, in order."""
        events = (e for e in self.store.list(EVENT) if e["involvedObject"]["name"] == name)
        return [e["reason"] for e in sorted(events, key=lambda e: int(e["metadata"]["resourceVersion"]))]

    def messages(self, reason: str, name: str = "pod") -> list[str]:
        """Return the messages of an object's events of one reason."""
        events = self.store.list(EVENT)
        return [e["message"] for e in events if e["involvedObject"]["name"] == name and e["reason"] == reason]

    def journal(self) -> str:
        """Return the machine's own log, which is empty unless something went wrong in it."""
        path = self.root / "machine.log"
        return path.read_text() if path.exists() else ""


def conditions(obj: Object) -> dict[str, str]:
    """Return the status of each of an object's conditions."""
    return {c["type"]: c["status"] for c in obj.get("status", {}).get("conditions") or ()}


def condition_of(obj: Object, kind: str) -> Object:
    """Return the condition of a type, empty where there is none."""
    found = (c for c in obj.get("status", {}).get("conditions") or () if c["type"] == kind)
    return next(found, {})


def state(pod: Object, number: int = 0, key: str = "containerStatuses") -> Object:
    """Return the state of one of a pod's containers."""
    statuses = pod.get("status", {}).get(key) or [{"state": {}}] * (number + 1)
    found: Object = statuses[number]["state"]
    return found


def restarts(pod: Object) -> int:
    """Return how often a pod's first container was started again."""
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return int(statuses[0].get("restartCount", 0))


def _has_started(pod: Object, container: str) -> bool:
    status = pod.get("status", {})
    every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return any(one["name"] == container and one.get("containerID") for one in every)


@asynccontextmanager
async def running_bench(root: Path, *, noting: str = "") -> AsyncIterator[Bench]:
    """Run a machine while the block lasts; a bug that it has noted fails the test, unless the test expects it."""
    store = new_store(trio_time())
    async with trio.open_nursery() as nursery:
        logs: PodLogs = await nursery.start(run_machine, store, root)
        bench = Bench(store, logs, root)
        yield bench
        nursery.cancel_scope.cancel()
    journal = bench.journal()
    assert noting in journal if noting else " bug in " not in journal, journal
