"""A machine for processes, with credentials made by the tool itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from agent_parties import Daemon, Machine, bless, clean_environment, short_directory

from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.storage.credentials import CredentialsDirectory

ADMIN_IS_PROD = '{"Admin": {"In": ["root:alice:prod"]}}'


@dataclass(slots=True)
class Walk:
    """Root, agent, alice and bob as directories; the cluster agent's name once it runs."""

    machine: Machine
    agent: str = ""

    @property
    def folder(self) -> Path:
        """Where everything is."""
        return self.machine.folder

    def do(self, who: str, *arguments: str, stdin: str = "") -> str:
        """Run a command as somebody; it must succeed. Returns what it printed."""
        done = self.machine.run(*arguments, environment=self.as_(who), stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refused(self, who: str, *arguments: str, stdin: str = "") -> str:
        """Run a command as somebody; it must fail with one sentence, which is returned."""
        done = self.machine.run(*arguments, environment=self.as_(who), stdin=stdin)
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        return done.stderr.splitlines()[-1]

    def as_(self, who: str) -> dict[str, str]:
        """Return the environment of somebody."""
        return clean_environment(V23_CREDENTIALS=str(self.folder / who)) if who else clean_environment()

    def start_cluster_agent(self, *arguments: str) -> Daemon:
        """Start the cluster agent `root:agent`, which admits `root:alice:prod`."""
        daemon = self.machine.start(
            "cluster-agent", "--v23.credentials=agent", "--v23.tcp.address=127.0.0.1:0", "--root-dir=data",
            "--v23.permissions.literal", ADMIN_IS_PROD, *arguments,
        )  # fmt: skip
        self.agent = daemon.announced("NAME")
        return daemon

    def start_pod_agent(self, socket: str = "a.sock") -> Daemon:
        """Start a pod agent that trusts root."""
        roots = self.do("root", "principal", "get", "default")
        return self.machine.start(
            "pod-agent",
            environment=clean_environment(
                AGENT_NAME=self.agent,
                ROOT_BLESSINGS=roots,
                SOCKET_PATH=str(self.folder / socket),
                SECRET_KEY_FILE=str(self.folder / "secret"),
            ),
        )

    def new_secret(self, name: str = "secret") -> str:
        """Make a secret for `root:alice:foo` as alice, and keep it in a file."""
        secret = self.do("alice", "secret", "--agent", self.agent, "new", "foo")
        (self.folder / name).write_text(secret)
        return secret


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A folder with a short name, and processes that end with the test."""
    with short_directory() as folder:
        machine = Machine(folder)
        try:
            yield machine
        finally:
            machine.end()


@pytest.fixture
def walk(machine: Machine) -> Walk:
    """The original's own test of the pair, up to where the agents start."""
    trio.run(make_people, machine.folder)
    return Walk(machine)


async def make_people(folder: Path) -> None:
    """Make root, and agent, alice and bob that it blessed; alice shows `root:alice:prod` to the agent."""
    people = {}
    for who in ("root", "agent", "alice", "bob"):
        people[who] = await CredentialsDirectory(folder / who).create(PrivateKey.generate(), who)
        if who != "root":
            await people[who].adopt(await bless(people["root"], people[who], who))
    alice = people["alice"]
    await alice.set_for_peer(await bless(alice, alice, "prod"), Pattern.parse("root:agent"))
