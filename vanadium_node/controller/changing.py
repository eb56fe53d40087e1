"""Changing workloads that others change too: replacing, bringing back, and deleting only what the same command wrote."""

from typing import Final

from vanadium_node.controller.marks import is_marked
from vanadium_node.controller.objects import replacement
from vanadium_node.errors import InputError, KubernetesError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.progress import is_ready
from vanadium_node.kube.resources import POD, Manifest, Resource, name_of, owner_uid, uid_of
from vanadium_node.kube.rollout import REVISION_HASH, label_selector

CONFLICT: Final = 409
ATTEMPTS: Final = 5
"""How often a replacement is tried: the controllers write a workload's status all the time while it is rolled out."""


async def replace_workload(
    client: KubeClient, resource: Resource, namespace: str, live: Manifest, wanted: Manifest
) -> Manifest:
    """Write `wanted` over the workload that was `live`, and return it as stored. Changes of its status alone do not matter.

    Raises:
        InputError: somebody else changed its specification meanwhile.
        KubernetesError: the cluster refused.
    """
    name, generation = name_of(wanted), live["metadata"].get("generation")
    for _ in range(ATTEMPTS):
        try:
            return await client.replace(resource, namespace, replacement(live, wanted))
        except KubernetesError as error:
            if error.status != CONFLICT:
                raise
        live = await client.get(resource, namespace, name)
        if live["metadata"].get("generation") != generation:
            break
    raise InputError(
        f"{resource.title(namespace, name)} was changed by somebody else at the same time",
        hint="look at it, and run the command again",
    )


async def roll_back(client: KubeClient, resource: Resource, namespace: str, previous: Manifest, operation: str) -> bool:
    """Bring back the previous specification if the command `operation` replaced it; tell whether there was need.

    Raises:
        KubernetesError: the cluster refused.
    """
    live = await client.find(resource, namespace, name_of(previous))
    if live is None or not is_marked(live, operation):
        return False
    await replace_workload(client, resource, namespace, live, previous)
    if resource.kind == "StatefulSet":
        await _remove_stuck_pods(client, namespace, live)
    return True


async def _remove_stuck_pods(client: KubeClient, namespace: str, failed: Manifest) -> None:
    """Delete the pods of the failed revision that never got ready: a stateful set waits for them before it goes back."""
    revision = (failed.get("status") or {}).get("updateRevision")
    pods = await client.list(POD, namespace, labels=label_selector(failed["spec"]["selector"]))
    for pod in pods.items:
        is_failed = (pod["metadata"].get("labels") or {}).get(REVISION_HASH) == revision
        if owner_uid(pod) == uid_of(failed) and is_failed and not is_ready(pod):
            await client.delete(POD, namespace, name_of(pod), uid=uid_of(pod))


async def delete_own(client: KubeClient, resource: Resource, namespace: str, name: str, operation: str) -> None:
    """Delete the object if the command `operation` made it.

    Raises:
        KubernetesError: the cluster refused.
    """
    live = await client.find(resource, namespace, name)
    if live is not None and is_marked(live, operation):
        await client.delete(resource, namespace, name, uid=uid_of(live))
