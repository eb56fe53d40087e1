"""A rollout on a terminal: one line about the workload and one for each of its new pods, drawn anew while it is followed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from vanadium_node.kube.pod_state import PodState
from vanadium_node.kube.rollout import Objects, newest_pods

if TYPE_CHECKING:
    from rich.console import Console

    from vanadium_node.kube.display import Display, Show

REFRESHES_PER_SECOND: Final = 8
MAX_PODS: Final = 20
"""Pods that are drawn; of more, those that are not ready come first."""

GOOD: Final = frozenset({"Running", "Succeeded", "Completed"})
ON_THE_WAY: Final = frozenset({"Pending", "ContainerCreating", "Terminating", "PodInitializing"})


def live_display(console: Console, clock: Callable[[], float] = time.monotonic) -> Display:
    """Return a display that draws on a terminal, and leaves its last picture there."""

    @contextmanager
    def display() -> Iterator[Show]:
        started = clock()
        with Live(console=console, refresh_per_second=REFRESHES_PER_SECOND) as live:

            def show(objects: Objects) -> None:
                live.update(picture(objects, clock() - started), refresh=True)

            yield show

    return display


def picture(objects: Objects, seconds: float) -> Table:
    """Return what is drawn: the counts with a spinner while there is something to wait for, and the pods."""
    progress = objects.progress
    counts = Text(
        f"{progress.kind} {progress.name}: {progress.updated} of {progress.desired} updated, {progress.available} available"
    )
    if progress.is_complete:
        counts.append(f"  done in {seconds:.0f} s", style="green")
    head = Text("✓ ", style="green") + counts if progress.is_complete else Spinner("dots", counts)
    whole = Table.grid()
    whole.add_row(head)
    states = sorted(map(PodState.of, newest_pods(objects)), key=lambda s: (s.ready == s.containers, s.name))
    pods = Table.grid(padding=(0, 2))
    for state in states[:MAX_PODS]:
        ready = f"{state.ready}/{state.containers} ready"
        restarts = f"{state.restarts} restarts" if state.restarts else ""
        pods.add_row("", state.name, Text(state.word, style=_style(state)), ready, restarts)
    whole.add_row(pods)
    if len(states) > MAX_PODS:
        whole.add_row(f"   and {len(states) - MAX_PODS} more")
    return whole


def _style(state: PodState) -> str:
    if state.word in GOOD:
        return "green" if state.ready == state.containers else "yellow"
    return "yellow" if state.word in ON_THE_WAY or state.word.startswith("Init:0") else "red"
