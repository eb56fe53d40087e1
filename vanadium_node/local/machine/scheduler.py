"""The scheduler: every pod goes to this machine, unless it asks for another kind of node."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from vanadium_node.local.api.kinds import NODE, POD
from vanadium_node.local.api.objects import EventType, Object, ObjectStore, timestamp
from vanadium_node.local.machine.conditions import set_condition
from vanadium_node.local.machine.following import changes
from vanadium_node.local.machine.recorder import Recorder

SCHEDULER: Final = "default-scheduler"
MISFIT: Final = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."


async def run_scheduler(store: ObjectStore, recorder: Recorder, node: str) -> None:
    """Give pods to the node until cancelled."""
    async with aclosing(changes(store, POD)) as events:
        async for event in events:
            if event.type is not EventType.DELETED:
                schedule(store, recorder, node, event.object)


def schedule(store: ObjectStore, recorder: Recorder, node: str, pod: Object) -> None:
    """Give a pod to the node, or say why not."""
    metadata, spec = pod["metadata"], pod["spec"]
    current = store.find(POD, metadata["namespace"], metadata["name"])
    if current is None or current["metadata"]["uid"] != metadata["uid"] or current["spec"].get("nodeName"):
        return
    if "deletionTimestamp" in metadata or spec.get("schedulingGates"):
        return
    if spec.get("schedulerName", SCHEDULER) != SCHEDULER:
        return
    if not _fits(store, node, spec):
        _refuse(store, recorder, current)
        return
    store.modify(POD, metadata["namespace"], metadata["name"], lambda obj: obj["spec"].update(nodeName=node))
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
    store.modify_status(
        POD,
        metadata["namespace"],
        metadata["name"],
        lambda status: set_condition(status, scheduled, timestamp(store.now())),
    )
    text = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}"
    recorder.normal(current, "Scheduled", text)


def _fits(store: ObjectStore, node: str, spec: Object) -> bool:
    labels = store.get(NODE, None, node)["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items())


def _refuse(store: ObjectStore, recorder: Recorder, pod: Object) -> None:
    refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": MISFIT}

    def edit(status: Object) -> None:
        status.setdefault("phase", "Pending")
        set_condition(status, {"lastProbeTime": None, **refused}, timestamp(store.now()))

    before = pod.get("status")
    metadata = pod["metadata"]
    after = store.modify_status(POD, metadata["namespace"], metadata["name"], edit)
    if after.get("status") != before:
        recorder.warning(pod, "FailedScheduling", MISFIT)
