"""The kinds of patches that the API takes, by their media types."""

from __future__ import annotations

from typing import Any, Final

from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.objects import Object
from vanadium_node.local.api.patches import json_patch, merge_patch
from vanadium_node.local.api.strategic import strategic_merge

JSON: Final = "application/json-patch+json"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"


def patched(old: Object, kind: str, patch: Any) -> Object:
    """Return an object with a patch of a media type applied; `old` stays as it is.

    Raises:
        ApiError: the media type is not known (415), or the patch does not fit (400, 422).
    """
    match kind:
        case "application/strategic-merge-patch+json":
            new: Any = strategic_merge(old, patch)
        case "application/merge-patch+json":
            new = merge_patch(old, patch)
        case "application/json-patch+json":
            new = json_patch(old, patch)
        case _:
            accepted = ", ".join((JSON, MERGE, STRATEGIC, APPLY))
            raise ApiError(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: " + accepted,
            )
    if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
        raise ApiError(422, "Invalid", "the patch leaves nothing that is an API object")
    return new
