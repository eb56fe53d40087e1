"""Secrets from an encrypted archive: a real gpg in a home of its own, and an API server."""

import base64
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from stand_ins import program

from vanadium_node.controller.secret_files import create_all, decrypted, filled_in, secrets_of
from vanadium_node.controller.site import Site
from vanadium_node.errors import ConfigurationError, InputError, KubernetesError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import SECRET, name_of

PASSWORD = b"open sesame \xff"


def tar(files: Mapping[str, bytes]) -> bytes:
    """Return an archive; a name that ends in `/` is a folder, one with `->` a link."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            path, arrow, target = name.partition("->")
            member = tarfile.TarInfo(path.rstrip("/"))
            member.size = len(content)
            member.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.SYMTYPE if arrow else tarfile.REGTYPE
            member.linkname = target
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture(scope="module")
def gpg_home() -> Iterator[Path]:
    """A key ring with a key that has no passphrase; short, since gpg's agent has a socket there."""
    if shutil.which("gpg") is None:
        pytest.fail("these tests need gpg (Debian package 'gnupg')")
    with tempfile.TemporaryDirectory(prefix="gpg-") as folder:
        home = Path(folder)
        home.chmod(0o700)
        make = ["--passphrase", "", "--quick-generate-key", "operator@example.org", "default", "default", "never"]
        run_gpg(home, *make)
        yield home
        subprocess.run(["gpgconf", "--kill", "all"], env={**os.environ, "GNUPGHOME": folder}, check=True)


def run_gpg(home: Path, *arguments: str, data: bytes = b"") -> bytes:
    command = ["gpg", "--homedir", str(home), "--batch", "--pinentry-mode", "loopback", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


@pytest.fixture
def encrypted(gpg_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive that only the key ring of the environment opens."""
    monkeypatch.setenv("GNUPGHOME", str(gpg_home))
    files = {"./db/": b"", "./db/password": PASSWORD, "token": b"t", "link->/etc/passwd": b""}
    path = tmp_path / "secrets.tar.gpg"
    path.write_bytes(run_gpg(gpg_home, "--recipient", "operator@example.org", "--encrypt", data=tar(files)))
    return path


def template(name: str, place: str = '{{base64 "db/password"}}') -> str:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"password": "PLACE"}}
    return json.dumps(secret).replace("PLACE", place)


async def test_what_gpg_decrypts(encrypted: Path) -> None:
    """The regular files of the tar, by their plain paths; links lead nowhere, and nothing is unpacked."""
    assert await decrypted(encrypted, gpg="gpg") == {"db/password": PASSWORD, "token": b"t"}
    assert [path.name for path in encrypted.parent.iterdir()] == [encrypted.name]


async def test_secrets_are_created(encrypted: Path, site: Site, client: KubeClient) -> None:
    """JSON and YAML templates, several in a file, in the namespace of the cluster's context or their own."""
    yaml = encrypted.with_name("b.yaml")
    yaml.write_text(
        'apiVersion: v1\nkind: Secret\nmetadata: {name: b}\ndata: {t: {{ base64 "./token" }}}\n'
        f"---\napiVersion: v1\nkind: Secret\nmetadata: {{name: c, namespace: {client.namespace}}}\n"
    )
    json_file = encrypted.with_name("a.json")
    json_file.write_text(template("a"))
    manifests = secrets_of([str(json_file), str(yaml)], await decrypted(encrypted, gpg="gpg"))
    created = await create_all(site, manifests, None)
    assert created == tuple(f"Secret {client.namespace}/{name}" for name in "abc")
    stored = await client.get(SECRET, client.namespace, "a")
    assert base64.b64decode(stored["data"]["password"]) == PASSWORD
    assert base64.b64decode((await client.get(SECRET, client.namespace, "b"))["data"]["t"]) == b"t"


async def own_secrets(client: KubeClient) -> list[str]:
    listing = await client.list(SECRET, client.namespace)
    return [name_of(s) for s in listing.items if s.get("type") != "kubernetes.io/service-account-token"]


async def test_all_or_none(site: Site, client: KubeClient) -> None:
    """One that is there already, or that the cluster refuses, and nothing is left of the others."""
    good, other = json.loads(template("good", "")), json.loads(template("other", ""))
    await client.create(SECRET, client.namespace, other)
    with pytest.raises(InputError, match=rf"Secret {client.namespace}/other is already there; .*nothing was created"):
        await create_all(site, [good, other], None)
    bad = {**json.loads(template("bad", "")), "data": {"no such key!": ""}}
    with pytest.raises(KubernetesError, match="cannot create Secret"):
        await create_all(site, [good, bad], None)
    assert await own_secrets(client) == ["other"]
    with pytest.raises(ConfigurationError, match=r"says namespace 'x', and --namespace 'y'"):
        await create_all(site, [{**good, "metadata": {"name": "good", "namespace": "x"}}], "y")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            template("a", '{{base64 "db/user"}}'),
            "wants the file 'db/user', which is not in the archive; it holds db/password",
        ),
        (template("a", "{{hex 1}}"), "line 1: '{{hex 1}}' is no place for a file"),
        (template("a", "{{base64 db/password}}"), "is no place for a file"),
        (template("a", "{{base64"), "is no place for a file"),
        ('{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}', "holds a Pod, not a Secret (v1)"),
        (template("a") + "\n---\n" + template("a"), "2 Secrets are called 'a'"),
        ("{}", "without 'kind'"),
        ("", "holds no manifest"),
    ],
)
def test_templates_that_are_none(tmp_path: Path, text: str, says: str) -> None:
    """Named with the file and what is there instead; never with what a Secret holds."""
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        secrets_of([str(path)], {"db/password": PASSWORD})
    assert str(path) in str(caught.value) or "called" in says
    assert says in str(caught.value)
    assert base64.b64encode(PASSWORD).decode() not in str(caught.value)


def test_places_are_filled_in_once() -> None:
    """What a file holds is data: it is not looked at for places."""
    assert filled_in('{{base64 "a"}} {{base64 "a"}}', {"a": b'{{base64 "b"}}'}, "t").count("e3tiYXNl") == 2


@pytest.mark.parametrize("archive", [b"", b"no tar at all", tar({"a": b"x" * 2000})[:60]])
async def test_archives_that_are_none(tmp_path: Path, archive: bytes) -> None:
    """gpg succeeds, and gives something else."""
    (tmp_path / "content").write_bytes(archive)
    gpg = program(tmp_path, "gpg", f"sys.stdout.buffer.write(open({str(tmp_path / 'content')!r}, 'rb').read())")
    (tmp_path / "x.gpg").touch()
    if archive:
        with pytest.raises(InputError, match="decrypts to something that is no tar archive"):
            await decrypted(tmp_path / "x.gpg", gpg=gpg)
    else:
        with pytest.raises(InputError):
            await decrypted(tmp_path / "x.gpg", gpg=gpg)


async def test_what_gpg_refuses(encrypted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gpg's own words, in one line, and what to check."""
    other = tmp_path / "home"
    other.mkdir(0o700)
    monkeypatch.setenv("GNUPGHOME", str(other))
    with pytest.raises(ConfigurationError) as caught:
        await decrypted(encrypted, gpg="gpg")
    assert str(caught.value).startswith(f"cannot decrypt '{encrypted}': 'gpg' ended with status 2: ")
    assert "gpg --list-secret-keys" in str(caught.value)
    with pytest.raises(ConfigurationError, match="install GnuPG"):
        await decrypted(encrypted, gpg="/no/gpg")
    with pytest.raises(InputError, match="there is no file"):
        await decrypted(tmp_path / "none", gpg="gpg")
