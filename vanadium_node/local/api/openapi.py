"""The least of OpenAPI that clients need: which writes take `fieldValidation` and `dryRun`.

kubectl leaves the validation of fields to a server that says so here. Definitions of types are not served: kubectl then
checks nothing itself, and merges its client-side patches with the types that are built into it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

from vanadium_node.local.api.kinds import RESOURCES, SERVER_VERSION, ResourceType, group_versions

_TITLE: Final = "Kubernetes"
_KIND_EXTENSION: Final = "x-kubernetes-group-version-kind"
_PARAMETERS: Final = ("dryRun", "fieldManager", "fieldValidation")


def root() -> dict[str, Any]:
    """Return the answer to `/openapi/v3`."""
    paths = {}
    for group, version in group_versions():
        name = _path(group, version)
        digest = hashlib.sha256(json.dumps(group_document(group, version)).encode()).hexdigest()[:32]
        paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}
    return {"paths": paths}


def document(name: str) -> dict[str, Any] | None:
    """Return the document under `/openapi/v3/NAME`, or None."""
    return next((group_document(g, v) for g, v in group_versions() if _path(g, v) == name), None)


def group_document(group: str, version: str) -> dict[str, Any]:
    """Return the OpenAPI v3 document of a group's version."""
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in _PARAMETERS]
    paths = {}
    for path, resource in _paths():
        if (resource.group, resource.version) == (group, version):
            operation = {
                "parameters": parameters,
                _KIND_EXTENSION: _kind(resource),
                "responses": {"200": {"description": "OK"}},
            }
            paths[path] = {"patch": operation}
    info = {"title": _TITLE, "version": SERVER_VERSION}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}


def old_document() -> dict[str, Any]:
    """Return the OpenAPI v2 document as JSON."""
    parameters = [{"name": name, "in": "query", "type": "string"} for name in _PARAMETERS]
    paths = {
        path: {
            "patch": {
                "parameters": parameters,
                "responses": {"200": {"description": "OK"}},
                _KIND_EXTENSION: _kind(resource),
            }
        }
        for path, resource in _paths()
    }
    info = {"title": _TITLE, "version": SERVER_VERSION}
    return {"swagger": "2.0", "info": info, "paths": paths, "definitions": {}}


def old_protobuf() -> bytes:
    """Return the OpenAPI v2 document in the protobuf form that kubectl asks for (gnostic's OpenAPIv2.proto)."""
    parameters = b"".join(_field(8, _query_parameter(name)) for name in _PARAMETERS)
    items = b""
    for path, resource in _paths():
        kind = json.dumps(_kind(resource)).encode()
        extension = _field(1, _KIND_EXTENSION.encode()) + _field(2, _field(2, kind))
        operation = parameters + _field(13, extension)
        items += _field(2, _field(1, path.encode()) + _field(2, _field(8, operation)))
    info = _field(1, _TITLE.encode()) + _field(2, SERVER_VERSION.encode())
    return _field(1, b"2.0") + _field(2, info) + _field(8, items)


def _query_parameter(name: str) -> bytes:
    """Return a ParametersItem that holds a query parameter."""
    query = _field(2, b"query") + _field(4, name.encode()) + _field(6, b"string")
    return _field(1, _field(2, _field(3, query)))


def _field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a protobuf message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _paths() -> Iterator[tuple[str, ResourceType]]:
    for resource in RESOURCES:
        namespaced = "/namespaces/{namespace}" if resource.namespaced else ""
        yield f"{resource.path}{namespaced}/{resource.plural}/{{name}}", resource


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _kind(resource: ResourceType) -> dict[str, str]:
    return {"group": resource.group, "kind": resource.kind, "version": resource.version}
