"""Parts of objects with a path of their own: status, scale, log, binding, eviction."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from vanadium_node.local.api import patching, schema
from vanadium_node.local.api.answers import Form, JsonAnswer, Pieces
from vanadium_node.local.api.errors import ApiError
from vanadium_node.local.api.kinds import POD, ResourceType
from vanadium_node.local.api.logs import PodLogs
from vanadium_node.local.api.objects import Object, ObjectStore, copied
from vanadium_node.local.api.requests import (
    Options,
    Target,
    body_of,
    check_is_for,
    decoded,
    flag,
    media_type,
    number,
    object_of,
    unknown_path,
)
from vanadium_node.local.api.selectors import LabelSelector


async def answer(
    store: ObjectStore, logs: PodLogs | None, request: Request, target: Target, options: Options
) -> Response:
    """Answer a request about a part of an object.

    Raises:
        ApiError: it is refused.
    """
    part = str(target.subresource)
    if target.resource is POD and part in ("exec", "attach", "portforward"):
        why = f"the embedded cluster has no {part}: its pods are processes of this machine, under your own account"
        raise ApiError.bad_request(why)
    if part not in target.resource.subresources:
        raise unknown_path()
    match request.method, part:
        case (("GET" | "PUT" | "PATCH"), "status"):
            return await _status(store, request, target, options)
        case (("GET" | "PUT" | "PATCH"), "scale"):
            return await _scale(store, request, target, options)
        case "GET", "log":
            return await _log(store, logs, request, target)
        case "POST", "binding":
            return await _bind(store, request, target)
        case "POST", "eviction":
            return await _evict(store, request, target)
    raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


async def _status(store: ObjectStore, request: Request, target: Target, options: Options) -> Response:
    old = store.get(target.resource, target.namespace, str(target.name))
    if request.method == "PUT":
        new = await object_of(request)
    elif request.method == "PATCH":
        kind = media_type(request)
        body = decoded(await body_of(request), kind)
        new = patching.patched(old, patching.MERGE if kind == patching.APPLY else kind, body)
    if request.method != "GET":
        check_is_for(target, new)
        new, _warnings = schema.cleaned(target.resource, new, "Ignore")
        old = store.update_status(target.resource, new, dry_run=options.is_dry_run)
    return JsonAnswer(Form.from_request(request).one(target.resource, old))


async def _scale(store: ObjectStore, request: Request, target: Target, options: Options) -> Response:
    resource, name = target.resource, str(target.name)
    scaled = store.get(resource, target.namespace, name)
    if request.method != "GET":
        wanted = await _wanted_scale(request, resource, scaled)
        new: Object = copied(scaled)
        new.setdefault("spec", {})["replicas"] = _replicas(wanted)
        new["metadata"]["resourceVersion"] = wanted["metadata"].get("resourceVersion", "")
        scaled = store.update(resource, new, dry_run=options.is_dry_run)
    return JsonAnswer(scale_of(scaled))


async def _wanted_scale(request: Request, resource: ResourceType, scaled: Object) -> Object:
    if request.method == "PUT":
        return await object_of(request)
    kind = media_type(request)
    body = decoded(await body_of(request), kind)
    return patching.patched(scale_of(scaled), patching.MERGE if kind == patching.APPLY else kind, body)


def _replicas(scale: Object) -> int:
    wanted: Any = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(wanted, int) or wanted < 0:
        raise ApiError(422, "Invalid", f"spec.replicas: Invalid value: {wanted}: must be greater than or equal to 0")
    return wanted


def scale_of(obj: Object) -> Object:
    """Return the Scale of a workload."""
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": obj.get("status", {}).get("replicas", 0)}
    selector = obj.get("spec", {}).get("selector")
    if selector:
        status["selector"] = str(LabelSelector.from_object(selector))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": obj.get("spec", {}).get("replicas", 1)},
        "status": status,
    }


async def _log(store: ObjectStore, logs: PodLogs | None, request: Request, target: Target) -> Response:
    name, query = str(target.name), request.query_params
    pod = store.get(POD, target.namespace, name)
    if logs is None:
        raise ApiError.bad_request("this API runs without pods, so there are no logs")
    container = _container(pod, query.get("container"))
    pieces = logs.read_logs(
        str(target.namespace),
        name,
        container,
        follow=flag(request, "follow"),
        tail_lines=number(query.get("tailLines"), "tailLines"),
        previous=flag(request, "previous"),
        timestamps=flag(request, "timestamps"),
        since_seconds=number(query.get("sinceSeconds"), "sinceSeconds"),
    )
    try:
        first = await anext(pieces)  # what is wrong shows before the answer begins
    except StopAsyncIteration:
        return PlainTextResponse("")
    return Pieces(_limited(first, pieces, number(query.get("limitBytes"), "limitBytes")), "text/plain")


async def _limited(first: bytes, rest: AsyncGenerator[bytes, None], limit: int | None) -> AsyncGenerator[bytes, None]:
    """Yield pieces until so many bytes have gone."""
    async with aclosing(rest):
        left = math.inf if limit is None else limit
        yield first if left >= len(first) else first[:limit]
        left -= len(first)
        async for piece in rest:
            if left <= 0:
                return
            yield piece if left >= len(piece) else piece[: int(left)]
            left -= len(piece)


def _container(pod: Object, asked: str | None) -> str:
    """Return the container that a request for logs means."""
    spec, name = pod.get("spec", {}), pod["metadata"]["name"]
    apps = [str(c.get("name")) for c in spec.get("containers") or ()]
    inits = [str(c.get("name")) for c in spec.get("initContainers") or ()]
    if asked:
        if asked not in (*apps, *inits):
            raise ApiError.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default = pod["metadata"].get("annotations", {}).get("kubectl.kubernetes.io/default-container")
    if len(apps) == 1:
        return apps[0]
    if default in apps:
        return str(default)
    choice = f"[{' '.join(apps)}]" + (f" or one of the init containers: [{' '.join(inits)}]" if inits else "")
    raise ApiError.bad_request(f"a container name must be specified for pod {name}, choose one of: {choice}")


async def _bind(store: ObjectStore, request: Request, target: Target) -> Response:
    node = ((await object_of(request)).get("target") or {}).get("name")
    if not node:
        raise ApiError.bad_request("a binding names a node in target.name")
    store.modify(POD, target.namespace, str(target.name), lambda pod: pod["spec"].update(nodeName=node))
    return _success(201)


async def _evict(store: ObjectStore, request: Request, target: Target) -> Response:
    options = (await object_of(request)).get("deleteOptions") or {}
    store.delete(POD, target.namespace, str(target.name), grace_seconds=options.get("gracePeriodSeconds"))
    return _success(201)


def _success(code: int) -> Response:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}
    return JsonAnswer(status, status_code=code)
