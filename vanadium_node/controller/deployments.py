"""Changing Deployments that others change too: replacing, bringing back, and deleting only what the same command wrote."""

from typing import Final

from vanadium_node.controller.objects import is_marked, replacement
from vanadium_node.errors import InputError, KubernetesError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import DEPLOYMENT, Manifest, Resource, name_of, uid_of

CONFLICT: Final = 409
ATTEMPTS: Final = 5
"""How often a replacement is tried: the controllers write a Deployment's status all the time while it is rolled out."""


async def replace_deployment(client: KubeClient, namespace: str, live: Manifest, wanted: Manifest) -> Manifest:
    """Write `wanted` over the Deployment that was `live`, and return it as stored. Changes of its status alone do not matter.

    Raises:
        InputError: somebody else changed its specification meanwhile.
        KubernetesError: the cluster refused.
    """
    name, generation = name_of(wanted), live["metadata"].get("generation")
    for _ in range(ATTEMPTS):
        try:
            return await client.replace(DEPLOYMENT, namespace, replacement(live, wanted))
        except KubernetesError as error:
            if error.status != CONFLICT:
                raise
        live = await client.get(DEPLOYMENT, namespace, name)
        if live["metadata"].get("generation") != generation:
            break
    raise InputError(
        f"Deployment {namespace}/{name} was changed by somebody else at the same time",
        hint="look at it, and run the command again",
    )


async def roll_back(client: KubeClient, namespace: str, previous: Manifest, operation: str) -> bool:
    """Bring back the previous specification if the command `operation` replaced it; tell whether there was need.

    Raises:
        KubernetesError: the cluster refused.
    """
    live = await client.find(DEPLOYMENT, namespace, name_of(previous))
    if live is None or not is_marked(live, operation):
        return False
    await replace_deployment(client, namespace, live, previous)
    return True


async def delete_own(client: KubeClient, resource: Resource, namespace: str, name: str, operation: str) -> None:
    """Delete the object if the command `operation` made it.

    Raises:
        KubernetesError: the cluster refused.
    """
    live = await client.find(resource, namespace, name)
    if live is not None and is_marked(live, operation):
        await client.delete(resource, namespace, name, uid=uid_of(live))
