"""The daemon set controller: one pod of the template on each node that it is for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from vanadium_node.local.api.kinds import DAEMON_SET, NODE, POD
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore
from vanadium_node.local.machine import histories
from vanadium_node.local.machine.controllers import Controller, Key, itself, owner_of
from vanadium_node.local.machine.owned import claimed
from vanadium_node.local.machine.pods import ENDED, available_in, from_template, is_ending, is_ready, phase
from vanadium_node.local.machine.recorder import Recorder

GENERATION: Final = "deprecated.daemonset.template.generation"
POD_GENERATION: Final = "pod-template-generation"


class DaemonSets:
    """Keeps a pod of every daemon set on the nodes that its node selector allows."""

    def __init__(self, store: ObjectStore, recorder: Recorder) -> None:
        self._store = store
        self._events = recorder

    def controller(self) -> Controller:
        """Return the controller to run."""
        watches = {DAEMON_SET: itself, POD: owner_of("DaemonSet"), NODE: self._every}
        return Controller(name="daemon-set", reconcile=self.reconcile, watches=watches)

    def _every(self, _: Object) -> Iterable[Key]:
        for owner in self._store.list(DAEMON_SET):
            yield from itself(owner)

    def reconcile(self, namespace: str, name: str) -> float | None:
        """Make, replace or delete one pod for each node, and say so in the status."""
        owner = self._store.find(DAEMON_SET, namespace, name)
        if owner is None:
            return None
        if is_ending(owner):
            return None
        revision = histories.newest(self._store, owner)
        owner = self._numbered(owner, revision)
        refusal = self._correct(owner, histories.label_of(revision))
        pods = self._pods(owner)
        self._report(owner, pods, histories.label_of(revision))
        histories.prune(self._store, owner, {histories.label_of(revision), *map(_label, pods)})
        if refusal is not None:
            raise refusal
        waits = [available_in(pod, _min_ready(owner), self._store.now()) for pod in pods]
        return min((wait for wait in waits if wait), default=None)

    def _numbered(self, owner: Object, revision: Object) -> Object:
        """Write the template's number where kubectl and the controller look for it."""
        number, metadata = str(revision["revision"]), owner["metadata"]
        if (metadata.get("annotations") or {}).get(GENERATION) == number:
            return owner

        def edit(obj: Object) -> None:
            obj["metadata"].setdefault("annotations", {})[GENERATION] = number

        return self._store.modify(DAEMON_SET, metadata["namespace"], metadata["name"], edit)

    def _pods(self, owner: Object) -> list[Object]:
        return [pod for pod in claimed(self._store, owner, POD) if not is_ending(pod)]

    def _correct(self, owner: Object, label: str) -> ApiError | None:
        nodes, pods = self._nodes(owner), self._pods(owner)
        for node in nodes:
            own = [pod for pod in pods if pod["spec"].get("nodeName") == node]
            ended = [pod for pod in own if phase(pod) in ENDED]
            surplus = [pod for pod in own if pod not in ended][1:]
            for pod in (*ended, *surplus):
                self._delete(owner, pod)
            if len(own) == len(ended) and not self._is_leaving(owner, node):
                try:
                    self._create(owner, node, label)
                except ApiError as error:
                    self._events.warning(owner, "FailedCreate", f"Error creating: {error.message}")
                    return error
        for pod in pods:
            if pod["spec"].get("nodeName") not in nodes:
                self._delete(owner, pod)
        if owner["spec"]["updateStrategy"]["type"] == "RollingUpdate":
            self._replace_one(owner, label)
        return None

    def _replace_one(self, owner: Object, label: str) -> None:
        """Delete an old pod, one at a time: the next goes when its successor is there. One that is not ready harms nobody."""
        pods = [pod for pod in self._pods(owner) if phase(pod) not in ENDED]
        old = sorted((pod for pod in pods if _label(pod) != label), key=is_ready)
        missing = len(self._nodes(owner)) - sum(map(is_ready, pods))
        if old and (not is_ready(old[0]) or missing == 0):
            self._delete(owner, old[0])

    def _is_leaving(self, owner: Object, node: str) -> bool:
        """Tell whether the node still runs a pod that is ending: its successor waits for it."""
        every = claimed(self._store, owner, POD)
        return any(is_ending(pod) and pod["spec"].get("nodeName") == node for pod in every)

    def _nodes(self, owner: Object) -> list[str]:
        wanted = (owner["spec"]["template"].get("spec") or {}).get("nodeSelector") or {}
        nodes = self._store.list(NODE)
        fit = [n for n in nodes if wanted.items() <= (n["metadata"].get("labels") or {}).items()]
        return [str(node["metadata"]["name"]) for node in fit]

    def _create(self, owner: Object, node: str, label: str) -> None:
        pod = from_template(owner)
        labels = pod["metadata"].setdefault("labels", {})
        labels |= {histories.HASH_LABEL: label, POD_GENERATION: owner["metadata"]["annotations"][GENERATION]}
        pod["spec"]["nodeName"] = node
        made = self._store.create(POD, pod)
        self._events.normal(owner, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")

    def _delete(self, owner: Object, pod: Object) -> None:
        metadata = pod["metadata"]
        self._store.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        self._events.normal(owner, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")

    def _report(self, owner: Object, pods: Sequence[Object], label: str) -> None:
        nodes, metadata = self._nodes(owner), owner["metadata"]
        placed = [pod for pod in pods if pod["spec"].get("nodeName") in nodes and phase(pod) not in ENDED]
        available = [p for p in placed if available_in(p, _min_ready(owner), self._store.now()) == 0.0]
        wanted = {
            "currentNumberScheduled": len(placed),
            "desiredNumberScheduled": len(nodes),
            "numberAvailable": len(available),
            "numberMisscheduled": len(pods) - len(placed),
            "numberReady": sum(map(is_ready, placed)),
            "numberUnavailable": len(nodes) - len(available),
            "observedGeneration": metadata.get("generation", 1),
            "updatedNumberScheduled": sum(_label(pod) == label for pod in placed),
        }
        if wanted != owner.get("status"):
            self._store.modify_status(
                DAEMON_SET, metadata["namespace"], metadata["name"], lambda status: status.update(wanted)
            )


def _label(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get(histories.HASH_LABEL, ""))


def _min_ready(owner: Object) -> int:
    return int(owner["spec"].get("minReadySeconds") or 0)
