"""Following a Deployment's rollout on a cluster until it is done, fails, or makes no progress for too long."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import trio

from vanadium_node.errors import KubernetesError, clip
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import DEPLOYMENT, POD, REPLICA_SET, Manifest, Resource, name_of, uid_of
from vanadium_node.kube.rollout import NEXT_STEPS, Problem, Progress, label_selector, problems, unready
from vanadium_node.kube.watch import Scope, Snapshot, following

LOG_LINES: Final = 5
ROLLOUT_FAILED: Final = "RolloutFailed"


@dataclass(slots=True)
class _View:
    """What is known of the Deployment, its replica sets and pods, and since when each problem lasts (trio's clock)."""

    uid: str
    deployment: Manifest
    replica_sets: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    since: dict[object, float] = field(default_factory=dict)

    def take(self, snapshot: Snapshot) -> None:
        """Bring the view up to date.

        Raises:
            KubernetesError: the Deployment is gone.
        """
        by_resource: dict[Resource, Callable[[tuple[Manifest, ...]], None]] = {
            DEPLOYMENT: self._take_deployment,
            REPLICA_SET: lambda items: setattr(self, "replica_sets", items),
            POD: lambda items: setattr(self, "pods", items),
        }
        by_resource[snapshot.scope.resource](snapshot.items)

    def _take_deployment(self, items: tuple[Manifest, ...]) -> None:
        found = next((item for item in items if uid_of(item) == self.uid), None)
        if found is None:
            raise KubernetesError(
                f"Deployment {name_of(self.deployment)} was deleted while its rollout was followed",
                reason=ROLLOUT_FAILED,
                hint="start it again",
            )
        self.deployment = found

    def problems(self) -> tuple[Problem, ...]:
        """Return what stands in the way now, remembering since when."""
        current = problems(self.deployment, self.replica_sets, self.pods)
        now = trio.current_time()
        self.since = {problem.key: self.since.get(problem.key, now) for problem in current}
        return current

    def due(self, problem: Problem) -> float:
        """Return when the problem will have lasted too long."""
        return self.since[problem.key] + problem.obstacle.grace.total_seconds()


async def follow_rollout(
    client: KubeClient,
    namespace: str,
    deployment: Manifest,
    *,
    timeout: timedelta,
    report: Callable[[str], None],
) -> None:
    """Wait until the Deployment, given as stored, is rolled out; `report` gets a line each time the counts change.

    Raises:
        KubernetesError: with the reason `RolloutFailed` when it failed or made no progress for `timeout`; the sentence names
            the pod, the reason and what it last printed.
    """
    name = name_of(deployment)
    labels = label_selector(deployment["spec"]["selector"])
    scopes = [
        Scope(resource=DEPLOYMENT, namespace=namespace, fields=f"metadata.name={name}"),
        Scope(resource=REPLICA_SET, namespace=namespace, labels=labels),
        Scope(resource=POD, namespace=namespace, labels=labels),
    ]
    view = _View(uid=uid_of(deployment), deployment=deployment)
    async with following(client, scopes) as changes:
        failure = await _observe(view, changes, timeout, report)
    if isinstance(failure, Problem):
        words = await _last_lines(client, namespace, failure)
        raise KubernetesError(
            f"the rollout of Deployment {name} failed: {failure}{words}",
            reason=ROLLOUT_FAILED,
            hint=NEXT_STEPS[failure.obstacle],
        )
    if failure is not None:
        raise failure


async def _observe(
    view: _View,
    changes: trio.MemoryReceiveChannel[Snapshot | KubernetesError],
    timeout: timedelta,
    report: Callable[[str], None],
) -> Problem | KubernetesError | None:
    """Return what made the rollout fail, None when it is complete."""
    progress = Progress.from_deployment(view.deployment)
    best = progress.marks
    last_line = ""
    deadline = trio.current_time() + timeout.total_seconds()
    while True:
        if str(progress) != last_line:
            last_line = str(progress)
            report(last_line)
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
        progress = Progress.from_deployment(view.deployment)
        if any(new > old for new, old in zip(progress.marks, best, strict=True)):
            best = tuple(map(max, progress.marks, best))
            deadline = trio.current_time() + timeout.total_seconds()


def _stalled(view: _View, timeout: timedelta) -> Problem | KubernetesError:
    standing = view.problems()
    if standing:
        return standing[0]
    why = unready(view.deployment, view.replica_sets, view.pods)
    return KubernetesError(
        f"the rollout of Deployment {name_of(view.deployment)} made no progress for {timeout.total_seconds():g} s"
        + (f": {why}" if why else ""),
        reason=ROLLOUT_FAILED,
        hint="look at its pods with 'kubectl describe', or give it more time with --wait-timeout",
    )


async def _last_lines(client: KubeClient, namespace: str, problem: Problem) -> str:
    """Return what the container printed last, "" where there is nothing: the log helps, its absence must not hurt."""
    if not problem.has_crashed:
        return ""
    try:
        text = await client.logs(namespace, problem.pod, problem.container, tail_lines=LOG_LINES, previous=True)
    except KubernetesError:
        return ""
    lines = [clip(line) for line in text.splitlines() if line.strip()]
    return "; its last words: " + " | ".join(lines) if lines else ""
