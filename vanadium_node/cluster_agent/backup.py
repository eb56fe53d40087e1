"""A cluster agent's backup: one private tar of all that it needs to be the same again, made while it runs, and put back.

    contents.json                the names of all that follows, so that half a backup is none
    secrets.db                   the database, as it was at one moment
    permissions.json, principal  who may administer it, its key and its blessings; not there where it was given those elsewhere

The key is in it as it is on the disk. The audit log is not: it is evidence, and is kept by other means.
"""

import io
import json
import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from vanadium_node.claim.ownership import PERMISSIONS_FILE, PRINCIPAL_DIRECTORY
from vanadium_node.cluster_agent.server import DATABASE, LOCK_FILE, RESTORING
from vanadium_node.errors import StorageError, clip
from vanadium_node.security.access import MAX_TEXT_BYTES
from vanadium_node.storage.credentials import KEY_FILE, MAX_STATE_BYTES
from vanadium_node.storage.files import (
    PRIVATE_DIRECTORY,
    PRIVATE_FILE,
    explained,
    held,
    make_private_directory,
    read_limited,
    sync_directory,
    write_private_file,
)
from vanadium_node.storage.sqlite_files import check_database, copy_database

_PART: Final = re.compile(rf"{re.escape(PRINCIPAL_DIRECTORY)}/(?:{re.escape(KEY_FILE)}|state-[0-9a-f]{{32}})")
CONTENTS: Final = "contents.json"
FORMAT: Final = 1
MAX_CONTENTS_BYTES: Final = 1 << 16
_BLOCK: Final = 1 << 20
_WORKSHOP: Final = ".backup-"


def back_up(root_dir: Path, target: Path) -> int:
    """Write a backup of the agent with that directory, and return its size in bytes. The agent may run, and go on.

    Raises:
        StorageError: there is nothing to back up, it is damaged, or the file cannot be written; an old one is untouched then.
    """
    if os.path.lexists(target) and (target.is_symlink() or not target.is_file()):
        raise StorageError(f"'{target}' is no file", hint="name one, or '-' for standard output")
    with write_private_file(target) as file:
        _pack(root_dir, target.parent, file)
        return file.tell()


def back_up_to(root_dir: Path, stream: IO[bytes]) -> None:
    """Write a backup to a stream, such as standard output.

    Raises:
        StorageError: there is nothing to back up, or it is damaged; the stream is incomplete then.
    """
    _pack(root_dir, root_dir, stream)


def restore(source: IO[bytes], root_dir: Path) -> list[str]:
    """Put a backup into a directory that holds no agent yet, all or nothing, and return the names of what was in it.

    Where the process dies in it, no agent starts there before the same is done again.

    Raises:
        StorageError: an agent runs there or has been there, the backup is none or damaged, or the directory cannot be written.
    """
    make_private_directory(root_dir)
    with held(root_dir / LOCK_FILE, f"the directory '{root_dir}'"):
        marker = root_dir / RESTORING
        with explained("look into", root_dir):
            if not marker.exists():
                _require_no_agent(root_dir)
            for leftover in root_dir.glob(f"{_WORKSHOP}*"):  # nobody makes a backup of what is not there
                shutil.rmtree(leftover, ignore_errors=True)
        with _workshop(root_dir) as folder:
            names = _unpack(source, folder)
            check_database(folder / DATABASE)
            with explained("restore into", root_dir):
                _put_in_place(folder, root_dir, marker)
    return names


def _require_no_agent(root_dir: Path) -> None:
    """Refuse a directory with anything of an agent; the log of another database would be taken for this one's."""
    for name in (DATABASE, f"{DATABASE}-wal", PERMISSIONS_FILE, PRINCIPAL_DIRECTORY):
        if (root_dir / name).exists():
            raise StorageError(
                f"'{root_dir}' holds '{name}' already", hint="move what is there to another place, and try again"
            )


def _put_in_place(folder: Path, root_dir: Path, marker: Path) -> None:
    """Move what is in a folder into the agent's directory, in place of what an attempt that was cut short left there."""
    marker.touch(PRIVATE_FILE)
    sync_directory(root_dir)
    for path in sorted(folder.iterdir()):
        there = root_dir / path.name
        if there.is_dir():
            shutil.rmtree(there)
        path.rename(there)
    folder.rmdir()
    sync_directory(root_dir)
    marker.unlink()
    sync_directory(root_dir)


def _pack(root_dir: Path, place: Path, stream: IO[bytes]) -> None:
    if not (root_dir / DATABASE).exists():
        raise StorageError(
            f"there is no cluster agent's database in '{root_dir}'", hint="name its directory with --root-dir"
        )
    with _workshop(place) as folder:
        copy_database(root_dir / DATABASE, folder / DATABASE)
        with explained("write the backup of", root_dir), tarfile.open(fileobj=stream, mode="w|") as archive:
            parts = dict(_ownership(root_dir))
            contents = json.dumps({"format": FORMAT, "parts": [DATABASE, *parts]}).encode()
            _add(archive, CONTENTS, io.BytesIO(contents), len(contents))
            with (folder / DATABASE).open("rb") as database:
                _add(archive, DATABASE, database, (folder / DATABASE).stat().st_size)
            for name, data in parts.items():
                _add(archive, name, io.BytesIO(data), len(data))


def _ownership(root_dir: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the principal, then the permissions: a claim that is made meanwhile wrote those before."""
    principal = root_dir / PRINCIPAL_DIRECTORY
    if (principal / KEY_FILE).exists():
        for path in [principal / KEY_FILE, *sorted(principal.glob("state-*"))]:
            yield f"{PRINCIPAL_DIRECTORY}/{path.name}", read_limited(path, max_bytes=MAX_STATE_BYTES)
    if (root_dir / PERMISSIONS_FILE).exists():
        yield PERMISSIONS_FILE, read_limited(root_dir / PERMISSIONS_FILE, max_bytes=MAX_TEXT_BYTES)


def _add(archive: tarfile.TarFile, name: str, content: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, PRIVATE_FILE
    archive.addfile(entry, content)


def _unpack(source: IO[bytes], folder: Path) -> list[str]:
    """Write the parts of a backup into a folder. Nothing but the parts is taken, whatever names an archive holds."""
    expected: list[str] = []
    names: list[str] = []
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for entry in archive:
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is None:
                    raise _no_backup(f"'{clip(entry.name, 80)}' is no file")
                if not expected:
                    expected = _contents(entry, content)
                elif entry.name in expected and entry.name not in names:
                    names.append(entry.name)
                    _write(folder / entry.name, content.read)
                else:
                    raise _no_backup(f"'{clip(entry.name, 80)}' is no part of one")
    except (tarfile.TarError, EOFError) as error:
        raise _no_backup(str(error)) from error
    if DATABASE not in names or names != expected:
        raise _no_backup(f"{', '.join(set(expected) - set(names)) or 'all'} is missing")
    return names


def _contents(entry: tarfile.TarInfo, content: IO[bytes]) -> list[str]:
    """Return the names of the parts that a backup says it has."""
    if entry.name != CONTENTS:
        raise _no_backup("it does not begin with its contents")
    try:
        value = json.loads(content.read(MAX_CONTENTS_BYTES))
    except (ValueError, RecursionError) as error:
        raise _no_backup("its contents cannot be read") from error
    match value:
        case {"format": 1, "parts": [*parts]} if all(isinstance(each, str) and _is_part(each) for each in parts):
            return parts
        case _:
            raise _no_backup("its contents are not what this version of the program writes")


def _is_part(name: str) -> bool:
    return name in {DATABASE, PERMISSIONS_FILE} or _PART.fullmatch(name) is not None


def _no_backup(why: str) -> StorageError:
    return StorageError(
        f"this is no backup of a cluster agent, or not all of one: {why}", hint="give what 'cluster-agent backup' wrote"
    )


def _write(path: Path, read: Callable[[int], bytes]) -> None:
    with explained("write", path):
        path.parent.mkdir(mode=PRIVATE_DIRECTORY, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
        with os.fdopen(descriptor, "wb") as file:
            while block := read(_BLOCK):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)


@contextmanager
def _workshop(place: Path) -> Iterator[Path]:
    """Make a private folder that is gone afterwards."""
    folder = place / f"{_WORKSHOP}{secrets.token_hex(4)}"
    with explained("make the directory", folder):
        folder.mkdir(mode=PRIVATE_DIRECTORY)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
