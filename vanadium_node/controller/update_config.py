"""Changing the images in the settings file: only their values change, and the file is replaced whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vanadium_node.controller.settings import Settings, parsed, read_document
from vanadium_node.errors import ConfigurationError, InputError, clip
from vanadium_node.storage.files import write_private


def with_image(current: str, wanted: str) -> str:
    """Return the image wanted: a whole reference, or the current one with another tag if `wanted` is just `:TAG`.

    Raises:
        InputError: it is no image reference.
    """
    if not wanted.isprintable() or not wanted.isascii() or any(c.isspace() for c in wanted) or wanted in {"", ":"}:
        raise InputError(f"'{clip(wanted)}' is no image", hint="give NAME:TAG, or :TAG to change only the tag")
    if not wanted.startswith(":"):
        return wanted
    name = current.partition("@")[0]  # a digest would win over the new tag
    head, colon, tail = name.rpartition(":")
    return (head if colon and "/" not in tail else name) + wanted  # a colon before a slash is a registry's port


def update_images(path: Path, *, cluster_agent: str | None, pod_agent: str | None) -> Settings:
    """Rewrite the file with other images and return the new settings.

    Raises:
        ConfigurationError: the file is not in order before the change, or writes an image in a form that cannot be replaced.
        InputError: an image is none.
        StorageError: the file cannot be written; it is unchanged then.
    """
    document = dict(read_document(path))
    settings = Settings.from_document(document, str(path))
    wanted = {
        "clusterAgent": (settings.cluster_agent.image, cluster_agent),
        "podAgent": (settings.pod_agent.image, pod_agent),
    }
    target = path.resolve()  # a link stays a link
    text = target.read_text(encoding="utf-8-sig")
    for section, (current, image) in wanted.items():
        if image is not None:
            new = with_image(current, image)
            document[section] = {**document[section], "image": new}
            text = _with_text_replaced(text, current, new, document, path)
    changed = Settings.from_document(document, str(path))
    write_private(target, text.encode(), mode=target.stat().st_mode & 0o777)
    return changed


def _with_text_replaced(text: str, old: str, new: str, wanted: Mapping[str, Any], path: Path) -> str:
    """Return the text with one of the places of `old` changed to `new`: the one after which it says what is wanted.

    Everything else stays as the user wrote it, comments and order included; each candidate is read back, so that a place in a
    comment or of another key is never taken for the right one.
    """
    place = text.find(old)
    while place >= 0:
        candidate = text[:place] + new + text[place + len(old) :]
        if _says(path, candidate, wanted):
            return candidate
        place = text.find(old, place + 1)
    raise ConfigurationError(
        f"'{path}' does not hold the image '{clip(old)}' as plain text", hint="change the images by hand"
    )


def _says(path: Path, text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return parsed(path, text) == wanted
    except (ValueError, yaml.YAMLError):
        return False
