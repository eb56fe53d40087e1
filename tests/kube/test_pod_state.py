"""What a pod is doing, in the words of kubectl."""

from typing import Any

import pytest

from vanadium_node.kube.pod_state import PodState

State = dict[str, Any]


def container(name: str, state: State, *, restarts: int = 0, ready: bool = False) -> dict[str, Any]:
    return {"name": name, "restartCount": restarts, "ready": ready, "state": state}


def pod(status: dict[str, Any], *, leaving: bool = False) -> PodState:
    """A pod with an init container, a native sidecar and a container of its own."""
    metadata = {"name": "cart-1", **({"deletionTimestamp": "2026-11-23T17:00:00Z"} if leaving else {})}
    initial = [{"name": "pod-agent", "restartPolicy": "Always"}, {"name": "setup"}]
    return PodState.of(
        {"metadata": metadata, "spec": {"initContainers": initial, "containers": [{"name": "cart"}]}, "status": status}
    )


RUNNING: State = {"running": {}}
DONE = container("setup", {"terminated": {"exitCode": 0, "reason": "Completed"}})
SIDECAR = container("pod-agent", RUNNING, ready=True)
PULLING = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
CREATING = {"waiting": {"reason": "PodInitializing"}}


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({}, "pod cart-1: Pending, 0/2 ready"),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
            },
            "pod cart-1: Unschedulable, 0/2 ready",
        ),
        (
            {
                "initContainerStatuses": [SIDECAR, container("setup", RUNNING)],
                "containerStatuses": [container("cart", CREATING)],
            },
            "pod cart-1: Init:0/1, 1/2 ready",
        ),
        (
            {"initContainerStatuses": [SIDECAR, container("setup", {"terminated": {"exitCode": 3}}, restarts=2)]},
            "pod cart-1: Init:ExitCode:3, 1/2 ready, 2 restarts",
        ),
        (
            {"initContainerStatuses": [container("pod-agent", PULLING), container("setup", CREATING)]},
            "pod cart-1: Init:ImagePullBackOff, 0/2 ready",
        ),
        (
            {"initContainerStatuses": [SIDECAR, DONE], "containerStatuses": [container("cart", PULLING)]},
            "pod cart-1: ImagePullBackOff, 1/2 ready",
        ),
        (
            {
                "phase": "Running",
                "initContainerStatuses": [SIDECAR, DONE],
                "containerStatuses": [container("cart", RUNNING, restarts=1, ready=True)],
            },
            "pod cart-1: Running, 2/2 ready, 1 restart",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [container("cart", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}})],
            },
            "pod cart-1: OOMKilled, 0/2 ready",
        ),
        ({"phase": "Failed", "reason": "Evicted"}, "pod cart-1: Evicted, 0/2 ready"),
    ],
)
def test_states(status: dict[str, Any], line: str) -> None:
    """The most telling reason there is; the pod agent beside the application counts as a container."""
    assert str(pod(status)) == line


def test_a_pod_that_goes() -> None:
    """Whatever its containers still do."""
    assert pod({"phase": "Running"}, leaving=True).word == "Terminating"
