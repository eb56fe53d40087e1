"""Agents on sockets, and principals that act through them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from agent_parties import blessed, new_root, short_directory

from vanadium_node.agent import open_principal
from vanadium_node.agent.service import AgentService
from vanadium_node.rpc import Client, connect, serve
from vanadium_node.security.principal import Principal


@dataclass(frozen=True, slots=True)
class Agents:
    """A socket's path, for agents one after another."""

    path: Path

    @asynccontextmanager
    async def serving(self, principal: Principal, *, immutable: bool = True) -> AsyncIterator[AgentService]:
        """Serve a principal."""
        service = AgentService(principal, immutable=immutable)
        async with serve(service, None, listen=[f"unix:{self.path}"]):
            yield service

    def acting(self) -> AbstractAsyncContextManager[Principal]:
        """Act as the principal of the agent."""
        return open_principal(environ={"V23_AGENT_PATH": str(self.path)})

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Client]:
        """Call the agent's methods directly."""
        async with connect(f"unix:{self.path}", None) as client:
            yield client


@pytest.fixture
def agents() -> Iterator[Agents]:
    """A place for agents."""
    with short_directory() as folder:
        yield Agents(folder / "agent.sock")


@pytest.fixture
async def root() -> Principal:
    """The root of all."""
    return await new_root()


@pytest.fixture
async def replica(root: Principal) -> Principal:
    """A principal for an agent to serve."""
    return await blessed(root, "replica")
