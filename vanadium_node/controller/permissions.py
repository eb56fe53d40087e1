"""What the controller may have to do on a cluster, and what of it the caller may: asked one by one (SelfSubjectAccessReview)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import Resource

REVIEW: Final = Resource(
    api_version="authorization.k8s.io/v1",
    kind="SelfSubjectAccessReview",
    plural="selfsubjectaccessreviews",
    namespaced=False,
)
AT_ONCE: Final = 16
"""Questions in flight: each is small, and there are some seventy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """To do something to a kind of object: `create` `secrets`, `get` `pods/log`, `list` `deployments` of the group `apps`."""

    verb: str
    group: str
    resource: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"


_CHANGED: Final = ("get", "list", "watch", "create", "update", "patch", "delete")
_RULES: Final[Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]]] = (
    ("apps", ("deployments", "statefulsets", "daemonsets"), _CHANGED),
    ("batch", ("jobs", "cronjobs"), _CHANGED),
    ("apps", ("replicasets",), ("list", "watch")),
    ("", ("pods",), ("get", "list", "watch", "create", "patch", "delete")),
    ("", ("pods/log",), ("get",)),
    ("", ("events",), ("list", "watch")),
    ("", ("secrets",), ("get", "list", "create", "delete")),
    ("", ("services",), ("get", "list", "watch", "create", "patch", "delete")),
)
"""The same as the Role in configs/kubernetes/controller."""

NEEDED: Final = tuple(
    Right(verb=verb, group=group, resource=resource)
    for group, resources, verbs in _RULES
    for resource in resources
    for verb in verbs
)


async def missing(client: KubeClient, namespace: str, rights: Iterable[Right] = NEEDED) -> tuple[Right, ...]:
    """Return which of the rights the caller does not have in a namespace.

    Raises:
        KubernetesError: the cluster does not answer questions about rights.
    """
    wanted = tuple(rights)
    allowed: dict[Right, bool] = {}
    limit = trio.CapacityLimiter(AT_ONCE)

    async def ask(right: Right) -> None:
        async with limit:
            allowed[right] = await _may(client, namespace, right)

    first, *others = wanted
    allowed[first] = await _may(client, namespace, first)  # whoever may not ask is told so once
    async with trio.open_nursery() as nursery:
        for right in others:
            nursery.start_soon(ask, right)
    return tuple(right for right in wanted if not allowed[right])


async def _may(client: KubeClient, namespace: str, right: Right) -> bool:
    resource, _, subresource = right.resource.partition("/")
    attributes = {"namespace": namespace, "verb": right.verb, "group": right.group, "resource": resource}
    if subresource:
        attributes["subresource"] = subresource
    question = {
        "apiVersion": REVIEW.api_version,
        "kind": REVIEW.kind,
        "spec": {"resourceAttributes": attributes},
    }
    answer = await client.create(REVIEW, None, question)
    return bool((answer.get("status") or {}).get("allowed"))


def in_words(rights: Iterable[Right]) -> str:
    """Return rights grouped by what they are to: `secrets (create, delete), pods (get)`."""
    grouped: dict[str, list[str]] = {}
    for right in rights:
        grouped.setdefault(right.resource, []).append(right.verb)
    return ", ".join(f"{resource} ({', '.join(verbs)})" for resource, verbs in grouped.items())
