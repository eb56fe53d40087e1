"""The deployment controller: from one template to the next, replica set by replica set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from vanadium_node.local.api.kinds import DEPLOYMENT, POD, REPLICA_SET
from vanadium_node.local.api.objects import ApiError, Object, ObjectStore
from vanadium_node.local.machine import revisions
from vanadium_node.local.machine.controllers import Controller, Key, itself, owner_of
from vanadium_node.local.machine.deployment_status import Reporter, is_complete, is_observed
from vanadium_node.local.machine.owned import claimed, is_controlled_by
from vanadium_node.local.machine.pods import ENDED, phase
from vanadium_node.local.machine.recorder import Recorder
from vanadium_node.local.machine.rolling import Bounds, Share, grown, scaled, shrunk

REVISION_HISTORY_LIMIT: Final = 10
MAX_COLLISIONS: Final = 10


class Deployments:
    """Rolls out deployments."""

    def __init__(self, store: ObjectStore, recorder: Recorder) -> None:
        self._store = store
        self._events = recorder
        self._reporter = Reporter(store, recorder)

    def controller(self) -> Controller:
        """Return the controller to run."""
        watches = {DEPLOYMENT: itself, REPLICA_SET: self._concerned, POD: self._concerned_by_pod}
        return Controller(name="deployment", reconcile=self.reconcile, watches=watches)

    def _concerned(self, rs: Object) -> Iterable[Key]:
        if any(reference.get("controller") for reference in rs["metadata"].get("ownerReferences") or ()):
            yield from owner_of("Deployment")(rs)
        else:
            for deployment in self._store.list(DEPLOYMENT, rs["metadata"]["namespace"]):
                yield from itself(deployment)

    def _concerned_by_pod(self, pod: Object) -> Iterable[Key]:
        """Say whose turn it is when a pod has changed: `Recreate` waits until the last one is gone."""
        for namespace, name in owner_of("ReplicaSet")(pod):
            rs = self._store.find(REPLICA_SET, namespace, name)
            if rs is not None:
                yield from owner_of("Deployment")(rs)

    def reconcile(self, namespace: str, name: str) -> float | None:
        """Take the next step of a deployment's rollout, and report how far it is."""
        deployment = self._store.find(DEPLOYMENT, namespace, name)
        if deployment is None:
            return None
        sets = self._sets(deployment)
        if "deletionTimestamp" in deployment["metadata"]:
            return self._reporter.report(deployment, sets, revisions.current(deployment, sets))
        if not deployment["spec"].get("paused"):
            deployment = self._numbered(deployment, sets)
            if revisions.current(deployment, sets) is None and not self._may_make_new(deployment, sets):
                return self._reporter.report(deployment, sets, None)
        self._step(deployment)
        deployment = self._store.get(DEPLOYMENT, namespace, name)
        sets = self._sets(deployment)
        again = self._reporter.report(deployment, sets, revisions.current(deployment, sets))
        self._clean_up(self._store.get(DEPLOYMENT, namespace, name))
        return again

    def _sets(self, deployment: Object) -> tuple[Object, ...]:
        return claimed(self._store, deployment, REPLICA_SET)

    def _step(self, deployment: Object) -> None:
        sets = self._sets(deployment)
        new = revisions.current(deployment, sets)
        old = _oldest_first(rs for rs in sets if rs is not new)
        if deployment["spec"].get("paused") or self._was_scaled(deployment, sets):
            self._scale_in_proportion(deployment, new, old)
        elif new is not None and (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            self._recreate(deployment, new, old)
        elif new is not None:
            self._roll(deployment, new, old)

    def _may_make_new(self, deployment: Object, sets: Sequence[Object]) -> bool:
        """Make the replica set of a template that has none, unless old pods must be gone first."""
        bounds, wanted = Bounds.from_deployment(deployment), _wanted(deployment)
        if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            for rs in sets:
                self._scale(deployment, rs, 0)
            if self._has_pods(sets):
                return False
        shares = [_share_at_most(rs) for rs in sets]
        replicas = grown(wanted, bounds, Share(replicas=0, available=0), shares)
        number = max(map(revisions.revision, sets), default=0) + 1
        try:
            rs = revisions.made(self._store, deployment, replicas, number, wanted + bounds.surge)
        except ApiError as error:
            if not self._is_collision(deployment, error):
                self._reporter.refused(deployment, error)
                raise
            return self._may_make_new(self._with_collision(deployment), sets)
        self._reporter.made_new(deployment, rs)
        if replicas:
            self._say_scaled(deployment, rs, 0, replicas)
        self._number(deployment, number)
        return True

    def _is_collision(self, deployment: Object, error: ApiError) -> bool:
        """Tell whether the new replica set's name is taken by one of another deployment."""
        collisions = int((deployment.get("status") or {}).get("collisionCount") or 0)
        return error.reason == "AlreadyExists" and collisions < MAX_COLLISIONS

    def _with_collision(self, deployment: Object) -> Object:
        def edit(status: Object) -> None:
            status["collisionCount"] = int(status.get("collisionCount") or 0) + 1

        metadata = deployment["metadata"]
        return self._store.modify_status(DEPLOYMENT, metadata["namespace"], metadata["name"], edit)

    def _numbered(self, deployment: Object, sets: Sequence[Object]) -> Object:
        """Give the current replica set the highest revision, and the deployment the same; return it."""
        new = revisions.current(deployment, sets)
        if new is None:
            return deployment
        number = max((revisions.revision(rs) for rs in sets if rs is not new), default=0) + 1
        number = max(number, revisions.revision(new))
        wanted = revisions.renumbered(new, number) | revisions.inherited(deployment)
        if wanted != (new["metadata"].get("annotations") or {}):
            self._annotate(new, wanted)
        if revisions.revision(deployment) != number:
            self._reporter.found_new(deployment, new)
        return self._number(deployment, number)

    def _number(self, deployment: Object, number: int) -> Object:
        if revisions.revision(deployment) == number:
            return deployment

        def edit(obj: Object) -> None:
            annotations = obj["metadata"].get("annotations") or {}
            obj["metadata"]["annotations"] = {**annotations, revisions.REVISION: str(number)}

        metadata = deployment["metadata"]
        return self._store.modify(DEPLOYMENT, metadata["namespace"], metadata["name"], edit)

    def _was_scaled(self, deployment: Object, sets: Sequence[Object]) -> bool:
        """Tell whether the number of pods wanted has changed since it was last spread over the replica sets."""
        wanted = str(_wanted(deployment))
        noted = (revisions.annotation(rs, revisions.DESIRED) for rs in sets if _replicas(rs) > 0)
        return any(text and text != wanted for text in noted)

    def _scale_in_proportion(self, deployment: Object, new: Object | None, old: Sequence[Object]) -> None:
        wanted, bounds = _wanted(deployment), Bounds.from_deployment(deployment)
        everyone = [*old, *([new] if new is not None else [])]
        active = [rs for rs in everyone if _replicas(rs) > 0]
        if len(active) <= 1:
            only = active[0] if active else new
            if only is not None:
                self._scale(deployment, only, wanted)
            return
        if new is not None and _share(new).available >= wanted and _replicas(new) == wanted:
            for rs in old:
                self._scale(deployment, rs, 0)
            return
        is_recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
        total = wanted + (0 if is_recreate else bounds.surge) if wanted else 0
        for rs, replicas in zip(active, scaled(total, [_replicas(rs) for rs in active]), strict=True):
            self._scale(deployment, rs, replicas)

    def _recreate(self, deployment: Object, new: Object, old: Sequence[Object]) -> None:
        for rs in old:
            self._scale(deployment, rs, 0)
        if not self._has_pods(old):
            self._scale(deployment, new, _wanted(deployment))

    def _has_pods(self, sets: Sequence[Object]) -> bool:
        """Tell whether pods of these replica sets may still run, those that are ending included."""
        pods = self._store.list(POD, sets[0]["metadata"]["namespace"]) if sets else ()
        return any(is_controlled_by(pod, rs) and phase(pod) not in ENDED for pod in pods for rs in sets)

    def _roll(self, deployment: Object, new: Object, old: Sequence[Object]) -> None:
        wanted, bounds = _wanted(deployment), Bounds.from_deployment(deployment)
        replicas = grown(wanted, bounds, _share(new), [_share_at_most(rs) for rs in old])
        if replicas != _replicas(new):
            self._scale(deployment, new, replicas)
            return
        self._note_counts(deployment, new)
        kept = shrunk(wanted, bounds, _share(new), [_share(rs) for rs in old])
        for rs, count in zip(old, kept, strict=True):
            self._scale(deployment, rs, count)

    def _scale(self, deployment: Object, rs: Object, replicas: int) -> None:
        before = _replicas(rs)
        counts = revisions.counts(deployment, _wanted(deployment) + Bounds.from_deployment(deployment).surge)

        def edit(obj: Object) -> None:
            obj["spec"]["replicas"] = replicas
            obj["metadata"]["annotations"] = {**(obj["metadata"].get("annotations") or {}), **counts}

        self._store.modify(REPLICA_SET, rs["metadata"]["namespace"], rs["metadata"]["name"], edit)
        if replicas != before:
            self._say_scaled(deployment, rs, before, replicas)

    def _note_counts(self, deployment: Object, rs: Object) -> None:
        self._scale(deployment, rs, _replicas(rs))

    def _say_scaled(self, deployment: Object, rs: Object, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        text = f"Scaled {way} replica set {rs['metadata']['name']} from {before} to {after}"
        self._events.normal(deployment, "ScalingReplicaSet", text)

    def _annotate(self, rs: Object, annotations: Object) -> None:
        def edit(obj: Object) -> None:
            obj["metadata"]["annotations"] = annotations

        self._store.modify(REPLICA_SET, rs["metadata"]["namespace"], rs["metadata"]["name"], edit)

    def _clean_up(self, deployment: Object) -> None:
        """Delete the oldest of the replica sets that are kept for going back, when the rollout is done."""
        sets = self._sets(deployment)
        new = revisions.current(deployment, sets)
        limit = deployment["spec"].get("revisionHistoryLimit", REVISION_HISTORY_LIMIT)
        if deployment["spec"].get("paused") or not (is_observed(deployment) and is_complete(deployment)):
            return
        idle = [
            rs
            for rs in sets
            if rs is not new
            and _replicas(rs) == 0
            and not (rs.get("status") or {}).get("replicas")
            and "deletionTimestamp" not in rs["metadata"]
        ]
        for rs in sorted(idle, key=revisions.revision)[: max(0, len(idle) - int(limit))]:
            self._store.delete(REPLICA_SET, rs["metadata"]["namespace"], rs["metadata"]["name"])


def _wanted(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 1))


def _replicas(rs: Object) -> int:
    return int(rs["spec"].get("replicas", 1))


def _share(rs: Object) -> Share:
    available = int((rs.get("status") or {}).get("availableReplicas") or 0)
    return Share(replicas=_replicas(rs), available=min(available, _replicas(rs)))


def _share_at_most(rs: Object) -> Share:
    """Return a replica set's part with pods that are still to go: they take room until they have been asked to end."""
    there = int((rs.get("status") or {}).get("replicas") or 0)
    return Share(replicas=max(_replicas(rs), there), available=_share(rs).available)


def _oldest_first(sets: Iterable[Object]) -> tuple[Object, ...]:
    return tuple(sorted(sets, key=lambda rs: (rs["metadata"]["creationTimestamp"], revisions.revision(rs))))
