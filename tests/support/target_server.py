"""A server to be attacked, as a process of its own: `python target_server.py JSON`, with some of its limits."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import trio
from rpc_parties import Playground, principal

from vanadium_node.rpc import Call, Tag, method, serve
from vanadium_node.security.authorization import everyone
from vanadium_node.wire.limits import Limits


@dataclass(frozen=True)
class Target:
    """Where the server is reached, and what it costs."""

    address: str
    pid: int
    log: Path

    @property
    def resident_bytes(self) -> int:
        """Its memory now."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        """How many descriptors it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def logged(self, start: int = 0) -> str:
        """Return its log from a place on."""
        with self.log.open("rb") as file:
            file.seek(start)
            return file.read().decode()


@contextmanager
def target(folder: Path, **limits: float) -> Iterator[Target]:
    """Run a server with these limits (times in seconds) while the block lasts."""
    log = folder / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, __file__, json.dumps(limits)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file
        ) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        assert address, log.read_text()
        try:
            yield Target(address, process.pid, log)
        finally:
            assert process.poll() is None, log.read_text()
            process.terminate()


class Playfield(Playground):
    """Playfield has a method that does not read what it is sent, too."""

    @method(tag=Tag.READ)
    async def hold(self, call: Call, items: AsyncIterator[bytes]) -> None:
        """Never reads an item."""
        await trio.sleep_forever()


async def _serve(limits: dict[str, Any]) -> None:
    given: dict[str, Any] = {k: timedelta(seconds=v) if k.endswith("_timeout") else v for k, v in limits.items()}
    async with serve(
        Playfield(), await principal("target"), listen=["127.0.0.1:0"], authorizer=everyone, limits=Limits(**given)
    ) as server:
        print(server.addresses[0], flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    trio.run(_serve, json.loads(sys.argv[1]))
