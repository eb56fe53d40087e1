"""A pod's files, and a cluster agent that gives its pod agent what the test wants."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio
from agent_parties import default_of

from vanadium_node.config import PodAgentSettings
from vanadium_node.errors import CallError, ErrorCode
from vanadium_node.rpc import Call, Service, Tag, method, serve
from vanadium_node.security.authorization import everyone
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.principal import Principal


class Giver(Service):
    """A cluster agent that gives what the test wants."""

    authorizer = staticmethod(everyone)

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.secrets: list[str] = []
        self.presented: list[tuple[str, ...]] = []
        self.good_secret = "open sesame"
        self.life = timedelta(hours=1)
        self.instead: Blessings | None = None

    @method(tag=Tag.READ)
    async def seek_blessings(self, call: Call, secret: str) -> Blessings:
        """Returns blessings for the right secret."""
        self.secrets.append(secret)
        self.presented.append(call.peer.presented)
        if secret != self.good_secret:
            raise CallError(ErrorCode.NOT_FOUND, "the secret is unknown here")
        key = call.peer.public_key
        assert key is not None
        if self.instead is not None:
            return self.instead
        caveat = Caveat.expiry(utc_now() + self.life)
        return await self.principal.bless(key, default_of(self.principal), f"r{len(self.secrets)}", [caveat])


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Pod:
    """A pod's files, and the cluster agent that it is told of."""

    folder: Path
    root: Principal
    giver: Giver
    name: str = ""
    stop: trio.Event = field(default_factory=trio.Event)

    @property
    def socket(self) -> Path:
        """The socket's path."""
        return self.folder / "agent.sock"

    @property
    def settings(self) -> PodAgentSettings:
        """The pod agent's settings."""
        return PodAgentSettings(
            agent=self.name,
            socket_path=self.socket,
            secret_key_file=self.folder / "secret",
            root_blessings=(default_of(self.root),),
            drain_timeout=timedelta(seconds=1),
        )

    def write_secret(self, secret: str) -> None:
        """Mount a secret."""
        (self.folder / "secret").write_text(secret + "\n")

    @asynccontextmanager
    async def giving(self) -> AsyncIterator[None]:
        """Serve the cluster agent."""
        async with serve(self.giver, self.giver.principal, listen=["127.0.0.1:0"]) as server:
            self.name = f"/(root:agent)@{server.addresses[0]}"
            yield
