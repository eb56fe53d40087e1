"""The API as a web application: who may ask, where each path leads, and how refusals and our own faults go out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from secrets import compare_digest
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from vanadium_node.local.api import discovery, openapi, reviews
from vanadium_node.local.api.answers import JsonAnswer, refusal
from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.requests import object_of, unknown_path
from vanadium_node.local.api.rest import Rest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_log = logging.getLogger(__name__)

_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_OPEN_TO_ALL: Final = frozenset({"/healthz", "/livez", "/readyz", "/version"})
"""Paths that need no token, as on a real cluster."""


def application(rest: Rest, token: str) -> ASGIApp:
    """Return the API as an ASGI application; requests must bear the token."""
    endpoint = partial(_answer, rest)
    app = Starlette(
        routes=[
            *(Route(path, _healthy) for path in ("/healthz", "/livez", "/readyz")),
            Route("/{path:path}", endpoint, methods=_METHODS),
        ]
    )
    return BearerCheck(app, token)


@dataclass(frozen=True, slots=True)
class BearerCheck:
    """Lets requests with the right token through, and refuses the others."""

    app: ASGIApp
    token: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        if scope["type"] == "http" and scope["path"] not in _OPEN_TO_ALL:
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not compare_digest(given, b"Bearer " + self.token.encode()):
                await refusal(ApiError(401, "Unauthorized", "Unauthorized"))(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _healthy(_request: Request) -> Response:
    return PlainTextResponse("ok")


async def _answer(rest: Rest, request: Request) -> Response:
    """Answer any request; a fault of ours is logged, and told as an internal error."""
    try:
        return await _dispatched(rest, request)
    except ApiError as error:
        return refusal(error)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        _log.exception("the API failed at %s %s", request.method, request.url.path)
        why = f"Internal error occurred: {type(error).__name__} at {request.method} {request.url.path}"
        return refusal(ApiError(500, "InternalError", why))


async def _dispatched(rest: Rest, request: Request) -> Response:
    path = request.url.path.rstrip("/")
    if request.method == "GET" and (fixed := _fixed(request, path)) is not None:
        return fixed
    if request.method == "POST" and (review := reviews.review_at(path)) is not None:
        return JsonAnswer(reviews.answered(review, await object_of(request)), status_code=201)
    return await rest.answer(request)


def _fixed(request: Request, path: str) -> Response | None:
    """Answer a request for what the API says about itself, or return None."""
    match path.strip("/").split("/"):
        case ["version"]:
            return JsonAnswer(discovery.version())
        case ["api"]:
            return JsonAnswer(discovery.core_versions(request.headers.get("host", "")))
        case ["apis"]:
            return JsonAnswer(discovery.groups())
        case ["apis", name]:
            return _or_unknown(discovery.group(name))
        case ["api", version]:
            return _or_unknown(discovery.resources("", version))
        case ["apis", name, version]:
            return _or_unknown(discovery.resources(name, version))
        case ["openapi", "v2"]:
            return _old_openapi(request)
        case ["openapi", "v3"]:
            return JsonAnswer(openapi.root())
        case ["openapi", "v3", *rest]:
            return _or_unknown(openapi.document("/".join(rest)))
    return None


def _old_openapi(request: Request) -> Response:
    if "protobuf" in request.headers.get("accept", ""):
        return Response(openapi.old_protobuf(), media_type="application/octet-stream")
    return JsonAnswer(openapi.old_document())


def _or_unknown(document: dict[str, Any] | None) -> Response:
    if document is None:
        raise unknown_path()
    return JsonAnswer(document)
