"""How objects go out: as they are, as lists, as tables for people, or as metadata alone."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from vanadium_node.local.api import tables, views
from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.objects import Object


class JsonAnswer(Response):
    """A JSON body, without spaces."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the body."""
        return encoded(content)


class Pieces(StreamingResponse):
    """A body that comes piece by piece, from a generator that is closed when the client leaves."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(pieces, media_type=media_type)
        self._pieces = pieces

    async def stream_response(self, send: Send) -> None:
        """Send the pieces."""
        async with aclosing(self._pieces):
            await super().stream_response(send)


def encoded(value: Any) -> bytes:
    """Return a value as compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def refusal(error: ApiError) -> Response:
    """Return the answer for a request that was refused."""
    return JsonAnswer(error.to_status(), status_code=error.status)


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a client wants objects: `Table`, `PartialObjectMetadata`, or plain when empty."""

    kind: str
    version: str
    include: str

    @classmethod
    def from_request(cls, request: Request) -> Form:
        """Read the Accept header: the first form that is served."""
        include = request.query_params.get("includeObject") or "Metadata"
        for part in request.headers.get("accept", "").split(","):
            media, *parameters = (p.strip() for p in part.split(";"))
            given = dict(p.split("=", 1) for p in parameters if "=" in p)
            wanted = given.get("as", "").removesuffix("List")
            if media == "application/json" and wanted in ("", "Table", "PartialObjectMetadata"):
                return cls(wanted, given.get("v", "v1"), include)
        return cls("", "v1", include)

    @property
    def api_version(self) -> str:
        """Return the version in which tables and bare metadata are written."""
        return f"meta.k8s.io/{self.version}"

    def one(self, resource: ResourceType, obj: Object, *, with_columns: bool = True) -> Object:
        """Return one object in this form."""
        if self.kind == "Table":
            metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return self._table(resource, (obj,), metadata, with_columns)
        if self.kind == "PartialObjectMetadata":
            return {"kind": self.kind, "apiVersion": self.api_version, "metadata": obj["metadata"]}
        return views.outgoing(resource, obj)

    def many(self, resource: ResourceType, objects: Sequence[Object], metadata: Mapping[str, Any]) -> Object:
        """Return a list of objects in this form."""
        if self.kind == "Table":
            return self._table(resource, objects, metadata, with_columns=True)
        if self.kind == "PartialObjectMetadata":
            items = [{"metadata": obj["metadata"]} for obj in objects]
            return {"kind": f"{self.kind}List", "apiVersion": self.api_version, "metadata": metadata, "items": items}
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            "items": [views.outgoing(resource, obj) for obj in objects],
        }

    def bookmark(self, resource: ResourceType, metadata: Mapping[str, Any]) -> Object:
        """Return the object of a BOOKMARK event."""
        if self.kind == "Table":
            return self._table(resource, (), metadata, with_columns=False)
        kind, version = resource.kind, resource.api_version
        if self.kind:
            kind, version = self.kind, self.api_version
        return {"kind": kind, "apiVersion": version, "metadata": dict(metadata)}

    def _table(
        self, resource: ResourceType, objects: Iterable[Object], metadata: Mapping[str, Any], with_columns: bool
    ) -> Object:
        now = datetime.now(UTC)
        table: Object = {"kind": "Table", "apiVersion": self.api_version, "metadata": dict(metadata)}
        table["columnDefinitions"] = tables.columns(resource) if with_columns else None
        table["rows"] = [{"cells": tables.cells(resource, obj, now)} | self._included(resource, obj) for obj in objects]
        return table

    def _included(self, resource: ResourceType, obj: Object) -> Object:
        """Return the part of an object that goes along with its row."""
        if self.include == "None":
            return {}
        if self.include == "Object":
            return {"object": views.outgoing(resource, obj)}
        kind = "PartialObjectMetadata"
        return {"object": {"kind": kind, "apiVersion": self.api_version, "metadata": obj["metadata"]}}
