"""A Kubernetes API client over httpx: plain mappings in and out, errors as `KubernetesError` with the next step.

It knows how to ask, and when asking again is safe; what to do with the answer is for `kube.watch`, `kube.rollout` and the
controller. One client serves one cluster as one user, in one trio run.
"""

import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from vanadium_node import __version__
from vanadium_node.errors import ConfigurationError, KubernetesError, clip
from vanadium_node.kube.credentials import Login
from vanadium_node.kube.kubeconfig import ClusterAccess
from vanadium_node.kube.resources import Manifest, Resource, resource_version_of

REQUEST_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 5.0
"""How long connecting may take; Ctrl-C waits for that."""

CONNECTING: Final = frozenset({"connection.connect_tcp.started", "connection.start_tls.started"})
CONNECTED: Final = frozenset(
    {
        "connection.connect_tcp.failed",
        "connection.start_tls.failed",
        "connection.start_tls.complete",
        "http11.send_request_headers.started",
    }
)
"""Between these events, in httpcore's words, a connection is being made."""

MAX_ATTEMPTS: Final = 5
MAX_RETRY_AFTER_SECONDS: Final = 10.0
BUSY: Final = frozenset({429, 500, 503})  # with Retry-After; 500 is how admission says `ServerTimeout`: "not yet"
"""Answers that say the request was not begun, so that any request may be sent again when they name a time."""

JSON_TYPE: Final = "application/json"


class PatchType(StrEnum):
    """How a patch is meant."""

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    JSON = "application/json-patch+json"


class Propagation(StrEnum):
    """What becomes of the objects that a deleted one owns."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The objects of a collection at one moment, and the version from which a watch goes on."""

    items: tuple[Manifest, ...]
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerVersion:
    """The API server's version."""

    major: int
    minor: int
    text: str

    @classmethod
    def from_answer(cls, answer: Manifest) -> "ServerVersion":
        """Read the answer to `/version`; providers write minors such as `29+`."""
        text = str(answer.get("gitVersion", ""))
        try:
            major, minor = (int("".join(c for c in str(answer.get(k, "")) if c.isdigit())) for k in ("major", "minor"))
        except ValueError as error:
            raise KubernetesError(f"the API server reports the version {clip(text)!r}, which is none") from error
        return cls(major=major, minor=minor, text=text)

    @property
    def has_native_sidecars(self) -> bool:
        """Tell whether init containers with restartPolicy Always run beside the others (on by default since 1.29)."""
        return (self.major, self.minor) >= (1, 29)


class KubeClient:
    """Requests to one API server. Make one with `open_client`."""

    def __init__(self, http: httpx.AsyncClient, access: ClusterAccess) -> None:
        self._http = http
        self.access = access
        self._extensions = {"sni_hostname": access.tls_server_name} if access.tls_server_name else {}

    @property
    def namespace(self) -> str:
        """The namespace of objects that name none."""
        return self.access.namespace

    async def version(self) -> ServerVersion:
        """Return the server's version."""
        return ServerVersion.from_answer(await self.request("GET", "/version", doing="ask the cluster for its version"))

    async def clock_ahead(self) -> timedelta | None:
        """Return by how much this machine's clock is ahead of the server's, to a second or two; None if it does not say."""
        before = datetime.now(UTC)
        response = await self._send("GET", "/version", {}, None, JSON_TYPE, "ask the cluster for the time")
        after = datetime.now(UTC)
        try:
            theirs = parsedate_to_datetime(response.headers["Date"])
        except (KeyError, ValueError):
            return None
        return before + (after - before) / 2 - theirs

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Manifest:
        """Return the object.

        Raises:
            KubernetesError: status 404 when it is not there.
        """
        doing = f"read {resource.title(namespace, name)}"
        return await self.request("GET", resource.path(namespace, name), doing=doing)

    async def find(self, resource: Resource, namespace: str | None, name: str) -> Manifest | None:
        """Return the object, None when it is not there."""
        try:
            return await self.get(resource, namespace, name)
        except KubernetesError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        page: int = 500,
        keep: Callable[[Manifest], Manifest] | None = None,
        not_older_than: str = "",
    ) -> Listing:
        """Return the objects that match the selectors, read in pages; `keep` says what of each is worth its memory.

        `not_older_than`: the resource version of an object of the same kind. With it the server answers from its cache, in one
        page, which is several times faster among a thousand others, and may leave out what is newer than that (Kubernetes API
        concepts, "Resource versions", `NotOlderThan`).

        Raises:
            KubernetesError: also with status 410 when the list changed too much between its pages; ask again then.
        """
        items: list[Manifest] = []
        query = _selectors(labels, fields)
        if not_older_than:
            query |= {"resourceVersion": not_older_than, "resourceVersionMatch": "NotOlderThan"}
        else:
            query["limit"] = str(page)
        while True:
            doing = f"list {resource.title(namespace, None)}"
            answer = await self.request("GET", resource.path(namespace), query=query, doing=doing)
            found = answer.get("items") or ()
            items += found if keep is None else map(keep, found)
            token = (answer.get("metadata") or {}).get("continue")
            if not token:
                return Listing(items=tuple(items), resource_version=resource_version_of(answer))
            query["continue"] = str(token)

    async def create(self, resource: Resource, namespace: str | None, manifest: Manifest) -> Manifest:
        """Create the object and return it as stored.

        Raises:
            KubernetesError: status 409 when one of that name is there.
        """
        name = str((manifest.get("metadata") or {}).get("name", ""))
        doing = f"create {resource.title(namespace, name)}"
        return await self.request("POST", resource.path(namespace), body=manifest, doing=doing)

    async def replace(self, resource: Resource, namespace: str | None, manifest: Manifest) -> Manifest:
        """Replace the object; with a `resourceVersion` in it only if nobody changed it since.

        Raises:
            KubernetesError: status 409 when somebody did.
        """
        name = str(manifest["metadata"]["name"])
        doing = f"replace {resource.title(namespace, name)}"
        return await self.request("PUT", resource.path(namespace, name), body=manifest, doing=doing)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        patch: object,
        kind: PatchType = PatchType.MERGE,
        *,
        subresource: str | None = None,
    ) -> Manifest:
        """Change the object and return it as stored."""
        doing = f"change {resource.title(namespace, name)}"
        path = resource.path(namespace, name, subresource)
        return await self.request("PATCH", path, body=patch, content_type=kind, doing=doing)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        propagation: Propagation = Propagation.BACKGROUND,
        uid: str = "",
    ) -> bool:
        """Delete the object, with `uid` only if it is still that one; return whether it was there."""
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            doing = f"delete {resource.title(namespace, name)}"
            await self.request("DELETE", resource.path(namespace, name), body=body, doing=doing)
        except KubernetesError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def logs(self, namespace: str, pod: str, container: str, *, tail_lines: int, previous: bool = False) -> str:
        """Return the last lines that a container printed, or that the one before its last restart did."""
        query = {"container": container, "tailLines": str(tail_lines), "previous": "true" if previous else "false"}
        doing = f"read the log of container '{container}' of pod {namespace}/{pod}"
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        response = await self._send("GET", path, query, None, JSON_TYPE, doing)
        return response.text

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON_TYPE,
        doing: str,
    ) -> Manifest:
        """Send one request and return its answer; `doing` says in a message what was attempted.

        Raises:
            KubernetesError: the server refused, failed, or cannot be reached (status 0).
        """
        response = await self._send(method, path, query or {}, body, content_type, doing)
        try:
            answer = msgspec.json.decode(response.content)  # a page of a long list is some megabytes
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise self._failure(doing, "it did not answer in JSON", response.status_code) from error
        if not isinstance(answer, Mapping):
            raise self._failure(doing, "its answer is no JSON object", response.status_code)
        return answer

    async def stream_lines(
        self,
        path: str,
        query: Mapping[str, str],
        send: trio.MemorySendChannel[str | KubernetesError],
        *,
        quiet_seconds: float,
        doing: str,
    ) -> None:
        """Send a GET whose answer goes on, and pass its lines on; what ended it before its end comes last, as an error.

        The channel must be unbounded. Thus this task only ever waits inside httpx, and cancelling it unwinds the generators
        there; leaving them in any other way leaves them to the garbage collector.
        """
        timeout = httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS, read=quiet_seconds)
        with send, self._whole_handshakes() as extensions:
            try:
                async with self._http.stream(
                    "GET", path, params=query, timeout=timeout, extensions=extensions
                ) as response:
                    if response.status_code >= 400:
                        await response.aread()
                        send.send_nowait(self._refused(doing, response))
                    else:
                        async for line in response.aiter_lines():
                            send.send_nowait(line)
            except httpx.HTTPError as error:
                send.send_nowait(self._unreachable(doing, error))

    @contextmanager
    def _whole_handshakes(self) -> Iterator[dict[str, Any]]:
        """Give the extensions for a request in the block, and let cancellation wait while it connects.

        The HTTP client loses the socket of a TLS handshake that is cancelled; connecting has a timeout of its own.
        """
        with trio.CancelScope() as scope:

            async def trace(event: str, _info: object) -> None:
                if event in CONNECTING:
                    scope.shield = True
                elif event in CONNECTED:
                    scope.shield = False

            yield {**self._extensions, "trace": trace}

    async def _send(
        self, method: str, path: str, query: Mapping[str, str], body: object, content_type: str, doing: str
    ) -> httpx.Response:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Accept": JSON_TYPE} | ({} if content is None else {"Content-Type": content_type})
        for attempt in range(1, MAX_ATTEMPTS + 1):
            may_retry = attempt < MAX_ATTEMPTS
            try:
                with self._whole_handshakes() as extensions:
                    response = await self._http.request(
                        method, path, params=query, content=content, headers=headers, extensions=extensions
                    )
            except httpx.ConnectError as error:  # nothing was sent, but nobody is there either: one more try
                if attempt > 1:
                    raise self._unreachable(doing, error) from error
                await trio.sleep(0.2)
            except httpx.HTTPError as error:
                if method != "GET" or not may_retry:  # only reading is safe to repeat blindly
                    raise self._unreachable(doing, error) from error
                await trio.sleep(0.2 * attempt)
            else:
                pause = _retry_after(response)
                if response.status_code < 400:
                    return response
                if response.status_code not in BUSY or pause is None or not may_retry:
                    raise self._refused(doing, response)
                await trio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _refused(self, doing: str, response: httpx.Response) -> KubernetesError:
        """Turn a `Status` answer into the error that names what to do."""
        try:
            status = response.json()
        except ValueError:
            status = {}
        if not isinstance(status, Mapping):
            status = {}
        reason = str(status.get("reason") or "")
        said = clip(str(status.get("message") or response.text or f"HTTP status {response.status_code}"))
        return self._failure(doing, said, response.status_code, reason)

    def _failure(self, doing: str, why: str, status: int, reason: str = "") -> KubernetesError:
        hint = _HINTS.get(status, "'kubectl get events' may tell more" if status >= 500 else "")
        return KubernetesError(f"cannot {doing}: {why}", status=status, reason=reason, hint=hint)

    def _unreachable(self, doing: str, error: httpx.HTTPError) -> KubernetesError:
        why = _why(error)
        return KubernetesError(
            f"cannot {doing}: no answer from the API server {self.access.server} ({why})",
            hint=f"check that the cluster runs and that {self.access.source or 'the kubeconfig'} names the right one",
        )


_HINTS: Final[Mapping[int, str]] = {
    401: "log in to the cluster again: the credentials are not accepted",
    403: "ask the cluster's administrator for the permission, or use another --context",
}


def _selectors(labels: str, fields: str) -> dict[str, str]:
    query = {"labelSelector": labels, "fieldSelector": fields}
    return {key: value for key, value in query.items() if value}


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of a Retry-After header, cut to what a person waits for; None where there is none."""
    try:
        return min(max(float(response.headers["Retry-After"]), 0.0), MAX_RETRY_AFTER_SECONDS)
    except (KeyError, ValueError):
        return None


def _why(error: BaseException) -> str:
    """Return the deepest cause that has words: the outer layers of the HTTP client often have none."""
    words = type(error).__name__
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {clip(seen.verify_message)}"
        if str(seen) and not isinstance(seen, BaseExceptionGroup):
            words = clip(str(seen))
        seen = seen.__cause__ or seen.__context__
    return words


@asynccontextmanager
async def open_client(access: ClusterAccess, *, request_seconds: float = REQUEST_SECONDS) -> AsyncIterator[KubeClient]:
    """Log in and give a client; its connections are closed in the end. Each answer may take `request_seconds`.

    Raises:
        ConfigurationError: the credentials, the proxy or the server's address are unusable.
    """
    login = await Login.from_access(access)
    host = urlsplit(access.server).hostname or ""
    is_here = host == "localhost" or host.startswith("127.") or host == "::1"
    try:
        http = httpx.AsyncClient(
            base_url=access.server,
            verify=login.tls,
            auth=login.auth,
            proxy=access.proxy_url,
            trust_env=not is_here,  # as kubectl: a proxy of the environment is not asked for this machine
            timeout=httpx.Timeout(request_seconds, connect=CONNECT_SECONDS),
            headers={"User-Agent": f"vanadium-node/{__version__}"},
        )
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            f"{access.source}: the server or proxy address cannot be used: {clip(str(error))}",
            hint="check the kubeconfig",
        ) from error
    async with http:
        yield KubeClient(http, access)
