"""Following a rollout: on a real API server, with the node's part played by hand, and its end in time."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import trio

from vanadium_node.errors import KubernetesError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.display import lines
from vanadium_node.kube.following import ROLLOUT_FAILED, follow_rollout
from vanadium_node.kube.resources import DEPLOYMENT, POD, Manifest, name_of
from vanadium_node.kube.rollout import Objects, problems

pytestmark = pytest.mark.kubernetes
LONG = timedelta(seconds=120)
"""More than any of this takes on a machine that does other things too: it ends a test that hangs, and measures nothing."""

LONG_SECONDS = LONG.total_seconds()
SILENT = lines(lambda _: None)


async def pods(client: KubeClient, count: int) -> tuple[Manifest, ...]:
    """Wait until the controllers have made so many pods."""
    with trio.fail_after(LONG_SECONDS):
        while True:
            found = (await client.list(POD, client.namespace)).items
            if len(found) >= count:
                return found
            await trio.sleep(0.05)


async def set_status(client: KubeClient, pod: Manifest, status: Mapping[str, Any]) -> None:
    """Play the kubelet."""
    await client.patch(POD, client.namespace, name_of(pod), {"status": status}, subresource="status")


READY = {
    "phase": "Running",
    "conditions": [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready", "ContainersReady")],
}


def waiting(reason: str, message: str, restarts: int = 0) -> dict[str, Any]:
    """The status of a pod whose container waits."""
    container = {
        "name": "fortuned",
        "image": "i",
        "imageID": "",
        "ready": False,
        "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": message}},
    }
    return {"phase": "Pending", "containerStatuses": [container]}


async def test_until_all_replicas_are_available(client: KubeClient, deployment: dict[str, Any]) -> None:
    """Each change of the counts is reported once, and the last line says that all are there."""
    said: list[str] = []
    deployment["spec"]["replicas"] = 2
    stored = await client.create(DEPLOYMENT, client.namespace, deployment)
    with trio.fail_after(LONG_SECONDS):
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                await follow_rollout(client, client.namespace, stored, timeout=LONG, display=lines(said.append))

            nursery.start_soon(follow)
            for pod in await pods(client, 2):
                await set_status(client, pod, READY)
    assert said[-1] == "Deployment fortuned: generation 1, desired 2, current 2, updated 2, available 2"
    assert len(said) == len(set(said))
    states = [line.partition(": ")[2] for line in said if line.startswith("  pod fortuned-")]
    assert states.count("Pending, 0/1 ready") == states.count("Running, 0/1 ready") == 2


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (waiting("InvalidImageName", "couldn't parse image"), "has an image that cannot exist"),
        (waiting("CrashLoopBackOff", "back-off", restarts=2), "ends again and again"),
    ],
)
async def test_failure_is_early_and_names_the_pod(
    client: KubeClient, deployment: dict[str, Any], status: dict[str, Any], says: str
) -> None:
    """What waiting does not cure fails at once: container, pod, reason and a next step."""
    stored = await client.create(DEPLOYMENT, client.namespace, deployment)
    [pod] = await pods(client, 1)
    await set_status(client, pod, status)
    with trio.fail_after(LONG_SECONDS), pytest.raises(KubernetesError) as caught:
        await follow_rollout(client, client.namespace, stored, timeout=LONG, display=SILENT)
    assert caught.value.reason == ROLLOUT_FAILED
    assert f"container 'fortuned' of pod {name_of(pod)} {says}" in str(caught.value)
    assert caught.value.hint


async def test_no_progress_for_too_long(client: KubeClient, deployment: dict[str, Any]) -> None:
    """The sentence says for how long, and why the pod is not ready."""
    stored = await client.create(DEPLOYMENT, client.namespace, deployment)
    await pods(client, 1)
    with pytest.raises(KubernetesError, match=r"made no progress for 5 s: pod fortuned-.* is Pending and not ready"):
        await follow_rollout(client, client.namespace, stored, timeout=timedelta(seconds=5), display=SILENT)


async def test_a_deployment_that_is_deleted_meanwhile(client: KubeClient, deployment: dict[str, Any]) -> None:
    """Nobody waits for what is gone."""
    stored = await client.create(DEPLOYMENT, client.namespace, deployment)
    await client.delete(DEPLOYMENT, client.namespace, "fortuned")
    with pytest.raises(KubernetesError, match="was deleted"):
        await follow_rollout(client, client.namespace, stored, timeout=LONG, display=SILENT)


async def test_quota(client: KubeClient, deployment: dict[str, Any]) -> None:
    """What the controllers may not create is a failure after a grace, which the timeout may cut short."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    path = f"/api/v1/namespaces/{client.namespace}/resourcequotas"
    await client.request("POST", path, body=quota, doing="create a quota")
    with trio.fail_after(LONG_SECONDS):  # the quota counts once its status is there
        seen = await client.request("GET", f"{path}/none", doing="read the quota")
        while not seen.get("status", {}).get("hard"):
            await trio.sleep(0.05)
            seen = await client.request("GET", f"{path}/none", doing="read the quota")
    stored = await client.create(DEPLOYMENT, client.namespace, deployment)
    with trio.fail_after(LONG_SECONDS):  # and the controllers have to run into it
        seen = await client.get(DEPLOYMENT, client.namespace, "fortuned")
        while not problems(Objects(kind="Deployment", workload=seen)):
            await trio.sleep(0.05)
            seen = await client.get(DEPLOYMENT, client.namespace, "fortuned")
    with pytest.raises(KubernetesError, match=r"may not be created .*exceeded quota"):
        await follow_rollout(client, client.namespace, stored, timeout=timedelta(seconds=3), display=SILENT)
