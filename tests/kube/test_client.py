"""The API client: requests, refusals, repeats. On a real socket with a scripted server, and on a real API server."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trio
from scripted_api import Exchange, Handler, scripted_api

from vanadium_node.errors import ConfigurationError, KubernetesError
from vanadium_node.kube.client import KubeClient, PatchType, ServerVersion, open_client
from vanadium_node.kube.kubeconfig import ClusterAccess, User
from vanadium_node.kube.resources import DEPLOYMENT, NAMESPACE, POD, SECRET, name_of, uid_of


def answering(status: int, document: object = None, **headers: str) -> Handler:
    """Answer one request with that."""

    async def handler(exchange: Exchange) -> None:
        await exchange.answer(status, document if document is not None else {"kind": "Answer"}, **headers)

    return handler


async def hang_up(exchange: Exchange) -> None:
    """Close the connection without a word."""
    await exchange.stream.aclose()


def status(code: int, reason: str, message: str) -> dict[str, Any]:
    """A `Status`, as the API sends it with a refusal."""
    return {"kind": "Status", "code": code, "reason": reason, "message": message}


async def test_a_refusal_becomes_one_sentence() -> None:
    """What was attempted, on what, the server's words, the reason for machines, and a next step."""
    async with (
        scripted_api([answering(403, status(403, "Forbidden", "no way"))]) as api,
        open_client(ClusterAccess(server=api.url)) as client,
    ):
        with pytest.raises(KubernetesError) as caught:
            await client.get(SECRET, "shop", "key")
    assert str(caught.value).startswith("cannot read Secret shop/key: no way; ")
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")
    assert caught.value.hint


async def test_what_is_not_there_is_none() -> None:
    """`find` and `delete` answer instead of failing."""
    missing = answering(404, status(404, "NotFound", "no such thing"))
    async with scripted_api([missing, missing]) as api, open_client(ClusterAccess(server=api.url)) as client:
        assert await client.find(SECRET, "shop", "key") is None
        assert await client.delete(SECRET, "shop", "key") is False


async def test_busy_servers_are_asked_again_when_they_say_when(autojump_clock: trio.testing.MockClock) -> None:
    """429 and 503 with Retry-After say that nothing was begun, so even a POST may be repeated; not without it."""
    handlers = [answering(429, retry_after="1"), answering(503, retry_after="2"), answering(201), answering(503)]
    async with scripted_api(handlers) as api, open_client(ClusterAccess(server=api.url)) as client:
        assert await client.create(SECRET, "shop", {"metadata": {"name": "key"}}) == {"kind": "Answer"}
        with pytest.raises(KubernetesError) as caught:
            await client.get(SECRET, "shop", "key")
        assert caught.value.status == 503
        assert len(api.seen) == 4


async def test_a_pod_in_a_new_namespace_waits_for_its_service_account(autojump_clock: trio.testing.MockClock) -> None:
    """Until the service account has its token the server says 500, `ServerTimeout`, and when to come back; any other 500 is final."""
    words = 'No API token found for service account "default", retry after the token is automatically created'
    handlers = [
        answering(500, status(500, "ServerTimeout", words), retry_after="1"),
        answering(201),
        answering(500, status(500, "InternalError", "the database is gone")),
    ]
    async with scripted_api(handlers) as api, open_client(ClusterAccess(server=api.url)) as client:
        assert await client.create(POD, "shop", {"metadata": {"name": "cart"}}) == {"kind": "Answer"}
        with pytest.raises(KubernetesError, match="the database is gone"):
            await client.create(POD, "shop", {"metadata": {"name": "cart"}})
        assert len(api.seen) == 3


async def test_only_reading_is_repeated_after_a_broken_connection() -> None:
    """A POST whose answer was lost may have been done: the caller must look, not repeat it blindly."""
    async with (
        scripted_api([hang_up, answering(200), hang_up]) as api,
        open_client(ClusterAccess(server=api.url)) as client,
    ):
        assert await client.get(SECRET, "shop", "key") == {"kind": "Answer"}
        with pytest.raises(KubernetesError, match="no answer from the API server") as caught:
            await client.create(SECRET, "shop", {"metadata": {"name": "key"}})
        assert caught.value.status == 0
        assert len(api.seen) == 3


async def test_nobody_there() -> None:
    """The sentence names the address and where it comes from."""
    access = ClusterAccess(server="http://127.0.0.1:9", source="/home/me/kubeconfig")
    async with open_client(access) as client:
        with pytest.raises(KubernetesError, match=r"http://127\.0\.0\.1:9.*/home/me/kubeconfig"):
            await client.version()


@pytest.mark.parametrize("document", ["words", [1], None])
async def test_answers_that_are_no_objects(document: object) -> None:
    """A proxy's page or an array is a failure with a sentence, not a crash."""

    async def handler(exchange: Exchange) -> None:
        await exchange.begin(200)
        await exchange.send("<html>" if document is None else json.dumps(document))
        await exchange.end()

    async with scripted_api([handler]) as api, open_client(ClusterAccess(server=api.url)) as client:
        with pytest.raises(KubernetesError, match="answer"):
            await client.get(POD, "shop", "x")


async def test_lists_are_read_in_pages() -> None:
    """The continue token goes back until there is none."""
    pages = [
        answering(200, {"items": [{"n": 1}], "metadata": {"continue": "t&1", "resourceVersion": "7"}}),
        answering(200, {"items": [{"n": 2}], "metadata": {"resourceVersion": "7"}}),
    ]
    async with scripted_api(pages) as api, open_client(ClusterAccess(server=api.url)) as client:
        listing = await client.list(POD, "shop", labels="a in (b,c)")
    assert [item["n"] for item in listing.items] == [1, 2]
    assert listing.resource_version == "7"
    assert "continue=t%261" in api.seen[1]
    assert "labelSelector=a" in api.seen[1]


async def test_a_token_file_is_read_again_after_a_401(tmp_path: Path) -> None:
    """Kubelets renew service account tokens while a program runs."""
    token = tmp_path / "token"
    token.write_text("old\n")
    seen: list[str] = []

    async def refuse(exchange: Exchange) -> None:
        seen.append(exchange.headers["authorization"])
        token.write_text("new\n")
        await exchange.answer(401, status(401, "Unauthorized", "old token"))

    async def accept(exchange: Exchange) -> None:
        seen.append(exchange.headers["authorization"])
        await exchange.answer(200, {})

    async with (
        scripted_api([refuse, accept]) as api,
        open_client(ClusterAccess(server=api.url, user=User(token_file=token))) as client,
    ):
        await client.get(POD, "shop", "x")
    assert seen == ["Bearer old", "Bearer new"]


async def test_a_password() -> None:
    """Basic authentication, for clusters that still have it."""
    seen: list[str] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange.headers["authorization"])
        await exchange.answer(200, {})

    async with (
        scripted_api([handler]) as api,
        open_client(ClusterAccess(server=api.url, user=User(username="u", password="p"))) as client,
    ):
        await client.get(POD, "shop", "x")
    assert seen == ["Basic " + base64.b64encode(b"u:p").decode()]


async def test_unusable_addresses() -> None:
    """A proxy address without a known scheme is the operator's to correct."""
    with pytest.raises(ConfigurationError, match="cannot be used"):
        async with open_client(ClusterAccess(server="http://127.0.0.1:1", proxy_url="nonsense")):
            pass


@pytest.mark.parametrize(
    ("answer", "version", "native"),
    [
        ({"major": "1", "minor": "20", "gitVersion": "v1.20.2"}, (1, 20), False),
        ({"major": "1", "minor": "29+", "gitVersion": "v1.29.1-gke.7"}, (1, 29), True),
        ({"major": "2", "minor": "0"}, (2, 0), True),
    ],
)
def test_versions(answer: dict[str, str], version: tuple[int, int], native: bool) -> None:
    """Providers decorate the minor version; native sidecars are on by default since 1.29."""
    found = ServerVersion.from_answer(answer)
    assert ((found.major, found.minor), found.has_native_sidecars) == (version, native)


def test_no_version() -> None:
    """Something that is no Kubernetes API is said to be none."""
    with pytest.raises(KubernetesError, match="which is none"):
        ServerVersion.from_answer({"hello": "world"})


async def test_the_life_of_an_object(client: KubeClient, deployment: dict[str, Any]) -> None:
    """Create, read, list, replace, conflict, three kinds of patch, delete, on a real API server."""
    space = client.namespace
    created = await client.create(DEPLOYMENT, space, deployment)
    assert (await client.get(DEPLOYMENT, space, "fortuned"))["metadata"]["uid"] == uid_of(created)
    with pytest.raises(KubernetesError) as exists:
        await client.create(DEPLOYMENT, space, deployment)
    assert (exists.value.status, exists.value.reason) == (409, "AlreadyExists")
    listing = await client.list(DEPLOYMENT, space, fields="metadata.name=fortuned")
    assert [name_of(item) for item in listing.items] == ["fortuned"]
    await client.patch(DEPLOYMENT, space, "fortuned", {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(KubernetesError) as conflict:
        await client.replace(DEPLOYMENT, space, created)
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "fortuned", "image": "other:2"}]}}}}
    patched = await client.patch(DEPLOYMENT, space, "fortuned", patch, PatchType.STRATEGIC)
    assert patched["spec"]["template"]["spec"]["containers"][0]["command"] == ["fortuned", "--v23.tcp.address=:2345"]
    operation = [{"op": "remove", "path": "/metadata/labels/a"}]
    patched = await client.patch(DEPLOYMENT, space, "fortuned", operation, PatchType.JSON)
    assert not patched["metadata"].get("labels")
    with pytest.raises(KubernetesError) as wrong:
        await client.delete(DEPLOYMENT, space, "fortuned", uid="00000000-0000-0000-0000-000000000000")
    assert wrong.value.status == 409
    assert await client.delete(DEPLOYMENT, space, "fortuned", uid=uid_of(created))
    assert await client.find(DEPLOYMENT, space, "fortuned") is None


async def test_refusals_of_a_real_server(client: KubeClient, kubeconfig: Path) -> None:
    """An invalid object, an unknown namespace, and a token that is none."""
    with pytest.raises(KubernetesError) as invalid:
        await client.create(
            NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "Not_Valid"}}
        )
    assert (invalid.value.status, invalid.value.reason) == (422, "Invalid")
    with pytest.raises(KubernetesError) as absent:
        await client.create(
            SECRET, "no-such-namespace", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}
        )
    assert absent.value.status == 404
    access = ClusterAccess.from_files([kubeconfig])
    stranger = ClusterAccess(server=access.server, ca=access.ca, user=User(token="wrong"))
    async with open_client(stranger) as other:
        with pytest.raises(KubernetesError, match="log in to the cluster again"):
            await other.list(POD, "default")


async def test_another_authority_is_not_trusted(client: KubeClient) -> None:
    """Without the cluster's CA its certificate is refused, unless the kubeconfig says not to look."""
    server = client.access.server
    async with open_client(ClusterAccess(server=server)) as stranger:
        with pytest.raises(KubernetesError, match="its certificate is not trusted"):
            await stranger.version()
    async with open_client(ClusterAccess(server=server, insecure=True, user=client.access.user)) as careless:
        assert (await careless.version()).major == 1
