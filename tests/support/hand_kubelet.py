"""The node's part, played by hand on a control plane without nodes: pods become ready, or fail as their image says."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from vanadium_node.errors import KubernetesError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import POD, Manifest, name_of
from vanadium_node.kube.watch import Scope, following

BROKEN_TAG = ":broken"
SLOW_TAG = ":slow"


def status_of(pod: Manifest) -> Mapping[str, Any] | None:
    """Return what becomes of a pod: ready, stuck with an image that cannot exist, or nothing for a while."""
    images = [container["image"] for container in pod["spec"]["containers"]]
    if any(image.endswith(SLOW_TAG) for image in images):
        return None
    if any(image.endswith(BROKEN_TAG) for image in images):
        state = {"waiting": {"reason": "InvalidImageName", "message": "no such image"}}
        container = {"name": pod["spec"]["containers"][0]["name"], "image": "i", "imageID": "", "ready": False}
        return {"phase": "Pending", "containerStatuses": [container | {"restartCount": 0, "state": state}]}
    conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready", "ContainersReady")]
    return {"phase": "Running", "conditions": conditions}


async def _run(client: KubeClient) -> None:
    async with following(client, [Scope(resource=POD, namespace=client.namespace)]) as changes:
        async for change in changes:
            assert not isinstance(change, KubernetesError), change
            for pod in change.items:
                status = status_of(pod)
                if pod["metadata"].get("deletionTimestamp"):
                    path = POD.path(client.namespace, name_of(pod))
                    await _bear(client, "DELETE", path, {"gracePeriodSeconds": 0})
                elif status is not None and not (pod.get("status") or {}).get("conditions"):
                    path = POD.path(client.namespace, name_of(pod), "status")
                    await _bear(client, "PATCH", path, {"status": status})


async def _bear(client: KubeClient, method: str, path: str, body: object) -> None:
    """Send a request; pods that are gone or changed meanwhile are no matter."""
    try:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        await client.request(method, path, body=body, content_type=kind, doing="play the kubelet")
    except KubernetesError as error:
        if error.status not in {404, 409}:
            raise


@asynccontextmanager
async def hand_kubelet(client: KubeClient) -> AsyncIterator[None]:
    """Play the kubelet of the client's namespace while the block runs."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run, client)
        yield
        nursery.cancel_scope.cancel()
