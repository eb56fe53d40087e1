"""The revisions of a deployment: which replica set runs which template, and which number it has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from vanadium_node.local.api.kinds import REPLICA_SET
from vanadium_node.local.api.objects import Object, ObjectStore, copied
from vanadium_node.local.machine.owned import reference_to

HASH_LABEL: Final = "pod-template-hash"
REVISION: Final = "deployment.kubernetes.io/revision"
REVISION_HISTORY: Final = "deployment.kubernetes.io/revision-history"
DESIRED: Final = "deployment.kubernetes.io/desired-replicas"
MAXIMUM: Final = "deployment.kubernetes.io/max-replicas"
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_HASH_LENGTH: Final = 10
_NOT_INHERITED: Final = frozenset(
    {"kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAXIMUM}
)


def template_hash(template: Object, collisions: int = 0) -> str:
    """Return the short name of a pod template: the same for the same template."""
    bare = copied(template)
    labels = (bare.get("metadata") or {}).get("labels") or {}
    labels.pop(HASH_LABEL, None)
    encoded = json.dumps(bare, sort_keys=True).encode() + (f"#{collisions}".encode() if collisions else b"")
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in hashlib.sha256(encoded).digest()[:_HASH_LENGTH])


def annotation(obj: Object, key: str) -> str:
    """Return an annotation's value, empty where there is none."""
    return str((obj["metadata"].get("annotations") or {}).get(key, ""))


def revision(obj: Object) -> int:
    """Return the number of a replica set's or deployment's revision; 0 where it has none."""
    text = annotation(obj, REVISION)
    return int(text) if text.isdecimal() else 0


def current(deployment: Object, sets: Sequence[Object]) -> Object | None:
    """Return the replica set that runs the deployment's template, the oldest of several."""
    template = _bare(deployment["spec"]["template"])
    name = template_hash(deployment["spec"]["template"], _collisions(deployment))
    same = [
        rs
        for rs in sets
        if (rs["metadata"].get("labels") or {}).get(HASH_LABEL) == name or _bare(rs["spec"]["template"]) == template
    ]
    return min(same, key=lambda rs: (rs["metadata"]["creationTimestamp"], rs["metadata"]["name"]), default=None)


def made(store: ObjectStore, deployment: Object, replicas: int, number: int, maximum: int) -> Object:
    """Create the replica set of a new revision.

    Raises:
        ApiError: its name is taken (409), or it is refused.
    """
    metadata, spec = deployment["metadata"], deployment["spec"]
    name = template_hash(spec["template"], _collisions(deployment))
    template = copied(spec["template"])
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels[HASH_LABEL] = name
    selector = copied(spec["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = name
    obj: Object = {
        "metadata": {
            "name": f"{metadata['name']}-{name}",
            "namespace": metadata["namespace"],
            "labels": dict(labels),
            "annotations": {**inherited(deployment), **counts(deployment, maximum), REVISION: str(number)},
            "ownerReferences": [reference_to(deployment)],
        },
        "spec": {"replicas": replicas, "selector": selector, "template": template},
    }
    if spec.get("minReadySeconds"):
        obj["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return store.create(REPLICA_SET, obj)


def inherited(deployment: Object) -> Object:
    """Return the annotations that a replica set takes from its deployment."""
    annotations = deployment["metadata"].get("annotations") or {}
    return {key: value for key, value in annotations.items() if key not in _NOT_INHERITED}


def counts(deployment: Object, maximum: int) -> Object:
    """Return the annotations that let a later scaling see how large the deployment was."""
    return {DESIRED: str(deployment["spec"].get("replicas", 1)), MAXIMUM: str(maximum)}


def renumbered(rs: Object, number: int) -> Object:
    """Return the annotations of a replica set that becomes the newest revision (again)."""
    annotations = dict(rs["metadata"].get("annotations") or {})
    old = annotations.get(REVISION)
    if old and old != str(number):
        history = [part for part in annotations.get(REVISION_HISTORY, "").split(",") if part]
        annotations[REVISION_HISTORY] = ",".join([*history, old])
    return annotations | {REVISION: str(number)}


def _collisions(deployment: Object) -> int:
    return int((deployment.get("status") or {}).get("collisionCount") or 0)


def _bare(template: Object) -> Object:
    """Return a template without the label that replica sets add."""
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {k: v for k, v in (metadata.get("labels") or {}).items() if k != HASH_LABEL}
    return {"metadata": metadata, "spec": template.get("spec")}
