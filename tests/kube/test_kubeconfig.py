"""Finding the cluster as kubectl does: files, contexts, service accounts."""

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from vanadium_node.errors import ConfigurationError
from vanadium_node.kube.kubeconfig import ClusterAccess


def config(name: str = "one", **changes: Any) -> dict[str, Any]:
    """A kubeconfig with one of each."""
    return {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}.example.org/"}}],
        "users": [{"name": name, "user": {"token": "token-of-" + name}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "shop"}}],
        **changes,
    }


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_one_file(tmp_path: Path) -> None:
    """Server, namespace and user of the current context; the user's repr shows nothing."""
    access = ClusterAccess.from_files([write(tmp_path / "c", config())])
    assert (access.server, access.namespace, access.context) == ("https://one.example.org", "shop", "one")
    assert access.user.token == "token-of-one"
    assert "token-of-one" not in repr(access)


def test_several_files_are_merged_and_the_first_wins(tmp_path: Path) -> None:
    """As KUBECONFIG=a:b: contexts of both, the current one of the first; missing files are skipped."""
    first = write(tmp_path / "a", config("one"))
    second = write(
        tmp_path / "b", config("two") | {"users": [{"name": n, "user": {"token": n}} for n in ("one", "two")]}
    )
    environ = {"KUBECONFIG": os.pathsep.join([str(tmp_path / "missing"), str(first), str(second)])}
    assert ClusterAccess.discover(environ=environ).user.token == "token-of-one"
    assert ClusterAccess.discover(environ=environ, context="two").user.token == "two"


def test_data_and_files_relative_to_the_config(tmp_path: Path) -> None:
    """Certificates come inline or as files next to the config, wherever the program runs."""
    (tmp_path / "ca.pem").write_text("CA")
    content = config()
    content["clusters"][0]["cluster"] |= {
        "certificate-authority": "ca.pem",
        "tls-server-name": "api",
        "proxy-url": "http://p:1",
        "insecure-skip-tls-verify": True,
    }
    content["users"][0]["user"] = {
        "client-certificate-data": base64.b64encode(b"CERT").decode(),
        "client-key-data": base64.b64encode(b"KEY").decode(),
        "tokenFile": "token",
        "exec": {"apiVersion": "v", "command": "./login", "args": ["a"], "env": [{"name": "N", "value": "V"}]},
    }
    access = ClusterAccess.from_files([write(tmp_path / "c", content)])
    assert (access.ca, access.tls_server_name, access.proxy_url, access.insecure) == (b"CA", "api", "http://p:1", True)
    assert (access.user.client_certificate, access.user.client_key) == (b"CERT", b"KEY")
    assert access.user.token_file == tmp_path / "token"
    assert access.user.plugin is not None
    assert access.user.plugin.command == str(tmp_path / "login")
    assert access.user.plugin.env == (("N", "V"),)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1], "holds no mapping"),
        ({}, "no context is current"),
        (config(contexts=[]), "there is no context 'one'"),
        (config(clusters=[]), "there is no cluster 'one'"),
        (config(users=[]), "there is no user 'one'"),
        (config(clusters=[{"name": "one", "cluster": {}}]), "has no 'server'"),
        (config(clusters=[{"name": "one", "cluster": "x"}]), "must be a list of entries"),
        (config(clusters=["one"]), "must be a list of entries"),
        (config(users=[{"name": "one", "user": {"token": 3}}]), "'token' must be a text"),
        (config(users=[{"name": "one", "user": {"client-key-data": "?"}}]), "is not base64"),
        (config(users=[{"name": "one", "user": {"client-key": "missing"}}]), "cannot read 'client-key'"),
        (config(users=[{"name": "one", "user": {"auth-provider": {"name": "gcp"}}}]), "'auth-provider'"),
        (config(users=[{"name": "one", "user": {"exec": {"apiVersion": "v"}}}]), "no 'command'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: object, says: str) -> None:
    """Each fault of a file is one sentence with the file in it and a next step."""
    path = write(tmp_path / "c", content)
    with pytest.raises(ConfigurationError) as caught:
        ClusterAccess.from_files([path])
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_broken_yaml_and_nothing_at_all(tmp_path: Path) -> None:
    """A file that is no YAML, one that is not there, and no file anywhere."""
    broken = tmp_path / "c"
    broken.write_text("a: [")
    with pytest.raises(ConfigurationError, match="no valid YAML"):
        ClusterAccess.discover(kubeconfig=broken)
    with pytest.raises(ConfigurationError, match="there is no kubeconfig file"):
        ClusterAccess.discover(kubeconfig=tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="--local"):
        ClusterAccess.discover(environ={"HOME": str(tmp_path)}, service_account=tmp_path)


@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1"])
def test_service_account(tmp_path: Path, host: str) -> None:
    """In a pod without a kubeconfig, the mounted account is used, its token by name only."""
    for name, content in {"token": "T", "ca.crt": "CA", "namespace": "shop\n"}.items():
        (tmp_path / name).write_text(content)
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443", "HOME": str(tmp_path)}
    access = ClusterAccess.discover(environ=environ, service_account=tmp_path)
    assert access.server == ("https://10.0.0.1:443" if host == "10.0.0.1" else "https://[fd00::1]:443")
    assert (access.namespace, access.ca, access.user.token_file) == ("shop", b"CA", tmp_path / "token")
