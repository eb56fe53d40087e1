"""The verbs of the API on collections and objects: from a request to the store and back."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from vanadium_node.local.api import applying, managed, parts, patching, schema, views
from vanadium_node.local.api.answers import Form, JsonAnswer, Pieces, encoded
from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.history import Event, EventType
from vanadium_node.local.api.kinds import ResourceType
from vanadium_node.local.api.logs import PodLogs
from vanadium_node.local.api.objects import Object, ObjectStore, Stamp, timestamp
from vanadium_node.local.api.requests import (
    Options,
    Target,
    body_of,
    check_is_for,
    decoded,
    media_type,
    number,
    object_of,
)
from vanadium_node.local.api.selectors import check_fields

WATCH_SECONDS: Final = 3600.0
"""How long a watch lasts that asks for no time."""

BOOKMARK_SECONDS: Final = 60.0
"""After so long without news a watcher that wants bookmarks gets one."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Answers requests about stored objects."""

    store: ObjectStore
    logs: PodLogs | None = None

    async def answer(self, request: Request) -> Response:
        """Answer a request.

        Raises:
            ApiError: it is refused.
        """
        target = Target.parse(request.url.path)
        options = Options.from_request(request)
        if target.subresource is not None:
            return await parts.answer(self.store, self.logs, request, target, options)
        match request.method, target.name is not None:
            case "GET", False:
                return (
                    self._watch(request, target, options) if options.is_watch else self._list(request, target, options)
                )
            case "POST", False:
                return await self._create(request, target, options)
            case "DELETE", False:
                return await self._delete_all(request, target, options)
            case "GET", True:
                stored = views.stored_as(target.resource)
                return self._one(request, target, self.store.get(stored, target.namespace, str(target.name)))
            case "PUT", True:
                return await self._replace(request, target, options)
            case "PATCH", True:
                return await self._patch(request, target, options)
            case "DELETE", True:
                return await self._delete(request, target, options)
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _one(self, request: Request, target: Target, obj: Object, status: int = 200) -> Response:
        return JsonAnswer(Form.from_request(request).one(target.resource, obj), status_code=status)

    def _list(self, request: Request, target: Target, options: Options) -> Response:
        stored = views.stored_as(target.resource)
        check_fields(stored, options.fields)
        objects = self.store.list(stored, target.namespace, options.labels, options.fields)
        page, metadata = _page(objects, options)
        metadata = {"resourceVersion": self.store.resource_version} | metadata
        return JsonAnswer(Form.from_request(request).many(target.resource, page, metadata))

    def _watch(self, request: Request, target: Target, options: Options) -> Response:
        check_fields(views.stored_as(target.resource), options.fields)
        lines = self._events(Form.from_request(request), target, options)
        return Pieces(lines, "application/json;stream=watch")

    async def _events(self, form: Form, target: Target, options: Options) -> AsyncGenerator[bytes, None]:
        """Yield a watch's events, a line each; a refusal on the way is the last one."""
        resource, with_columns = target.resource, True
        version = None if options.wants_initial_events else options.resource_version
        last = version or self.store.resource_version
        if options.wants_initial_events:
            for obj in self.store.list(views.stored_as(resource), target.namespace, options.labels, options.fields):
                yield _line(EventType.ADDED, form.one(resource, obj, with_columns=with_columns))
                with_columns = False
            annotations = {"k8s.io/initial-events-end": "true"}
            mark = {"resourceVersion": last, "annotations": annotations}
            yield _line(EventType.BOOKMARK, form.bookmark(resource, mark))
            version = last
        try:
            async with aclosing(self._changes(target, options, version)) as changes:
                async for event in changes:
                    yield self._event_line(form, target, event, with_columns)
                    with_columns = with_columns and event.type is EventType.BOOKMARK
        except ApiError as error:
            yield encoded({"type": "ERROR", "object": error.to_status()}) + b"\n"

    def _changes(self, target: Target, options: Options, version: str | None) -> AsyncGenerator[Event, None]:
        return self.store.watch(
            views.stored_as(target.resource),
            target.namespace,
            version,
            options.labels,
            options.fields,
            seconds=options.timeout_seconds or WATCH_SECONDS,
            bookmark_seconds=BOOKMARK_SECONDS if options.wants_bookmarks else math.inf,
        )

    def _event_line(self, form: Form, target: Target, event: Event, with_columns: bool) -> bytes:
        if event.type is EventType.BOOKMARK:
            return _line(event.type, form.bookmark(target.resource, event.object["metadata"]))
        return _line(event.type, form.one(target.resource, event.object, with_columns=with_columns))

    async def _create(self, request: Request, target: Target, options: Options) -> Response:
        obj = await object_of(request)
        if target.resource.namespaced and target.namespace is None:
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        check_is_for(target, obj)
        obj, warnings = schema.cleaned(target.resource, obj, options.validation)
        stored = views.stored_as(target.resource)
        made = self.store.create(
            stored, views.incoming(target.resource, obj), dry_run=options.is_dry_run, stamp=self._stamp(options)
        )
        return _warned(self._one(request, target, made, 201), warnings)

    async def _replace(self, request: Request, target: Target, options: Options) -> Response:
        obj = await object_of(request)
        check_is_for(target, obj)
        obj, warnings = schema.cleaned(target.resource, obj, options.validation)
        stored = views.stored_as(target.resource)
        new = self.store.update(
            stored, views.incoming(target.resource, obj), dry_run=options.is_dry_run, stamp=self._stamp(options)
        )
        return _warned(self._one(request, target, new), warnings)

    async def _patch(self, request: Request, target: Target, options: Options) -> Response:
        kind = media_type(request)
        body = decoded(await body_of(request), kind)
        stored = views.stored_as(target.resource)
        if kind == patching.APPLY:
            obj, made, warnings = applying.apply(self.store, target, body, options)
            return _warned(self._one(request, target, obj, 201 if made else 200), warnings)
        old = self.store.get(stored, target.namespace, str(target.name))
        new = patching.patched(old, kind, body)
        check_is_for(target, new)
        new, warnings = schema.cleaned(target.resource, new, options.validation)
        changed = self.store.update(stored, new, dry_run=options.is_dry_run, stamp=self._stamp(options))
        return _warned(self._one(request, target, changed), warnings)

    def _stamp(self, options: Options) -> Stamp:
        """Return what records that a request's manager owns the fields it changed."""

        def stamp(new: Object, old: Object | None) -> None:
            entries = managed.updated(old, new, options.manager, timestamp(self.store.now()))
            new["metadata"]["managedFields"] = entries

        return stamp

    async def _delete(self, request: Request, target: Target, options: Options) -> Response:
        deletion = await Deletion.from_request(request)
        stored, name = views.stored_as(target.resource), str(target.name)
        old = self.store.get(stored, target.namespace, name)
        last = old if options.is_dry_run or deletion.is_dry_run else deletion.run(self.store, stored, old)
        if self.store.find(stored, target.namespace, name) is not None or stored.plural == "pods":
            return self._one(request, target, last)
        details = {"name": name, "group": stored.group, "kind": stored.plural, "uid": old["metadata"]["uid"]}
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return JsonAnswer(status | {"details": {k: v for k, v in details.items() if v}})

    async def _delete_all(self, request: Request, target: Target, options: Options) -> Response:
        deletion = await Deletion.from_request(request)
        stored = views.stored_as(target.resource)
        check_fields(stored, options.fields)
        found = self.store.list(stored, target.namespace, options.labels, options.fields)
        if not options.is_dry_run and not deletion.is_dry_run:
            for obj in found:
                metadata = obj["metadata"]
                if self.store.find(stored, metadata.get("namespace"), metadata["name"]) is obj:
                    deletion.run(self.store, stored, obj)
        metadata = {"resourceVersion": self.store.resource_version}
        return JsonAnswer(Form.from_request(request).many(target.resource, found, metadata))


@dataclass(frozen=True, slots=True)
class Deletion:
    """How something is to be deleted."""

    grace_seconds: int | None
    propagation: str
    uid: str | None
    resource_version: str | None
    is_dry_run: bool

    @classmethod
    async def from_request(cls, request: Request) -> Deletion:
        """Read the DeleteOptions in a request's body, or the query's.

        Raises:
            ApiError: they make no sense (400, 422).
        """
        body = await body_of(request)
        given: Any = decoded(body, media_type(request)) if body.strip() else {}
        if not isinstance(given, dict):
            raise ApiError.bad_request("the body of a deletion is not a DeleteOptions object")
        query = request.query_params
        grace = given.get("gracePeriodSeconds", number(query.get("gracePeriodSeconds"), "gracePeriodSeconds"))
        propagation = given.get("propagationPolicy") or query.get("propagationPolicy")
        if propagation is None:
            orphan = given.get("orphanDependents") or query.get("orphanDependents") == "true"
            propagation = "Orphan" if orphan else "Background"
        if propagation not in ("Orphan", "Background", "Foreground"):
            raise ApiError.bad_request(
                f"the propagation policy {propagation!r} is none of Orphan, Background, Foreground"
            )
        if grace is not None and (not isinstance(grace, int) or grace < 0):
            raise ApiError.bad_request(f"gracePeriodSeconds is {grace!r}, which is not a number of seconds")
        preconditions = given.get("preconditions") or {}
        version = preconditions.get("resourceVersion")
        return cls(grace, propagation, preconditions.get("uid"), version, bool(given.get("dryRun")))

    def run(self, store: ObjectStore, resource: ResourceType, obj: Object) -> Object:
        """Delete an object so."""
        metadata = obj["metadata"]
        return store.delete(
            resource,
            metadata.get("namespace"),
            metadata["name"],
            grace_seconds=self.grace_seconds,
            propagation=self.propagation,
            uid=self.uid,
            resource_version=self.resource_version,
        )


def _page(objects: tuple[Object, ...], options: Options) -> tuple[tuple[Object, ...], Object]:
    """Return the objects of the page that was asked for, and the list metadata that leads to the next."""
    if options.continue_token:
        after = _read_token(options.continue_token)
        objects = tuple(o for o in objects if [o["metadata"].get("namespace", ""), o["metadata"]["name"]] > after)
    if not options.limit or len(objects) <= options.limit:
        return objects, {}
    page = objects[: options.limit]
    last = page[-1]["metadata"]
    token = base64.urlsafe_b64encode(encoded([last.get("namespace", ""), last["name"]])).decode()
    return page, {"continue": token, "remainingItemCount": len(objects) - len(page)}


def _read_token(token: str) -> list[str]:
    try:
        after = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error) as error:
        raise ApiError.bad_request("continue key is not valid") from error
    if not isinstance(after, list) or len(after) != 2 or not all(isinstance(part, str) for part in after):
        raise ApiError.bad_request("continue key is not valid")
    return after


def _line(kind: EventType, obj: Object) -> bytes:
    return encoded({"type": kind, "object": obj}) + b"\n"


def _warned(response: Response, warnings: tuple[str, ...]) -> Response:
    """Add warnings to an answer (RFC 7234 §5.5), as kubectl shows them."""
    for warning in warnings:
        quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.append("warning", f'299 - "{quoted}"')
    return response
