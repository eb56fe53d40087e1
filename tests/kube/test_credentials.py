"""Login: exec plugins run as kubectl runs them, client certificates, and nothing secret in messages."""

import json
import stat
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from scripted_api import Exchange, scripted_api

from vanadium_node.errors import ConfigurationError
from vanadium_node.kube.client import open_client
from vanadium_node.kube.credentials import Login, parse_exec_credential, run_plugin
from vanadium_node.kube.kubeconfig import ClusterAccess, ExecPlugin, User

VERSION = "client.authentication.k8s.io/v1"
ACCESS = ClusterAccess(server="https://api.example.org", source="the kubeconfig")


def program(folder: Path, body: str) -> str:
    """Write a login program in Python and return its path."""
    path = folder / "login"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def plugin(command: str, **changes: Any) -> ExecPlugin:
    return ExecPlugin(**{"api_version": VERSION, "command": command, **changes})


def printing(**status: Any) -> str:
    """A program that prints a credential."""
    return f"print({json.dumps({'kind': 'ExecCredential', 'status': status})!r})"


async def test_what_a_plugin_is_told_and_what_it_prints(tmp_path: Path) -> None:
    """Arguments, environment, and the cluster where it asks for it."""
    body = (
        "info = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        "token = '|'.join([sys.argv[1], os.environ['WHO'], info['spec']['cluster']['server'], info['apiVersion']])\n"
        "print(json.dumps({'status': {'token': token, 'expirationTimestamp': '2030-01-01T00:00:00Z'}}))"
    )
    given = plugin(program(tmp_path, body), args=("a",), env=(("WHO", "me"),), provide_cluster_info=True)
    credential = await run_plugin(given, ACCESS)
    assert credential.token == f"a|me|https://api.example.org|{VERSION}"
    assert credential.expires == datetime(2030, 1, 1, tzinfo=UTC)
    assert "a|me" not in repr(credential)


async def test_a_plugin_runs_again_when_its_token_ends_or_is_refused(tmp_path: Path) -> None:
    """Expired: before the request. Refused: once more, with a new one."""
    counter = tmp_path / "count"
    counter.write_text("0")
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    body = (
        f"n = int(open({str(counter)!r}).read()) + 1\nopen({str(counter)!r}, 'w').write(str(n))\n"
        f"print(json.dumps({{'status': {{'token': 't' + str(n), 'expirationTimestamp': {past!r} if n == 1 else None}}}}))"
    )
    seen: list[str] = []

    def answer(status: int) -> Any:
        async def handler(exchange: Exchange) -> None:
            seen.append(exchange.headers["authorization"])
            await exchange.answer(status, {"kind": "Status"})

        return handler

    user = User(plugin=plugin(program(tmp_path, body)))
    async with (
        scripted_api([answer(200), answer(401), answer(200)]) as api,
        open_client(ClusterAccess(server=api.url, user=user)) as client,
    ):
        await client.request("GET", "/one", doing="ask")
        await client.request("GET", "/two", doing="ask")
    assert seen == ["Bearer t2", "Bearer t2", "Bearer t3"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("sys.exit('please log in')", "failed with exit status 1: please log in"),
        ("print('hello')", "printed no usable ExecCredential"),
        ("print('[]')", "printed no usable ExecCredential"),
        (printing(), "printed no usable ExecCredential"),
        (printing(token=3), "printed no usable ExecCredential"),
        (printing(clientCertificateData="x"), "printed no usable ExecCredential"),
        (printing(token="t", expirationTimestamp="tomorrow"), "printed no usable ExecCredential"),
    ],
)
async def test_plugins_that_fail(tmp_path: Path, body: str, says: str) -> None:
    """The sentence names the program and the kubeconfig."""
    with pytest.raises(ConfigurationError) as caught:
        await run_plugin(plugin(program(tmp_path, body)), ACCESS)
    assert says in str(caught.value)
    assert "login' of the kubeconfig" in str(caught.value)


async def test_plugins_that_cannot_run(tmp_path: Path) -> None:
    """Missing: the kubeconfig's own advice. Not executable, or of a version that is gone: what to do."""
    with pytest.raises(ConfigurationError, match=r"is not installed; get it from example\.org"):
        await run_plugin(plugin("no-such-login-program", install_hint="get it from example.org"), ACCESS)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be run"):
        await run_plugin(plugin(str(tmp_path / "file")), ACCESS)
    with pytest.raises(ConfigurationError, match="v1alpha1"):
        await run_plugin(plugin("x", api_version="client.authentication.k8s.io/v1alpha1"), ACCESS)


def test_a_time_without_a_zone_is_utc() -> None:
    """Some programs leave the zone out."""
    document: Mapping[str, Any] = {"status": {"token": "t", "expirationTimestamp": "2030-01-01T00:00:00"}}
    assert parse_exec_credential(json.dumps(document).encode(), "it").expires == datetime(2030, 1, 1, tzinfo=UTC)


async def test_unusable_certificates() -> None:
    """A CA or client certificate that is none is the kubeconfig's fault."""
    with pytest.raises(ConfigurationError, match="certificate authority"):
        await Login.from_access(ClusterAccess(server="https://x", ca=b"nonsense", source="c"))
    user = User(client_certificate=b"nonsense", client_key=b"nonsense")
    with pytest.raises(ConfigurationError, match="client certificate or key"):
        await Login.from_access(ClusterAccess(server="https://x", user=user, source="c"))
