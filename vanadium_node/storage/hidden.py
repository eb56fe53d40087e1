"""The other name of a pod agent's socket, under which it is found while there is no identity behind it."""

from pathlib import Path


def hidden_path(path: Path) -> Path:
    """Return another path for a socket in the same directory, no longer than its own, always the same one."""
    first = "~" if not path.name.startswith("~") else "-"
    return path.parent / (first + path.name[:-1])
