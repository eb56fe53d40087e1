"""Pods, each with a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_parties import blessed, new_root, short_directory
from pods import Giver, Pod


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name."""
    with short_directory() as short:
        yield short


@pytest.fixture
async def pod(folder: Path) -> Pod:
    """A pod with a secret that is good."""
    root = await new_root()
    pod = Pod(folder, root, Giver(await blessed(root, "agent")))
    pod.write_secret("open sesame")
    return pod
