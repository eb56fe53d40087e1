"""Changing the images in the settings file: only their values change, and the file is replaced whole or not at all."""

import json
from pathlib import Path

from vanadium_node.controller.settings import Settings, read_document
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
        ConfigurationError: the file is not in order before the change, or not in JSON.
        InputError: an image is none.
        StorageError: the file cannot be written; it is unchanged then.
    """
    document = dict(read_document(path))
    settings = Settings.from_document(document, str(path))
    if path.suffix in {".yaml", ".yml", ".toml"}:
        raise ConfigurationError(
            f"'{path}' is not JSON, and rewriting it would lose its comments", hint="change the images by hand"
        )
    wanted = {
        "clusterAgent": (settings.cluster_agent.image, cluster_agent),
        "podAgent": (settings.pod_agent.image, pod_agent),
    }
    for section, (current, image) in wanted.items():
        if image is not None:
            document[section] = {**document[section], "image": with_image(current, image)}
    changed = Settings.from_document(document, str(path))
    target = path.resolve()  # a link stays a link
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_private(target, text.encode(), mode=target.stat().st_mode & 0o777)
    return changed
