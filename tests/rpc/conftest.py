"""A family of principals for each test."""

from collections.abc import AsyncIterator

import pytest
from rpc_parties import Parties, connected, parties

from vanadium_node.rpc import Client


@pytest.fixture
async def family() -> Parties:
    """A root, a server and a client that it admits."""
    return await parties()


@pytest.fixture
async def client(family: Parties) -> AsyncIterator[Client]:
    """The family's client, connected to its server over a real socket."""
    async with connected(family) as opened:
        yield opened
