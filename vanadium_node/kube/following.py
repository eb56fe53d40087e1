"""Following a workload's rollout on a cluster until it is done, fails, or makes no progress for too long."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import trio

from vanadium_node.errors import KubernetesError, clip
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.display import Display, Show
from vanadium_node.kube.resources import EVENT, POD, REPLICA_SET, Manifest, Resource, name_of, uid_of
from vanadium_node.kube.rollout import NEXT_STEPS, Objects, Problem, label_selector, problems, unready
from vanadium_node.kube.watch import Scope, Snapshot, following
from vanadium_node.kube.workloads import kind_of, title

LOG_LINES: Final = 5
ROLLOUT_FAILED: Final = "RolloutFailed"
OTHERS: Final[Mapping[Resource, str]] = {POD: "pods", REPLICA_SET: "replica_sets", EVENT: "events"}
"""A collection that is followed beside the workload → where it goes in `Objects`."""


@dataclass(slots=True)
class _View:
    """What is known of the workload and its objects, and since when each problem lasts (trio's clock)."""

    objects: Objects
    since: dict[object, float] = field(default_factory=dict)

    def take(self, snapshot: Snapshot) -> None:
        """Bring the view up to date.

        Raises:
            KubernetesError: the workload is gone.
        """
        resource, items = snapshot.scope.resource, snapshot.items
        if resource.kind == self.objects.kind:
            self.objects = replace(self.objects, workload=self._found(items))
        else:
            changes: dict[str, Any] = {OTHERS[resource]: items}
            self.objects = replace(self.objects, **changes)

    def _found(self, items: tuple[Manifest, ...]) -> Manifest:
        before = self.objects.workload
        found = next((item for item in items if uid_of(item) == uid_of(before)), None)
        if found is None:
            raise KubernetesError(
                f"{self.objects.kind} {name_of(before)} was deleted while its rollout was followed",
                reason=ROLLOUT_FAILED,
                hint="start it again",
            )
        return found

    def problems(self) -> tuple[Problem, ...]:
        """Return what stands in the way now, remembering since when."""
        current = problems(self.objects)
        now = trio.current_time()
        self.since = {problem.key: self.since.get(problem.key, now) for problem in current}
        return current

    def due(self, problem: Problem) -> float:
        """Return when the problem will have lasted too long."""
        return self.since[problem.key] + problem.obstacle.grace.total_seconds()


async def follow_rollout(
    client: KubeClient,
    namespace: str,
    workload: Manifest,
    *,
    timeout: timedelta,
    display: Display,
) -> None:
    """Wait until the workload, given as stored, is rolled out, and show it meanwhile.

    Raises:
        KubernetesError: with the reason `RolloutFailed` when it failed or made no progress for `timeout`; the sentence names
            the pod, the reason and what it last printed.
    """
    view = _View(objects=Objects(kind=str(workload["kind"]), workload=workload))
    async with following(client, _scopes(namespace, workload)) as changes:
        with display() as show:
            failure = await _observe(view, changes, timeout, show)
    if isinstance(failure, Problem):
        words = await _last_lines(client, namespace, failure)
        raise KubernetesError(
            f"the rollout of {title(workload)} failed: {failure}{words}",
            reason=ROLLOUT_FAILED,
            hint=NEXT_STEPS[failure.obstacle],
        )
    if failure is not None:
        raise failure


def _scopes(namespace: str, workload: Manifest) -> list[Scope]:
    """Return what to follow: the workload itself, and what belongs to it."""
    kind, group = kind_of(workload), str(workload["apiVersion"])
    scopes = [
        Scope(
            resource=replace(kind.resource, api_version=group),
            namespace=namespace,
            fields=f"metadata.name={name_of(workload)}",
        )
    ]
    if kind.name in {"Pod", "CronJob"}:
        return scopes
    labels = label_selector(workload["spec"].get("selector") or {})
    scopes.append(Scope(resource=POD, namespace=namespace, labels=labels))
    if kind.name == "Deployment":
        scopes.append(Scope(resource=REPLICA_SET, namespace=namespace, labels=labels))
    else:
        scopes.append(Scope(resource=EVENT, namespace=namespace, fields=f"involvedObject.uid={uid_of(workload)}"))
    return scopes


async def _observe(
    view: _View,
    changes: trio.MemoryReceiveChannel[Snapshot | KubernetesError],
    timeout: timedelta,
    show: Show,
) -> Problem | KubernetesError | None:
    """Return what made the rollout fail, None when it is complete."""
    progress = view.objects.progress
    best = progress.marks
    deadline = trio.current_time() + timeout.total_seconds()
    while True:
        show(view.objects)
        if progress.is_complete:
            return None
        standing = view.problems()
        now = trio.current_time()
        over = next((problem for problem in standing if view.due(problem) <= now), None)
        if over is not None:
            return over
        if now >= deadline:
            return _stalled(view, timeout)
        with trio.move_on_at(min([deadline, *map(view.due, standing)])):
            change = await changes.receive()
            if isinstance(change, KubernetesError):
                return change
            try:
                view.take(change)
            except KubernetesError as gone:
                return gone
        progress = view.objects.progress
        if any(new > old for new, old in zip(progress.marks, best, strict=True)):
            best = tuple(map(max, progress.marks, best))
            deadline = trio.current_time() + timeout.total_seconds()


def _stalled(view: _View, timeout: timedelta) -> Problem | KubernetesError:
    standing = view.problems()
    if standing:
        return standing[0]
    why = unready(view.objects)
    return KubernetesError(
        f"the rollout of {view.objects.kind} {name_of(view.objects.workload)} made no progress for {timeout.total_seconds():g} s"
        + (f": {why}" if why else ""),
        reason=ROLLOUT_FAILED,
        hint="look at its pods with 'kubectl describe', or give it more time with --wait-timeout",
    )


async def _last_lines(client: KubeClient, namespace: str, problem: Problem) -> str:
    """Return what the container printed last, "" where there is nothing: the log helps, its absence must not hurt."""
    if not problem.has_log:
        return ""
    try:
        text = await client.logs(
            namespace, problem.pod, problem.container, tail_lines=LOG_LINES, previous=problem.is_restarted
        )
    except KubernetesError:
        return ""
    lines = [clip(line) for line in text.splitlines() if line.strip()]
    return "; its last words: " + " | ".join(lines) if lines else ""
