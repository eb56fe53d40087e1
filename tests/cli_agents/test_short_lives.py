"""Blessings that live for three seconds, while the agents behind them are killed again and again: no call fails.

The plain run takes some lives; VANADIUM_TEST_LIVES=200 takes ten minutes. When which agent is killed is random; the seed is printed.
"""

import os
import random
import signal
import time
from datetime import UTC, datetime
from typing import Any

import trio
from agent_parties import Daemon, blessed

from vanadium_node.agent import open_principal
from vanadium_node.errors import VanadiumError
from vanadium_node.rpc import Call, Service, Tag, method, open_pool, serve
from vanadium_node.security.access import Permissions
from vanadium_node.security.authorization import permissions_authorizer
from vanadium_node.security.principal import Principal
from vanadium_node.storage.credentials import CredentialsDirectory

LIFE_SECONDS = 3.0
LIVES = int(os.environ.get("VANADIUM_TEST_LIVES", "6"))
PAUSE_SECONDS = 0.05
CALL_SECONDS = 10.0
RENEWAL_SECONDS = 0.8
"""What a busy machine takes for a renewal and for telling the clients."""

SEED = int(os.environ.get("VANADIUM_TEST_SEED", "0")) or random.randrange(1, 10**6)


def seconds_left(principal: Principal) -> float:
    """Return what is left of the principal's life."""
    expiry = principal.store.default.expiry if principal.store.default else None
    return (expiry - datetime.now(UTC)).total_seconds() if expiry else 0.0


class Echo(Service):
    """Echo answers those of the application."""

    @method(tag=Tag.READ, idempotent=True)
    def echo(self, call: Call, text: str) -> str:
        """Returns the text."""
        return text


async def test_no_call_fails(walk: Any) -> None:
    """Neither while an agent is away for less than what is left of a life, nor afterwards; nobody is locked out for good."""
    dice = random.Random(SEED)
    print(f"VANADIUM_TEST_SEED={SEED}")
    walk.start_cluster_agent(f"--blessing-ttl={LIFE_SECONDS:g}s")
    port = walk.agent.rpartition(":")[2]
    arguments = (f"--blessing-ttl={LIFE_SECONDS:g}s", f"--listen=127.0.0.1:{port}")
    walk.new_secret()
    agents: dict[str, Daemon] = {"cluster": walk.machine.daemons[-1], "pod": walk.start_pod_agent()}
    agents["pod"].announced("SOCKET")
    root = CredentialsDirectory(walk.folder / "root").open()
    server_principal = await blessed(root, "echo")
    authorizer = permissions_authorizer(Permissions.of(Read=["root:alice:foo"]))
    calls, names, failed = 0, set[str](), list[tuple[float, str]]()
    too_long: list[tuple[float, float]] = []
    environ = {"V23_AGENT_PATH": str(walk.folder / "a.sock")}
    began = time.monotonic()
    end = began + LIVES * LIFE_SECONDS
    async with (
        serve(Echo(), server_principal, listen=["127.0.0.1:0"], authorizer=authorizer) as server,
        open_principal(environ=environ) as principal,
        open_pool(principal) as pool,
        trio.open_nursery() as nursery,
    ):

        async def call() -> None:
            nonlocal calls
            echo = pool.client(f"/(root:echo)@{server.addresses[0]}")
            while time.monotonic() < end:
                try:
                    assert await echo.call("Echo", "x", timeout=CALL_SECONDS) == "x"
                except VanadiumError as error:
                    failed.append((time.monotonic(), str(error)))
                calls += 1
                default = principal.store.default
                names.update(default.names if default else ())
                await trio.sleep(PAUSE_SECONDS)

        async def kill() -> None:
            while time.monotonic() < end - LIFE_SECONDS:
                await trio.sleep(dice.uniform(0.2, 2) * LIFE_SECONDS)
                which = dice.choice(["cluster", "pod"])
                left = seconds_left(principal)
                agents[which].process.kill()
                killed = time.monotonic()
                await trio.to_thread.run_sync(agents[which].process.wait)
                start = walk.start_pod_agent if which == "pod" else lambda: walk.start_cluster_agent(*arguments)
                agents[which] = await trio.to_thread.run_sync(start)
                if which == "pod":
                    await trio.to_thread.run_sync(agents[which].announced, "SOCKET")
                back = time.monotonic()
                if back - killed > left - RENEWAL_SECONDS:
                    too_long.append((killed, back + LIFE_SECONDS / 2))

        nursery.start_soon(call)
        nursery.start_soon(kill)
    unexcused = [
        f"after {when - began:.1f} s: {why}" for when, why in failed if not any(a < when < b for a, b in too_long)
    ]
    print(
        f"{calls} calls, {len(names)} names, {len(too_long)} outages longer than a life, {len(failed)} calls failed then"
    )
    assert unexcused == []
    assert calls > LIVES * 5
    assert len(names) > LIVES / 2, "it was renewed"
    assert agents["pod"].end(signal.SIGTERM) == 0
