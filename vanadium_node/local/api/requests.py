"""What a request is about: its path, its options and its body, read strictly."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import yaml
from starlette.requests import Request

from vanadium_node.local.api import protobuf
from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import ResourceType, by_plural
from vanadium_node.local.api.selectors import FieldSelector, LabelSelector

MAX_BODY_BYTES: Final = 3 * 1024 * 1024
"""The API server's own limit on a request's body."""

_YAML_TYPES: Final = frozenset({"application/yaml", "application/apply-patch+yaml"})


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names: a collection (no name), an object, or a part of one."""

    resource: ResourceType
    namespace: str | None = None
    name: str | None = None
    subresource: str | None = None

    @classmethod
    def parse(cls, path: str) -> Target:
        """Read `/api/v1/namespaces/N/pods/P/log` and its like.

        Raises:
            ApiError: nothing is served there (404).
        """
        match path.strip("/").split("/"):
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                raise unknown_path()
        return cls._of(group, version, rest)

    @classmethod
    def _of(cls, group: str, version: str, rest: list[str]) -> Target:
        match rest:
            case ["namespaces", namespace, plural, *more] if (
                found := by_plural(group, version, plural)
            ) is not None and found.namespaced:
                name, subresource = (*more, None, None)[:2]
                if len(more) > 2:
                    raise unknown_path()
                return cls(found, namespace, name, subresource)
            case [plural, *more] if len(more) <= 2 and (found := by_plural(group, version, plural)) is not None:
                if found.namespaced and more:
                    raise unknown_path()
                name, subresource = (*more, None, None)[:2]
                return cls(found, None, name, subresource)
        raise unknown_path()


@dataclass(frozen=True, slots=True)
class Options:
    """The query parameters that say how a request is meant."""

    labels: LabelSelector
    fields: FieldSelector
    resource_version: str | None
    is_watch: bool
    wants_bookmarks: bool
    wants_initial_events: bool
    timeout_seconds: int | None
    limit: int
    continue_token: str
    is_dry_run: bool
    validation: str
    manager: str
    is_forced: bool

    @classmethod
    def from_request(cls, request: Request) -> Options:
        """Read a request's query.

        Raises:
            ApiError: a parameter is not what it should be (400).
        """
        query = request.query_params
        agent = request.headers.get("user-agent", "").partition("/")[0]
        dry_run = query.getlist("dryRun")
        if dry_run not in ([], ["All"]):
            raise ApiError.bad_request(f"invalid dry run value {dry_run!r}: only All is known")
        return cls(
            labels=LabelSelector.parse(query.get("labelSelector", "")),
            fields=FieldSelector.parse(query.get("fieldSelector", "")),
            resource_version=query.get("resourceVersion") or None,
            is_watch=_flag(query.get("watch")),
            wants_bookmarks=_flag(query.get("allowWatchBookmarks")),
            wants_initial_events=_flag(query.get("sendInitialEvents")),
            timeout_seconds=number(query.get("timeoutSeconds"), "timeoutSeconds"),
            limit=number(query.get("limit"), "limit") or 0,
            continue_token=query.get("continue", ""),
            is_dry_run=bool(dry_run),
            validation=query.get("fieldValidation") or "Warn",
            manager=query.get("fieldManager") or agent or "unknown",
            is_forced=_flag(query.get("force")),
        )


def number(text: str | None, name: str) -> int | None:
    """Return a query parameter's number, or None where there is none.

    Raises:
        ApiError: it is not a number (400).
    """
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise ApiError.bad_request(f'the query parameter {name} is "{text:.40}", which is not a number') from error


def flag(request: Request, name: str) -> bool:
    """Tell whether a query parameter is set to something true."""
    return _flag(request.query_params.get(name))


def _flag(text: str | None) -> bool:
    return text is not None and text.lower() in ("1", "t", "true", "")


def unknown_path() -> ApiError:
    """Return the refusal for a path under which nothing is served."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


async def body_of(request: Request) -> bytes:
    """Read a request's body.

    Raises:
        ApiError: it is longer than the API takes (413).
    """
    body = bytearray()
    async with aclosing(request.stream()) as pieces:
        async for piece in pieces:
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY_BYTES}")
    return bytes(body)


def media_type(request: Request) -> str:
    """Return a body's type without its parameters; JSON where none is given."""
    return request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()


def decoded(body: bytes, kind: str) -> Any:
    """Decode a body of the media type `kind`.

    Raises:
        ApiError: the type is not taken (415), or the body is not of that type (400).
    """
    if kind == protobuf.MEDIA_TYPE:
        return protobuf.decoded(body)
    try:
        return yaml.safe_load(body) if kind in _YAML_TYPES else json.loads(body)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ApiError.bad_request(f"the object provided cannot be read: {reason}") from error


async def object_of(request: Request) -> dict[str, Any]:
    """Read the object in a request's body.

    Raises:
        ApiError: there is none (400, 413, 415).
    """
    body = await body_of(request)
    obj = decoded(body, media_type(request))
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
        raise ApiError.bad_request("the object provided is not an API object: a mapping with metadata was expected")
    return obj


def check_is_for(target: Target, obj: dict[str, Any]) -> None:
    """Check that an object is what its path says, and complete it from the path.

    Raises:
        ApiError: kind, name or namespace differ (400).
    """
    resource = target.resource
    for key, expected, what in (("apiVersion", resource.api_version, "API version"), ("kind", resource.kind, "kind")):
        given = obj.setdefault(key, expected)
        if given != expected:
            raise ApiError.bad_request(
                f"the {what} in the data ({given}) does not match the expected {what} ({expected})"
            )
    metadata = obj.setdefault("metadata", {})
    if target.name and metadata.setdefault("name", target.name) != target.name:
        raise ApiError.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
        )
    if resource.namespaced and metadata.setdefault("namespace", target.namespace) != target.namespace:
        raise ApiError.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
