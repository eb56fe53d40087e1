"""The stateful set controller: pods with numbers and disks of their own, made, replaced and removed in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from vanadium_node.local.api.kinds import PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore, copied
from vanadium_node.local.machine import histories
from vanadium_node.local.machine.controllers import Controller, itself, owner_of
from vanadium_node.local.machine.owned import claimed, reference_to
from vanadium_node.local.machine.pods import ENDED, available_in, from_template, is_ending, is_ready, phase
from vanadium_node.local.machine.recorder import Recorder

POD_NAME_LABEL: Final = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """What one look at a stateful set finds: its spec's wishes, its revisions, and its pods by their numbers."""

    owner: Object
    newest: Object
    pods: Mapping[int, Object]

    @property
    def numbers(self) -> range:
        """The numbers of the pods that are to be there."""
        spec = self.owner["spec"]
        start = int((spec.get("ordinals") or {}).get("start") or 0)
        return range(start, start + int(spec.get("replicas", 1)))

    @property
    def is_ordered(self) -> bool:
        return bool(self.owner["spec"]["podManagementPolicy"] == "OrderedReady")

    @property
    def rolls(self) -> bool:
        return bool(self.owner["spec"]["updateStrategy"]["type"] == "RollingUpdate")

    @property
    def partition(self) -> int:
        """The first number that a rolling update changes."""
        return int((self.owner["spec"]["updateStrategy"].get("rollingUpdate") or {}).get("partition") or 0)

    @property
    def current(self) -> str:
        """The name of the revision that pods had before the update that is going on, the newest where there is none."""
        status = self.owner.get("status") or {}
        return str(status.get("currentRevision") or self.newest["metadata"]["name"])

    def is_new(self, pod: Object) -> bool:
        """Tell whether a pod is of the newest revision."""
        return (pod["metadata"].get("labels") or {}).get(histories.HASH_LABEL) == histories.label_of(self.newest)


class StatefulSets:
    """Keeps the pods and claims of every stateful set."""

    def __init__(self, store: ObjectStore, recorder: Recorder) -> None:
        self._store = store
        self._events = recorder

    def controller(self) -> Controller:
        """Return the controller to run."""
        watches = {STATEFUL_SET: itself, POD: owner_of("StatefulSet")}
        return Controller(name="stateful-set", reconcile=self.reconcile, watches=watches)

    def reconcile(self, namespace: str, name: str) -> float | None:
        """Do what can be done now, in order, and say so in the status."""
        owner = self._store.find(STATEFUL_SET, namespace, name)
        if owner is None or is_ending(owner):
            return None
        newest = histories.newest(self._store, owner)
        refusal: ApiError | None = None
        try:
            self._correct(self._turn(owner, newest))
        except ApiError as error:
            self._events.warning(owner, "FailedCreate", f"create Pod failed error: {error.message}")
            refusal = error
        turn = self._turn(owner, newest)
        self._report(turn)
        labels = {(pod["metadata"].get("labels") or {}).get(histories.HASH_LABEL, "") for pod in turn.pods.values()}
        status = self._store.get(STATEFUL_SET, namespace, name)["status"]
        used = {status["currentRevision"].removeprefix(f"{name}-"), histories.label_of(newest)}
        histories.prune(self._store, owner, labels | used)
        if refusal is not None:
            raise refusal
        waits = [self._available_in(owner, pod) for pod in turn.pods.values()]
        return min((wait for wait in waits if wait), default=None)

    def _turn(self, owner: Object, newest: Object) -> _Turn:
        pods: dict[int, Object] = {}
        for pod in claimed(self._store, owner, POD):
            text = pod["metadata"]["name"].removeprefix(f"{owner['metadata']['name']}-")
            if text.isdecimal():
                pods[int(text)] = pod
        return _Turn(owner=owner, newest=newest, pods=pods)

    def _available_in(self, owner: Object, pod: Object) -> float | None:
        return available_in(pod, int(owner["spec"].get("minReadySeconds") or 0), self._store.now())

    def _is_healthy(self, turn: _Turn, pod: Object | None) -> bool:
        return pod is not None and not is_ending(pod) and self._available_in(turn.owner, pod) == 0.0

    def _correct(self, turn: _Turn) -> None:
        if not self._make(turn):
            return
        surplus = [number for number in sorted(turn.pods, reverse=True) if number not in turn.numbers]
        for number in surplus:
            if not is_ending(turn.pods[number]):
                self._delete(turn, number)
            if turn.is_ordered:
                return
        if turn.rolls:
            self._replace_one(turn)

    def _make(self, turn: _Turn) -> bool:
        """Make the pods that are missing; tell whether it is time for anything else. In order, each waits for the one before."""
        for number in turn.numbers:
            pod = turn.pods.get(number)
            if pod is None:
                self._create(turn, number)
            elif phase(pod) in ENDED and not is_ending(pod):
                self._delete(turn, number)
            elif self._is_healthy(turn, pod) or not turn.is_ordered:
                continue
            if turn.is_ordered:
                return False
        return True

    def _replace_one(self, turn: _Turn) -> None:
        """Delete the highest old pod; the next one goes when its successor is healthy."""
        for number in reversed([n for n in turn.numbers if n >= turn.partition]):
            pod = turn.pods.get(number)
            if pod is not None and not turn.is_new(pod) and not is_ending(pod):
                self._delete(turn, number)
                return
            if not self._is_healthy(turn, pod):
                return

    def _create(self, turn: _Turn, number: int) -> None:
        owner = turn.owner
        name = f"{owner['metadata']['name']}-{number}"
        revision = str(turn.newest["metadata"]["name"])
        if turn.rolls and number < turn.partition:
            revision = turn.current
        pod = from_template(owner, histories.template_at(self._store, owner, revision), name=name)
        labels = pod["metadata"].setdefault("labels", {})
        labels |= {POD_NAME_LABEL: name, INDEX_LABEL: str(number)}
        labels[histories.HASH_LABEL] = revision.removeprefix(f"{owner['metadata']['name']}-")
        spec = pod["spec"]
        spec["hostname"], spec["subdomain"] = name, owner["spec"].get("serviceName") or ""
        if not spec["subdomain"]:
            del spec["subdomain"]
        spec["volumes"] = [*self._claimed_volumes(owner, name), *_other_volumes(owner, spec.get("volumes") or ())]
        self._store.create(POD, pod)
        self._events.normal(
            owner, "SuccessfulCreate", f"create Pod {name} in StatefulSet {owner['metadata']['name']} successful"
        )

    def _claimed_volumes(self, owner: Object, pod: str) -> list[Object]:
        """Make the pod's claims where they are missing, and return the volumes that use them."""
        volumes, metadata = [], owner["metadata"]
        for template in owner["spec"].get("volumeClaimTemplates") or ():
            volume = template["metadata"]["name"]
            name = f"{volume}-{pod}"
            if self._store.find(PERSISTENT_VOLUME_CLAIM, metadata["namespace"], name) is None:
                claim = {k: copied(v) for k, v in template.items() if k not in {"status", "apiVersion", "kind"}}
                labels = {
                    **(claim["metadata"].get("labels") or {}),
                    **(owner["spec"]["selector"].get("matchLabels") or {}),
                }
                claim["metadata"] |= {"name": name, "namespace": metadata["namespace"], "labels": labels}
                if owner["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete":
                    claim["metadata"]["ownerReferences"] = [reference_to(owner)]
                self._store.create(PERSISTENT_VOLUME_CLAIM, claim)
            volumes.append({"name": volume, "persistentVolumeClaim": {"claimName": name}})
        return volumes

    def _delete(self, turn: _Turn, number: int) -> None:
        metadata, name = turn.pods[number]["metadata"], turn.owner["metadata"]["name"]
        self._store.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        self._events.normal(
            turn.owner, "SuccessfulDelete", f"delete Pod {metadata['name']} in StatefulSet {name} successful"
        )

    def _report(self, turn: _Turn) -> None:
        owner, pods = turn.owner, [pod for pod in turn.pods.values() if phase(pod) not in ENDED]
        alive = [pod for pod in pods if not is_ending(pod)]
        new, ready = [pod for pod in alive if turn.is_new(pod)], [pod for pod in alive if is_ready(pod)]
        newest, current = str(turn.newest["metadata"]["name"]), turn.current
        is_done = len(new) == len(pods) == len(turn.numbers) and len(ready) == len(new)
        if turn.rolls and is_done:
            current = newest
        wanted = {
            "availableReplicas": sum(self._is_healthy(turn, pod) for pod in alive),
            "collisionCount": 0,
            "currentReplicas": len(new) if current == newest else len(alive) - len(new),
            "currentRevision": current,
            "observedGeneration": owner["metadata"].get("generation", 1),
            "readyReplicas": len(ready),
            "replicas": len(pods),
            "updateRevision": newest,
            "updatedReplicas": len(new),
        }
        if wanted != owner.get("status"):
            metadata = owner["metadata"]
            self._store.modify_status(
                STATEFUL_SET, metadata["namespace"], metadata["name"], lambda status: status.update(wanted)
            )


def _other_volumes(owner: Object, volumes: Sequence[Object]) -> list[Object]:
    """Return the template's volumes that no claim of the set's own takes the place of."""
    names = {template["metadata"]["name"] for template in owner["spec"].get("volumeClaimTemplates") or ()}
    return [volume for volume in volumes if volume["name"] not in names]
