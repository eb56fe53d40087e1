"""Showing a rollout while it is followed: to whom and how is for the caller; lines of text are the usual way."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

from vanadium_node.kube.pod_state import PodState
from vanadium_node.kube.rollout import Objects, newest_pods

Show: TypeAlias = Callable[[Objects], None]
"""Takes what is known of the workload, each time that it changes."""

Display: TypeAlias = Callable[[], AbstractContextManager[Show]]
"""Opens a display for one rollout and closes it when that is done, failed or cancelled."""


def lines(report: Callable[[str], None]) -> Display:
    """Return a display that reports a line when the counts change, and one for each new pod when its state does."""

    @contextmanager
    def display() -> Iterator[Show]:
        last, seen = "", dict[str, PodState]()

        def show(objects: Objects) -> None:
            nonlocal last
            for pod in newest_pods(objects):
                state = PodState.of(pod)
                if seen.get(state.name) != state:
                    seen[state.name] = state
                    report(f"  {state}")
            line = str(objects.progress)
            if line != last:
                last = line
                report(line)

        yield show

    return display
