"""The scheduler: every pod goes to this machine, unless it asks for another kind of node."""

from __future__ import annotations

from typing import Final

from vanadium_node.local.api.kinds import NODE, POD
from vanadium_node.local.api.objects import Object, ObjectStore, timestamp
from vanadium_node.local.machine.conditions import set_condition
from vanadium_node.local.machine.controllers import Controller, itself
from vanadium_node.local.machine.recorder import Recorder

SCHEDULER: Final = "default-scheduler"
MISFIT: Final = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."


class Scheduler:
    """Gives pods to the node."""

    def __init__(self, store: ObjectStore, recorder: Recorder, node: str) -> None:
        self._store = store
        self._events = recorder
        self._node = node

    def controller(self) -> Controller:
        """Return the controller to run."""
        return Controller(name="scheduler", reconcile=self.reconcile, watches={POD: itself})

    def reconcile(self, namespace: str, name: str) -> None:
        """Give a pod to the node, or say why not."""
        pod = self._store.find(POD, namespace, name)
        if pod is None or not _is_ours(pod):
            return
        if not _fits(self._store, self._node, pod["spec"]):
            self._refuse(pod)
            return
        self._store.modify(POD, namespace, name, lambda obj: obj["spec"].update(nodeName=self._node))
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
        now = timestamp(self._store.now())
        self._store.modify_status(POD, namespace, name, lambda status: set_condition(status, scheduled, now))
        self._events.normal(pod, "Scheduled", f"Successfully assigned {namespace}/{name} to {self._node}")

    def _refuse(self, pod: Object) -> None:
        refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": MISFIT}

        def edit(status: Object) -> None:
            status.setdefault("phase", "Pending")
            set_condition(status, {"lastProbeTime": None, **refused}, timestamp(self._store.now()))

        after = self._store.modify_status(POD, pod["metadata"]["namespace"], pod["metadata"]["name"], edit)
        if after.get("status") != pod.get("status"):
            self._events.warning(pod, "FailedScheduling", MISFIT)


def _is_ours(pod: Object) -> bool:
    """Tell whether the pod waits for this scheduler."""
    spec = pod["spec"]
    waits = not spec.get("nodeName") and not spec.get("schedulingGates") and "deletionTimestamp" not in pod["metadata"]
    return waits and spec.get("schedulerName", SCHEDULER) == SCHEDULER


def _fits(store: ObjectStore, node: str, spec: Object) -> bool:
    labels = store.get(NODE, None, node)["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items())
