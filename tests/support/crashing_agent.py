"""A cluster agent as a process that can be killed at any point, and the people who find out what it kept."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from agent_parties import Daemon, clean_environment, default_of, new_root, short_directory
from http_get import get
from until import until

from vanadium_node.errors import CallError, ErrorCode, UnreachableError
from vanadium_node.rpc import connect
from vanadium_node.secret_store import KnownSecret
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.principal import Principal
from vanadium_node.storage.audit_file import verify_file

GONE_SECONDS = 30.0


@dataclass(slots=True)
class CrashingAgent:
    """An agent that `root` claims and administers; `folder` holds its directory `data`."""

    folder: Path
    root: Principal
    daemon: Daemon | None = None
    name: str = ""
    starts: int = 0
    options: tuple[str, ...] = ()
    secrets: list[str] = field(default_factory=list)
    """Secrets that were acknowledged, and are not forgotten."""

    @classmethod
    async def at(cls, folder: Path) -> "CrashingAgent":
        """Make the folder; nothing runs yet."""
        await trio.Path(folder).mkdir()
        return cls(folder, await new_root())

    @property
    def pid(self) -> int:
        """The process."""
        assert self.daemon is not None
        return self.daemon.process.pid

    @property
    def health(self) -> str:
        """Where its health is told."""
        return f"unix:{self.folder / 'health.sock'}"

    async def unready(self) -> str:
        """Return why it is not ready; empty: it is. It must be alive all the time."""
        assert await get(self.health, "/livez") == (200, "ok\n")
        status, said = await get(self.health, "/readyz")
        return "" if status == 200 else said

    async def becomes_ready(self) -> None:
        """Wait until it is ready, by itself."""

        async def is_ready() -> bool:
            return not await self.unready()

        await until(is_ready)

    async def begin(self, secrets: int = 0) -> None:
        """Start and claim it, and make so many secrets; then it is ready."""
        assert self.start()
        assert await self.claim(await self.grant())
        for _ in range(secrets):
            assert await self.new_secret()
        await self.becomes_ready()

    def start(self, prefix: Sequence[str] = ()) -> bool:
        """Start the agent, under another command if there is a prefix; tell whether it serves, and was not killed before."""
        daemon = self.launch(prefix)
        try:
            self.name = daemon.announced("NAME")
        except AssertionError:
            if daemon.process.poll() != -signal.SIGKILL:
                raise
            return False
        return True

    def launch(self, prefix: Sequence[str] = ()) -> Daemon:
        """Start the agent, and do not wait until it serves."""
        self.starts += 1
        output, log = self.folder / f"out-{self.starts}", self.folder / f"log-{self.starts}"
        roots = default_of(self.root).text
        arguments = [
            "--root-dir=data",
            "--listen=127.0.0.1:0",
            f"--root-blessings={roots}",
            "--claimer=root:$",
            "--admin=root",
            f"--health-listen={self.health}",
            *self.options,
        ]
        with output.open("wb") as out, log.open("wb") as err:
            process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "vanadium_node", "cluster-agent", *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.folder, env=clean_environment(),
                process_group=0,
            )  # fmt: skip
        self.daemon = Daemon(process, output, log)
        return self.daemon

    def end(self) -> None:
        """Kill the process, if it still runs, and what it started: whoever kills strace alone leaves the agent under it."""
        if self.daemon is not None and self.daemon.process.poll() is None:
            os.killpg(self.daemon.process.pid, signal.SIGKILL)
            self.daemon.process.wait(GONE_SECONDS)

    def stop(self) -> int:
        """Have it end well, and return its exit status."""
        assert self.daemon is not None
        return self.daemon.end()

    async def is_gone(self) -> bool:
        """Tell whether the process was killed; a call of it may have been answered just before."""
        assert self.daemon is not None
        process = self.daemon.process
        with trio.move_on_after(0.2):
            while process.poll() is None:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        return process.poll() is not None

    async def new_secret(self) -> bool:
        """Make a secret; tell whether it was acknowledged."""
        try:
            async with connect(self.name, self.root) as client:
                key = client.server.public_key
                assert key is not None
                granted = await self.root.bless(key, default_of(self.root), "app", [Caveat.unconstrained()])
                self.secrets.append(await client.call("NewSecret", returns=str, granted=granted))
        except UnreachableError:
            return False
        return True

    async def forget_secret(self) -> tuple[str, bool]:
        """Forget the secret made last; return it, and whether that was acknowledged."""
        secret = self.secrets.pop()
        try:
            async with connect(self.name, self.root) as client:
                await client.call("ForgetSecret", secret, returns=type(None))
        except UnreachableError:
            return secret, False
        return secret, True

    async def grant(self) -> Blessings:
        """Return the blessings to claim it with."""
        async with connect(self.name, self.root, insecure=True) as client:
            assert client.server.public_key is not None
            return await self.root.bless(
                client.server.public_key, default_of(self.root), "agent", [Caveat.unconstrained()]
            )

    async def claim(self, granted: Blessings) -> bool:
        """Claim it; tell whether that was acknowledged."""
        try:
            async with connect(self.name, self.root, insecure=True) as client:
                await client.call("Claim", "", returns=type(None), granted=granted)
        except UnreachableError:
            return False
        return True

    async def is_known(self, secret: str, extension: str = "app") -> bool:
        """Tell whether a replica gets blessings for a secret; they must be whole."""
        replica = Principal((await new_root()).signer, roots=self.root.roots)
        async with connect(self.name, replica) as client:
            try:
                blessings = await client.call("SeekBlessings", secret, returns=Blessings)
            except CallError as error:
                if error.code is not ErrorCode.NOT_FOUND:
                    raise
                return False
        assert blessings.names[0].startswith(f"root:{extension}:127.0.0.1:")
        return True

    async def known(self) -> list[KnownSecret]:
        """Return what the agent keeps."""
        async with (
            connect(self.name, self.root) as client,
            client.stream("ListSecrets", returns=KnownSecret, result=None) as found,
        ):
            return [one async for one in found]

    async def check(self) -> None:
        """Make sure that all that was acknowledged is there, the rest whole or absent, and the audit log one chain."""
        for secret in self.secrets:
            assert await self.is_known(secret), "an acknowledged secret is lost"
        assert not any(one.is_damaged for one in await self.known())
        assert verify_file(self.folder / "data" / "audit.jsonl").problem == ""
        assert self.daemon is not None
        assert "not ready" not in self.daemon.log.read_text()


@asynccontextmanager
async def crashing_agent() -> AsyncIterator[CrashingAgent]:
    """Yield an agent, in a folder with a short name, that does not run yet, and kill it in the end."""
    with short_directory() as folder:
        agent = await CrashingAgent.at(folder / "agent")
        try:
            yield agent
        finally:
            agent.end()
