"""Images: nothing is pulled, but names that cannot be right fail as they would with a registry."""

from __future__ import annotations

import re
from typing import Any, Final

ENTRYPOINT: Final = ("vanadium-node",)
"""What a container without a command runs: the entrypoint of the project's image."""

_NAME: Final = re.compile(
    r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*:[0-9a-fA-F]{32,})?"
)


def is_valid_name(image: str) -> bool:
    """Tell whether a text can be the name of an image."""
    return _NAME.fullmatch(image) is not None


def normalized(image: str) -> str:
    """Return an image's name as a status shows it: with a tag."""
    last = image.rpartition("/")[2]
    return image if "@" in image or ":" in last else f"{image}:latest"


def refusal(image: str) -> str | None:
    """Return why an image cannot be had, None for one that can: only hosts that cannot exist (RFC 2606) do not."""
    host = image.partition("/")[0].partition(":")[0]
    if "/" not in image or not (host == "invalid" or host.endswith(".invalid")):
        return None
    name = normalized(image)
    return (
        f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": '
        f"dial tcp: lookup {host}: no such host"
    )


def command_line(container: dict[str, Any]) -> tuple[str, ...]:
    """Return what a container runs, its variables and mount paths not yet replaced."""
    command = tuple(map(str, container.get("command") or ())) or ENTRYPOINT
    return (*command, *map(str, container.get("args") or ()))
