"""What can go wrong between the controller and those it asks: at one chosen step, before it is done or after."""

import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import count

import httpx
import trio
from scripted_api import Exchange, scripted_api

from vanadium_node.kube.credentials import Login
from vanadium_node.kube.kubeconfig import ClusterAccess, User

RESETS_ON_CLOSE = struct.pack("ii", 1, 0)
MOST_STEPS = 40
DROPPED = {"connection", "transfer-encoding", "content-length", "host", "content-encoding"}


class Fault(Enum):
    """What happens at the chosen step."""

    RESET = "the connection is reset, and nothing was done"
    LOST = "it is done, and the answer is lost"
    TIMEOUT = "it is done, and no answer comes"
    CONFLICT = 409
    BUSY = 429
    BROKEN = 500
    FORBIDDEN = 403
    KILL = "whoever asks is killed, and nothing was done"
    KILL_AFTER = "it is done, and whoever asks is killed"

    @property
    def is_done(self) -> bool:
        """Tell whether the step has its effect all the same."""
        return self in {Fault.LOST, Fault.TIMEOUT, Fault.KILL_AFTER}


@dataclass
class Faults:
    """Counts steps, calls to the API and to the cluster agent alike, and says at which one something goes wrong."""

    fault: Fault | None = None
    at: int = 0
    steps: list[str] = field(default_factory=list)
    kill: Callable[[], None] = lambda: None
    stride: int = 1
    """Of the steps to fail at, take each, or every so-manieth: which ones depends on the fault."""

    @contextmanager
    def happening(self, fault: Fault, at: int) -> Iterator[None]:
        """Let a fault happen at a step, counted from 1, of what runs in the block."""
        self.fault, self.at, self.steps = fault, at, []
        try:
            yield
        finally:
            self.fault = None

    def step(self, what: str) -> Fault | None:
        """Count a step; return the fault that happens at it."""
        if self.fault is None:
            return None
        self.steps.append(what)
        return self.fault if len(self.steps) == self.at else None

    def each_step(self, fault: Fault) -> Iterator[int]:
        """Yield 1, 2, 3, … until the run before made fewer steps than that."""
        for at in count(1 + list(Fault).index(fault) % self.stride, self.stride):
            yield at
            if len(self.steps) < at:
                assert at > 2, "a command that asks nobody anything"
                return
            assert at < MOST_STEPS, f"the command never got through: {self.steps}"


@asynccontextmanager
async def faulty_api(access: ClusterAccess, faults: Faults) -> AsyncIterator[ClusterAccess]:
    """Stand before an API server, pass everything on, and let a fault happen; yield the access through here."""
    login = await Login.from_access(access)
    async with httpx.AsyncClient(
        base_url=access.server, verify=login.tls, auth=login.auth, trust_env=False, timeout=60
    ) as upstream:

        async def handle(exchange: Exchange) -> None:
            fault = faults.step(f"{exchange.method} {exchange.target.partition('?')[0]}")
            match fault:
                case None:
                    await _forward(upstream, exchange, is_answered=True)
                case Fault.RESET | Fault.KILL:
                    _end(exchange, fault, faults)
                case Fault.LOST | Fault.TIMEOUT | Fault.KILL_AFTER:
                    await _forward(upstream, exchange, is_answered=False)
                    _end(exchange, fault, faults)
                case _:
                    status = {"kind": "Status", "code": fault.value, "reason": "Chosen", "message": "as chosen"}
                    headers = {"retry_after": "0"} if fault is Fault.BUSY else {}
                    await exchange.answer(int(fault.value), status, **headers)

        async with scripted_api(otherwise=handle) as api:
            yield replace(access, server=api.url, user=User(), ca=None, tls_server_name=None, proxy_url=None)


def _end(exchange: Exchange, fault: Fault, faults: Faults) -> None:
    """Leave the asker without an answer."""
    if fault in {Fault.KILL, Fault.KILL_AFTER}:
        faults.kill()
    if fault is not Fault.TIMEOUT:
        exchange.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS_ON_CLOSE)
        raise trio.BrokenResourceError  # the server closes the connection, which sends a reset


async def _forward(upstream: httpx.AsyncClient, exchange: Exchange, *, is_answered: bool) -> None:
    """Do what was asked, and pass the answer on, piece by piece as it comes."""
    headers = {k: v for k, v in exchange.headers.items() if k.lower() not in DROPPED}
    request = upstream.build_request(exchange.method, exchange.target, content=exchange.body or None, headers=headers)
    response = await upstream.send(request, stream=True)
    try:
        if not is_answered:
            await response.aread()
            return
        passed = {k: v for k, v in response.headers.items() if k.lower() not in DROPPED | {"content-type"}}
        await exchange.begin(response.status_code, **passed)
        async for piece in response.aiter_text():
            await exchange.send(piece)
        await exchange.end()
    finally:
        await response.aclose()
