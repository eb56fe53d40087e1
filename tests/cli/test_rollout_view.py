"""A rollout as it is drawn on a terminal: whole pictures at a fixed width."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from vanadium_node.cli.rollout_view import live_display, picture
from vanadium_node.kube.rollout import Objects


def pod(number: int, state: dict[str, Any], *, ready: bool = False, restarts: int = 0) -> dict[str, Any]:
    container = {"name": "cart", "ready": ready, "restartCount": restarts, "state": state}
    metadata = {"name": f"cart-{number}", "uid": f"p{number}", "ownerReferences": [{"uid": "r", "controller": True}]}
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "cart"}]},
        "status": {"containerStatuses": [container]},
    }


def rollout(*pods: dict[str, Any], available: int = 0) -> Objects:
    """A Deployment of three whose new replica set has these pods."""
    status = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": available}
    workload = {"metadata": {"name": "cart", "uid": "d", "generation": 1}, "spec": {"replicas": 3}, "status": status}
    replica_set = {"metadata": {"name": "cart-r", "uid": "r", "ownerReferences": [{"uid": "d", "controller": True}]}}
    return Objects(kind="Deployment", workload=workload, replica_sets=(replica_set,), pods=pods)


def drawn(objects: Objects, *, seconds: float = 7.4) -> list[str]:
    console = Console(file=StringIO(), width=80, force_terminal=False)
    with console.capture() as printed:
        console.print(picture(objects, seconds))
    return [line.rstrip() for line in printed.get().splitlines()]


UP: dict[str, Any] = {"running": {}}
STUCK = {"waiting": {"reason": "ImagePullBackOff"}}


def test_while_it_goes_on() -> None:
    """Those that are not ready come first."""
    objects = rollout(pod(1, UP, ready=True), pod(2, STUCK), pod(3, UP, restarts=2), available=1)
    assert drawn(objects)[0].endswith(" Deployment cart: 3 of 3 updated, 1 available")
    assert drawn(objects)[1:] == [
        "  cart-2  ImagePullBackOff  0/1 ready",
        "  cart-3  Pending           0/1 ready  2 restarts",
        "  cart-1  Pending           1/1 ready",
    ]


def test_when_it_is_done() -> None:
    """The last picture, which stays."""
    objects = rollout(pod(1, UP, ready=True), available=3)
    assert drawn(objects)[0] == "✓ Deployment cart: 3 of 3 updated, 3 available  done in 7 s"


def test_many_pods_do_not_fill_the_screen() -> None:
    """Twenty are drawn, the others counted."""
    lines = drawn(rollout(*(pod(n, UP) for n in range(23))))
    assert len(lines) == 22
    assert lines[-1] == "   and 3 more"


def test_the_display_ends_with_its_block() -> None:
    """The cursor is shown again and the picture stays, after Ctrl-C too."""
    screen = StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None)

    def interrupted() -> None:
        with live_display(console, clock=lambda: 0.0)() as show:
            show(rollout(pod(1, STUCK)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "ImagePullBackOff" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[?25h")
