"""Files that change together: readers see all the old ones or all the new ones, as in a volume made of a Secret.

place/..data → ..3        place/key → ..data/key        place/..3/key
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

OWNER_ONLY: Final = 0o700
"""Nobody else shares this machine's files with a pod, so of a file's mode only the owner's part is kept."""

_CURRENT: Final = "..data"


@dataclass(frozen=True, slots=True)
class File:
    """A file's content and mode."""

    content: bytes
    mode: int


def write_together(place: Path, files: Mapping[str, File]) -> None:
    """Make `place` hold exactly these files (by relative path); nothing is touched when it does already.

    Parts of paths that would lead out of `place` are dropped.
    """
    files = {_inside(name): file for name, file in files.items()}
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    current = place / _CURRENT
    if current.exists() and _content(current) == {name: file.content for name, file in files.items()}:
        return
    number = int(current.readlink().name[2:]) + 1 if current.is_symlink() else 1
    fresh = place / f"..{number}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    for name, file in files.items():
        _write(fresh / name, file)
    _link(current, fresh.name)
    _show(place, {PurePosixPath(name).parts[0] for name in files})
    for old in place.glob("..[0-9]*"):
        if old != fresh:
            shutil.rmtree(old, ignore_errors=True)


def _write(path: Path, file: File) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(file.content)
    path.chmod((file.mode & OWNER_ONLY) | 0o400)


def _inside(name: str) -> str:
    return "/".join(part for part in PurePosixPath(name).parts if part not in ("/", ".."))


def _link(link: Path, target: str) -> None:
    temporary = link.with_name(f"{link.name}_new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _show(place: Path, names: set[str]) -> None:
    """Keep one link for each name at the top, and no other."""
    for entry in place.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    for name in names:
        if not (place / name).is_symlink():
            _link(place / name, f"{_CURRENT}/{name}")


def _content(directory: Path) -> dict[str, bytes]:
    root = directory.resolve()
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
