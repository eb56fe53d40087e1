"""The histories of stateful sets and daemon sets: their templates as ControllerRevisions, from which old pods can be made again."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from vanadium_node.local.api.kinds import CONTROLLER_REVISION
from vanadium_node.local.api.objects import Object, ObjectStore, copied
from vanadium_node.local.machine.owned import is_controlled_by, reference_to
from vanadium_node.local.machine.revisions import template_hash

HASH_LABEL: Final = "controller-revision-hash"


def newest(store: ObjectStore, owner: Object) -> Object:
    """Return the revision of the owner's template as it is now; one that was used before becomes the newest again."""
    known = _known(store, owner)
    number = max((int(r["revision"]) for r in known), default=0)
    template = owner["spec"]["template"]
    label = template_hash(template)
    same = next((r for r in known if r["metadata"]["labels"][HASH_LABEL] == label), None)
    if same is None:
        return store.create(CONTROLLER_REVISION, _made(owner, label, number + 1))
    if int(same["revision"]) == number:
        return same
    metadata = same["metadata"]
    return store.modify(
        CONTROLLER_REVISION, metadata["namespace"], metadata["name"], lambda obj: obj.update(revision=number + 1)
    )


def template_at(store: ObjectStore, owner: Object, name: str) -> Object:
    """Return the template of the revision with that name; the newest where it is not known any more."""
    found = store.find(CONTROLLER_REVISION, owner["metadata"]["namespace"], name)
    if found is None or not is_controlled_by(found, owner):
        template: Object = copied(owner["spec"]["template"])
    else:
        template = copied(found["data"]["spec"]["template"])
        template.pop("$patch", None)
    return template


def label_of(revision: Object) -> str:
    """Return the label of a revision's pods."""
    return str(revision["metadata"]["labels"][HASH_LABEL])


def prune(store: ObjectStore, owner: Object, used: AbstractSet[str]) -> None:
    """Remove the oldest revisions beyond the owner's limit, but for those whose labels are in use."""
    limit = int(owner["spec"].get("revisionHistoryLimit", 10))
    unused = sorted((r for r in _known(store, owner) if label_of(r) not in used), key=lambda r: int(r["revision"]))
    for revision in unused[: max(len(unused) - limit, 0)]:
        store.delete(CONTROLLER_REVISION, revision["metadata"]["namespace"], revision["metadata"]["name"])


def _known(store: ObjectStore, owner: Object) -> list[Object]:
    every = store.list(CONTROLLER_REVISION, owner["metadata"]["namespace"])
    return [r for r in every if is_controlled_by(r, owner)]


def _made(owner: Object, label: str, number: int) -> Object:
    metadata = owner["metadata"]
    template = copied(owner["spec"]["template"]) | {"$patch": "replace"}
    labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    return {
        "metadata": {
            "name": f"{metadata['name']}-{label}",
            "namespace": metadata["namespace"],
            "labels": {**labels, HASH_LABEL: label},
            "ownerReferences": [reference_to(owner)],
        },
        "data": {"spec": {"template": template}},
        "revision": number,
    }
