"""Kubernetes Secrets from an encrypted archive: templates name its files, and what they hold is never on a disk.

The archive is a tar, encrypted with gpg; `{{base64 "path"}}` in a template stands for a file of it. All templates are filled in and
checked before the first Secret is created, and what was created is deleted when a later one fails.
"""

import base64
import io
import posixpath
import re
import secrets
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from vanadium_node.controller.changing import delete_own
from vanadium_node.controller.marks import marked
from vanadium_node.controller.programs import output_of
from vanadium_node.controller.site import Site
from vanadium_node.controller.undo import undone_on_failure
from vanadium_node.errors import ConfigurationError, InputError, clip
from vanadium_node.kube.manifest import parse_manifests, read_text
from vanadium_node.kube.resources import SECRET, Manifest, name_of

MAX_ARCHIVE_BYTES: Final = 64 * 1024 * 1024
PLACE: Final = re.compile(r'\{\{\s*base64\s+"(?P<path>[^"\n]*)"\s*\}\}')
ANY_PLACE: Final = re.compile(r"\{\{[^\n]*?(\}\}|$)", re.MULTILINE)


async def decrypted(path: Path, *, gpg: str) -> Mapping[str, bytes]:
    """Return the files of an encrypted tar, by their paths in it. gpg asks for a passphrase itself where it needs one.

    Raises:
        ConfigurationError: gpg is not there, or cannot decrypt it.
        InputError: there is no such file, or what it holds is no tar.
    """
    file = await trio.Path(path).absolute()
    if not await file.is_file():
        raise InputError(f"there is no file '{path}'", hint="check --secrets")
    archive = await output_of(
        [gpg, "--quiet", "--decrypt", "--", str(file)],
        doing=f"decrypt '{path}'",
        install="install GnuPG from gnupg.org or your distribution, or name it with --gpg",
        hint="check that it was encrypted for a key of yours ('gpg --list-secret-keys')",
        max_bytes=MAX_ARCHIVE_BYTES,
    )
    return _files(bytes(archive), path)


def _files(archive: bytes, path: Path) -> Mapping[str, bytes]:
    """Read a tar in memory: nothing is unpacked, so its paths and links lead nowhere."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:*") as tar:
            size = 0
            for member in tar:
                size += member.size
                if size > MAX_ARCHIVE_BYTES:
                    raise InputError(
                        f"'{path}' holds more than {MAX_ARCHIVE_BYTES} bytes", hint="a Secret holds 1 MiB at most"
                    )
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    files[posixpath.normpath(member.name)] = content.read()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise InputError(
            f"'{path}' decrypts to something that is no tar archive", hint="make it with 'tar -c FILES | gpg -e'"
        ) from error
    return files


def filled_in(text: str, files: Mapping[str, bytes], source: str) -> str:
    """Return a template with the files' contents, in base64, in their places.

    Raises:
        InputError: it names a file that is not in the archive, or has a place of another form.
    """

    def content(place: re.Match[str]) -> str:
        wanted = posixpath.normpath(place["path"])
        if wanted not in files:
            there = ", ".join(sorted(files)) or "nothing"
            raise InputError(
                f"'{source}' wants the file '{clip(place['path'])}', which is not in the archive",
                hint=f"it holds {clip(there)}",
            )
        return base64.b64encode(files[wanted]).decode()

    other = next((found for found in ANY_PLACE.finditer(text) if not PLACE.fullmatch(found[0])), None)
    if other is not None:
        line = text.count("\n", 0, other.start()) + 1
        raise InputError(
            f"'{source}', line {line}: '{clip(other[0], 60)}' is no place for a file", hint='write {{base64 "path"}}'
        )
    return PLACE.sub(content, text)


def secrets_of(templates: Sequence[str], files: Mapping[str, bytes]) -> tuple[Manifest, ...]:
    """Return the Secrets of the template files (`-` is standard input).

    Raises:
        InputError: a template cannot be filled in, or holds something other than Secrets; or two have one name.
    """
    found: list[Manifest] = []
    for path in templates:
        source = "standard input" if path == "-" else path
        for manifest in parse_manifests(filled_in(read_text(path), files, source), f"'{source}'"):
            if manifest["kind"] != "Secret" or manifest.get("apiVersion") != "v1":
                raise InputError(
                    f"'{source}' holds a {clip(str(manifest['kind']))}, not a Secret (v1)",
                    hint="create other objects with 'kubectl create'",
                )
            found.append(manifest)
    counts = Counter((m["metadata"].get("namespace"), name_of(m)) for m in found)
    (_, name), count = counts.most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} Secrets are called '{clip(name)}'", hint="give each a name of its own")
    return tuple(found)


async def create_all(site: Site, manifests: Sequence[Manifest], given_namespace: str | None) -> tuple[str, ...]:
    """Create the Secrets, all or none, and return what messages call them.

    Raises:
        InputError: one is there already.
        KubernetesError: the cluster refused one.
        ConfigurationError: a Secret's own namespace is not the one given.
    """
    client = site.client
    placed = [(_namespace_of(manifest, given_namespace, client.namespace), manifest) for manifest in manifests]
    for namespace, manifest in placed:
        if await client.find(SECRET, namespace, name_of(manifest)) is not None:
            raise InputError(
                f"{SECRET.title(namespace, name_of(manifest))} is already there",
                hint="delete it first; nothing was created",
            )
    operation = secrets.token_hex(16)
    async with undone_on_failure(site.warn) as undo:
        for namespace, manifest in placed:
            name = name_of(manifest)
            undo.push(
                f"delete {SECRET.title(namespace, name)}",
                partial(delete_own, client, SECRET, namespace, name, operation),
            )
            await client.create(SECRET, namespace, marked(manifest, operation))
    return tuple(SECRET.title(namespace, name_of(manifest)) for namespace, manifest in placed)


def _namespace_of(manifest: Manifest, given: str | None, usual: str) -> str:
    own = manifest["metadata"].get("namespace")
    if own and given and own != given:
        raise ConfigurationError(
            f"Secret '{clip(name_of(manifest))}' says namespace '{clip(str(own))}', and --namespace '{given}'",
            hint="leave one out",
        )
    return str(own or given or usual)
