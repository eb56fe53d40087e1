"""What a pod agent costs each pod: `python tests/benchmarks/pod_agent/run.py [--check]`.

Two promises. Memory: with an identity and one client that has signed, it is resident in at most 1.12 times what a bare process
takes that has imported trio, pyOpenSSL, P-256 and cbor2 and listens on a unix socket. Start: with the cluster agent up, at most
0.6 s pass from the start of the process to the first answer on its socket. Bare process and agent take turns; printed are medians.
With --check the exit status is 1 when a promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import trio

from vanadium_node.agent import open_principal
from vanadium_node.rpc import connect
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.cose import SignatureType
from vanadium_node.security.keys import PrivateKey
from vanadium_node.storage.credentials import CredentialsDirectory

HERE = Path(__file__).parent
MAX_MEMORY_RATIO = 1.12
MAX_START_SECONDS = 0.6
PATIENCE_SECONDS = 60.0
PERMISSIONS = '{"Admin": {"In": ["root"]}}'


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds, in KiB: resident, and its share of that (pages in use by several count in parts)."""

    resident: int
    proportional: int

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Return what a process holds now."""
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        resident, proportional = (re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) for name in ("Rss", "Pss"))
        if resident is None or proportional is None:
            raise ValueError(f"no memory in {text!r}")
        return cls(int(resident[1]), int(proportional[1]))


@contextmanager
def running(
    *command: str, environment: dict[str, str] | None = None, folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of this Python, and end it."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=compiled(folder) | (environment or {}), stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def compiled(folder: Path) -> dict[str, str]:
    """Return an environment in which programs are compiled once, as an image's are, and not at each start."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody answers behind a unix socket."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"'{path}' does not appear: {(path.parent / 'log').read_text()}")
        time.sleep(0.002)


async def make_world(folder: Path) -> str:
    """Make root and the agent's credentials; return root's blessings as text."""
    root = await CredentialsDirectory(folder / "root").create(PrivateKey.generate(), "root")
    agent = await CredentialsDirectory(folder / "agent").create(PrivateKey.generate(), "agent")
    own = root.store.default
    if own is None:
        raise ValueError("root has no blessings")
    await agent.adopt(await root.bless(agent.public_key, own, "agent", [Caveat.unconstrained()]))
    return own.text


async def make_secret(folder: Path, name: str) -> str:
    """Return a new secret of the cluster agent for `root:app`."""
    root = CredentialsDirectory(folder / "root").open(None)
    own = root.store.default
    async with connect(name, root) as client:
        key = client.server.public_key
        if own is None or key is None:
            raise ValueError("nobody to bless")
        granted: Blessings = await root.bless(key, own, "app", [Caveat.unconstrained()])
        secret: str = await client.call("NewSecret", granted=granted, returns=str)
        return secret


async def use(path: Path, process: subprocess.Popen[bytes]) -> Memory:
    """Be the agent's client, let it sign, and return what it holds meanwhile."""
    async with open_principal(environ={"V23_AGENT_PATH": str(path)}, timeout=PATIENCE_SECONDS) as principal:
        await principal.sign(SignatureType.MESSAGE, b"a message")
        return Memory.of(process.pid)


def bare_once(folder: Path, number: int) -> Memory:
    """Start the bare process and return what it holds."""
    path = folder / f"bare-{number}"
    with running(str(HERE / "bare.py"), str(path), folder=folder) as process:
        wait_for(path, process)
        return Memory.of(process.pid)


def agent_once(folder: Path, environment: dict[str, str], number: int) -> tuple[float, Memory]:
    """Start a pod agent; return how long it took to serve, and what it holds with a client."""
    path = folder / f"agent-{number}"
    begin = time.monotonic()
    arguments = ("-m", "vanadium_node", "pod-agent", f"--socket-path={path}")
    with running(*arguments, environment=environment, folder=folder) as process:
        wait_for(path, process)
        seconds = time.monotonic() - begin
        return seconds, trio.run(use, path, process)


def measure(rounds: int) -> dict[str, float]:
    """Return the medians of so many rounds."""
    with tempfile.TemporaryDirectory(prefix="vb-") as name:
        folder = Path(name)
        roots = trio.run(make_world, folder)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = ("-m", "vanadium_node", "cluster-agent", "--credentials=agent", "--root-dir=data")
        with running(
            *arguments, f"--listen={address}", f"--permissions-literal={PERMISSIONS}", folder=folder
        ) as server:
            wait_for_tcp(address, server, folder)
            agent = f"/(root:agent)@{address}"
            (folder / "secret").write_text(trio.run(make_secret, folder, agent))
            environment = {"AGENT_NAME": agent, "ROOT_BLESSINGS": roots, "SECRET_KEY_FILE": str(folder / "secret")}
            agent_once(folder, environment, rounds)  # the first start compiles
            bare, agents = [], []
            for number in range(rounds):
                bare.append(bare_once(folder, number))
                agents.append(agent_once(folder, environment, number))
    resident = median(memory.resident for _, memory in agents), median(memory.resident for memory in bare)
    share = median(memory.proportional for _, memory in agents), median(memory.proportional for memory in bare)
    return {
        "agent_resident_kib": resident[0],
        "bare_resident_kib": resident[1],
        "resident_ratio": resident[0] / resident[1],
        "agent_proportional_kib": share[0],
        "bare_proportional_kib": share[1],
        "start_seconds": median(seconds for seconds, _ in agents),
    }


def wait_for_tcp(address: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until somebody listens there."""
    host, _, port = address.partition(":")
    end = time.monotonic() + PATIENCE_SECONDS
    with socket.socket() as probe:
        while probe.connect_ex((host, int(port))):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"no cluster agent: {(folder / 'log').read_text()}")
            time.sleep(0.02)


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a promise is not kept")
    options = parser.parse_args()
    found = measure(options.rounds)
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"resident      agent {found['agent_resident_kib'] / 1024:.1f} MiB, bare process {found['bare_resident_kib'] / 1024:.1f} MiB:"
        )
        print(f"              {found['resident_ratio']:.3f} times, promised are {MAX_MEMORY_RATIO}")
        print(
            f"proportional  agent {found['agent_proportional_kib'] / 1024:.1f} MiB, bare process {found['bare_proportional_kib'] / 1024:.1f} MiB"
        )
        print(f"start         {found['start_seconds']:.3f} s to a served socket, promised are {MAX_START_SECONDS}")
    kept = found["resident_ratio"] <= MAX_MEMORY_RATIO and found["start_seconds"] <= MAX_START_SECONDS
    return 1 if options.check and not kept else 0


if __name__ == "__main__":
    sys.exit(main())
