"""A claimed cluster agent in this process, and the people around it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from agent_parties import bless, blessed, new_root

from vanadium_node.cluster_agent import Serving, run
from vanadium_node.config import ClusterAgentSettings
from vanadium_node.rpc import Client, connect
from vanadium_node.security.access import Permissions
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.storage.credentials import CredentialsDirectory


@dataclass(slots=True)
class Cluster:
    """Alice administers the agent `root:agent`; bob is of the same root and may nothing."""

    folder: Path
    root: Principal
    alice: Principal
    bob: Principal
    name: str = ""

    @classmethod
    async def at(cls, folder: Path) -> "Cluster":
        """Make the people, and the agent's credentials in a folder."""
        root = await new_root()
        alice, bob = await blessed(root, "alice"), await blessed(root, "bob")
        agent = await CredentialsDirectory(folder / "agent").create(PrivateKey.generate(), "agent")
        await agent.adopt(await bless(root, agent, "agent"))
        return cls(folder, root, alice, bob)

    def settings(self, ttl: timedelta | None = timedelta(hours=1), **changes: Any) -> ClusterAgentSettings:
        """Return the settings of an agent with credentials and permissions."""
        settings = ClusterAgentSettings(
            root_dir=self.folder / "data",
            listen="127.0.0.1:0",
            credentials=self.folder / "agent",
            permissions=Permissions.of(Admin=["root:alice"]),
            blessing_ttl=ttl,
        )
        return replace(settings, **changes)

    @asynccontextmanager
    async def running(self, ttl: timedelta | None = timedelta(hours=1), **changes: Any) -> AsyncIterator[Serving]:
        """Run the agent, with some settings changed, and let it end well."""
        stop = trio.Event()
        settings = self.settings(ttl, **changes)
        async with trio.open_nursery() as nursery:
            serving: Serving = await nursery.start(
                lambda task_status: run(settings, stop=stop, task_status=task_status)
            )
            self.name = serving.name
            yield serving
            stop.set()

    @asynccontextmanager
    async def calling(self, principal: Principal) -> AsyncIterator[Client]:
        """Call the agent as a principal."""
        async with connect(self.name, principal) as client:
            yield client

    async def new_secret(self, *caveats: Caveat, ttl_seconds: int = 0, extension: str = "foo") -> str:
        """Make a secret for `root:alice:EXTENSION` as alice."""
        async with self.calling(self.alice) as client:
            key = client.server.public_key
            own = self.alice.store.default
            assert key is not None
            assert own is not None
            granted = await self.alice.bless(key, own, extension, caveats or [Caveat.unconstrained()])
            secret: str = await client.call("NewSecret", ttl_seconds, returns=str, granted=granted)
            return secret

    def audited(self) -> list[dict[str, Any]]:
        """Return the entries of the audit log."""
        return [json.loads(line) for line in (self.folder / "data" / "audit.jsonl").read_text().splitlines()]

    async def seek(self, secret: str, principal: Principal) -> Blessings:
        """Seek blessings as a replica."""
        async with self.calling(principal) as client:
            blessings: Blessings = await client.call("SeekBlessings", secret, returns=Blessings)
            return blessings

    async def replica(self) -> Principal:
        """Return a principal without blessings that recognizes the root."""
        return Principal((await new_root()).signer, roots=self.root.roots)


@pytest.fixture
async def cluster(tmp_path: Path) -> Cluster:
    """A cluster agent that is not running yet."""
    return await Cluster.at(tmp_path)
