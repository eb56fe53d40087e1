"""Questions about the caller and its rights, which are answered and not kept. The one user may do everything."""

from __future__ import annotations

from typing import Any, Final

from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import Object

USER: Final = "vanadium-local"
"""The name of the one user that the kubeconfig of an embedded cluster stands for."""

_GROUPS: Final = ("system:masters", "system:authenticated")


def _review(group: str, kind: str, *, namespaced: bool = False) -> ResourceType:
    return ResourceType(group=group, version="v1", kind=kind, plural=f"{kind.lower()}s", namespaced=namespaced)


REVIEWS: Final[tuple[ResourceType, ...]] = (
    _review("authorization.k8s.io", "SelfSubjectAccessReview"),
    _review("authorization.k8s.io", "SubjectAccessReview"),
    _review("authorization.k8s.io", "LocalSubjectAccessReview", namespaced=True),
    _review("authorization.k8s.io", "SelfSubjectRulesReview"),
    _review("authentication.k8s.io", "SelfSubjectReview"),
    _review("authentication.k8s.io", "TokenReview"),
)
"""The questions that can be asked."""


def review_at(path: str) -> ResourceType | None:
    """Return the question that is asked by a POST to a path."""
    match path.strip("/").split("/"):
        case ["apis", group, "v1", plural] | ["apis", group, "v1", "namespaces", _, plural]:
            return next((r for r in REVIEWS if (r.group, r.plural) == (group, plural)), None)
    return None


def answered(review: ResourceType, question: Object) -> Object:
    """Return a question with its answer in the status."""
    return {
        "kind": review.kind,
        "apiVersion": review.api_version,
        "metadata": {"creationTimestamp": None},
        **({"spec": question["spec"]} if "spec" in question else {}),
        "status": _status(review.kind),
    }


def _status(kind: str) -> dict[str, Any]:
    user = {"username": USER, "groups": list(_GROUPS)}
    match kind:
        case "SelfSubjectRulesReview":
            everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
            return {"resourceRules": [everything], "nonResourceRules": [paths], "incomplete": False}
        case "SelfSubjectReview":
            return {"userInfo": user}
        case "TokenReview":
            return {"authenticated": False, "error": "the embedded cluster does not review tokens"}
        case _:
            return {"allowed": True, "reason": "the embedded cluster has one user, who may do everything"}
