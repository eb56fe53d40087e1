"""Credentials directories with short names, for the agents' sockets."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from agent_parties import clean_environment, run_module, short_directory

from vanadium_node.agent.on_demand import is_served
from vanadium_node.security.keys import PrivateKey
from vanadium_node.storage.credentials import CredentialsDirectory


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with the principal alice; an agent that was started for her ends with it."""
    with short_directory() as folder:
        directory = CredentialsDirectory(folder / "alice")
        trio.run(directory.create, PrivateKey.generate(), "alice")
        yield folder
        if is_served(directory.agent_socket):
            run_module(folder, ["agent", "stop", "alice"], clean_environment())


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of alice's programs."""
    return clean_environment(V23_CREDENTIALS="alice")
