"""A node whose clock is wrong: measured against a real cluster agent over real sockets, and named wherever it is in the way."""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trio
from agent_parties import (
    PATIENCE_SECONDS,
    bless,
    blessed,
    clean_environment,
    default_of,
    eventually,
    new_root,
    run_module,
)
from http_get import get
from trio.testing import MockClock
from until import until

from vanadium_node import cluster_agent, pod_agent
from vanadium_node.agent import open_principal
from vanadium_node.config import ClusterAgentSettings, PodAgentSettings
from vanadium_node.errors import NotTrustedError, UnreachableError
from vanadium_node.pod_agent.clock import ClusterClock, Offset, in_words
from vanadium_node.pod_agent.identity import LEAST_ATTEMPT_SECONDS
from vanadium_node.pod_agent.seeking import seek_blessings
from vanadium_node.rpc import Call, Service, Tag, connect, method, serve
from vanadium_node.security.access import Permissions
from vanadium_node.security.authorization import everyone
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.storage.credentials import CredentialsDirectory

HOUR = timedelta(hours=1)
FAR = timedelta(hours=1, minutes=30, seconds=30)
"""In the middle of a minute, so that the words for it are the same on a machine where answers are slow."""


def utc_now() -> datetime:
    """The time of the cluster agent."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Node:
    """A node with a pod agent, and a clock that can be set; the cluster agent's is right."""

    folder: Path
    root: Principal
    alice: Principal
    ahead: timedelta = timedelta(0)
    agent: str = ""
    stop: trio.Event = field(default_factory=trio.Event)

    def now(self) -> datetime:
        """The node's time."""
        return utc_now() + self.ahead

    @property
    def socket(self) -> Path:
        """The pod agent's socket."""
        return self.folder / "s"

    @property
    def health(self) -> str:
        """Where the pod agent says how it is."""
        return f"unix:{self.folder / 'h'}"

    @asynccontextmanager
    async def cluster(self, *caveats: Caveat, ttl: timedelta = HOUR) -> AsyncIterator[None]:
        """Run a cluster agent, whose own blessings have the caveats, with a secret for the pod agent."""
        agent = await CredentialsDirectory(self.folder / "agent").create(PrivateKey.generate(), "agent")
        await agent.adopt(await bless(self.root, agent, "agent", *caveats))
        settings = ClusterAgentSettings(
            root_dir=self.folder / "data",
            listen="127.0.0.1:0",
            credentials=self.folder / "agent",
            permissions=Permissions.of(Admin=["root:alice"]),
            blessing_ttl=ttl,
        )
        async with trio.open_nursery() as nursery:
            stop = trio.Event()
            serving: cluster_agent.Serving = await nursery.start(
                lambda task_status: cluster_agent.run(settings, stop=stop, task_status=task_status)
            )
            self.agent = serving.name
            async with connect(self.agent, self.alice) as client:
                assert client.server.public_key is not None
                own = default_of(self.alice)
                granted = await self.alice.bless(client.server.public_key, own, "app", [Caveat.unconstrained()])
                (self.folder / "secret").write_text(await client.call("NewSecret", returns=str, granted=granted))
            yield
            stop.set()

    @asynccontextmanager
    async def pod(self) -> AsyncIterator[None]:
        """Run the pod agent, on the node's clock."""
        settings = PodAgentSettings(
            agent=self.agent,
            socket_path=self.socket,
            secret_key_file=self.folder / "secret",
            root_blessings=(default_of(self.root),),
            health_listen=self.health,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: pod_agent.run(settings, stop=self.stop, now=self.now))
            await eventually((self.folder / "h").exists)
            yield
            self.stop.set()

    async def said(self, what: str) -> str:
        """Wait until the pod agent gives a reason, and return all that it says."""

        async def page() -> str:
            reasons = (await get(self.health, "/readyz"))[1]
            return reasons if what in reasons else ""

        return await until(page)

    async def measured(self) -> float:
        """Return the measured skew in seconds."""
        lines = (await get(self.health, "/metrics"))[1].splitlines()
        return float(next(line for line in lines if line.startswith("vanadium_clock_skew_seconds")).split()[1])


@pytest.fixture
async def node(folder: Path) -> Node:
    """A node whose clock is right."""
    root = await new_root()
    return Node(folder, root, await blessed(root, "alice"))


async def waiting_in_vain(socket: Path, what: str) -> bool:
    """Tell whether a program that waits for its principal for a moment is told something."""
    with pytest.raises(UnreachableError) as told:
        async with open_principal(environ={"V23_AGENT_PATH": str(socket)}, timeout=0.3):
            pass
    return what in str(told.value)


@pytest.mark.parametrize(
    ("ahead", "way", "why"),
    [(-FAR, "1 h 30 min behind", "not valid before"), (FAR, "1 h 30 min ahead of", "expired at")],
)
async def test_the_cluster_agent_itself_is_out_of_time(
    node: Node, caplog: pytest.LogCaptureFixture, ahead: timedelta, way: str, why: str
) -> None:
    """At the first connection already: probes, the log, waiting clients and metrics name the clock, and what to do about it."""
    caplog.set_level(logging.INFO, "vanadium_node")
    clock = f"this node's clock is {way} the cluster agent's"
    node.ahead, ten = ahead, timedelta(minutes=10)
    begin, end = Caveat.not_before(utc_now() - ten), Caveat.expiry(utc_now() + ten)
    with trio.fail_after(PATIENCE_SECONDS):
        async with node.cluster(begin, end), node.pod():
            page = await node.said(clock)
            assert "there is no identity yet" in page
            assert why in page
            assert "set it right (NTP)" in page
            assert abs(await node.measured() - ahead.total_seconds()) < 5
            warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
            assert sum(each.startswith(clock) for each in warned) == 1
            assert any(each.startswith("no identity yet") and clock in each for each in warned)
            await until(partial(waiting_in_vain, node.socket, clock))
            probe = ["healthcheck", "--socket", str(node.socket)]
            done = await trio.to_thread.run_sync(run_module, node.folder, probe, clean_environment())
            assert (done.returncode, clock in done.stderr) == (1, True), done.stderr
            node.ahead = timedelta(0)
            await eventually(node.socket.exists)
            assert abs(await node.measured()) < 5
            assert "clock and the cluster agent's agree again" in caplog.text
    audited = (node.folder / "data" / "audit.jsonl").read_text()
    assert audited.count("SeekBlessings") == 1, "the secret was shown to nobody who was not trusted"


async def test_what_was_given_has_expired_already(node: Node) -> None:
    """A clock that is ahead by more than a replica's blessings live."""
    node.ahead = 2 * HOUR + FAR
    with trio.fail_after(PATIENCE_SECONDS):
        async with node.cluster(), node.pod():
            page = await node.said("this node's clock is 3 h 30 min ahead of the cluster agent's")
            assert "are of no use here: root:alice:app:" in page
            assert "set it right (NTP)" in page


@pytest.mark.parametrize(
    ("seconds", "sentence"),
    [(-450, r"this node's clock is 7 min \d+ s behind the cluster agent's: blessings begin"), (1, "")],
)
async def test_a_clock_that_is_not_in_the_way_yet(
    node: Node, caplog: pytest.LogCaptureFixture, seconds: int, sentence: str
) -> None:
    """There is an identity, and it is served; more than some seconds are said once."""
    node.ahead = timedelta(seconds=seconds)
    with trio.fail_after(PATIENCE_SECONDS):
        async with node.cluster(), node.pod():
            await eventually(node.socket.exists)
            assert await get(node.health, "/readyz") == (200, "ok\n")
            assert abs(await node.measured() - seconds) < 3
    said = [record.getMessage() for record in caplog.records if "clock" in record.getMessage()]
    assert len(said) == bool(sentence)
    assert re.match(sentence, "".join(said))


async def test_a_clock_that_is_behind_keeps_no_renewal_waiting(node: Node) -> None:
    """What seems to live for an hour and a half, and lives for a second, is renewed within that."""
    node.ahead = -FAR
    with trio.fail_after(PATIENCE_SECONDS):
        async with node.cluster(ttl=timedelta(seconds=1)), node.pod():
            audit = node.folder / "data" / "audit.jsonl"
            await eventually(lambda: audit.read_text().count("SeekBlessings") > 1, seconds=10)


class Teller(Service):
    """A cluster agent that tells any time, and gives blessings of no use."""

    authorizer = staticmethod(everyone)

    def __init__(self, gives: Blessings, tells: datetime) -> None:
        self.gives, self.tells = gives, tells
        self.presented: list[tuple[str, ...]] = []

    @method(tag=Tag.READ)
    def time(self, call: Call) -> datetime:
        """Returns some time."""
        self.presented.append(call.peer.presented)
        return self.tells

    @method(tag=Tag.READ)
    async def seek_blessings(self, call: Call, secret: str) -> Blessings:
        """Returns blessings of another key."""
        return self.gives


@pytest.mark.parametrize("seconds", [-3600, 0, 10**9])
async def test_strangers_can_say_what_they_like(node: Node, seconds: int) -> None:
    """Of another root, or of another name: what they say of the time is in no error, and they see nothing of the replica."""
    (node.folder / "secret").write_text("x")
    replica = await blessed(node.root, "replica")
    for other in (await blessed(await new_root(), "agent"), await blessed(node.root, "other")):
        told, clock = utc_now() + timedelta(seconds=seconds), ClusterClock(utc_now)
        teller = Teller(default_of(other), told)
        async with serve(teller, other, listen=["127.0.0.1:0"]) as server:
            with pytest.raises(NotTrustedError, match="is not trusted") as refused:
                await seek_blessings(
                    f"/(root:agent)@{server.addresses[0]}", node.folder / "secret", replica, utc_now, clock
                )
        assert "clock" not in str(refused.value)
        assert clock.offset is None
        assert teller.presented == [()]


class Silent(Service):
    """A cluster agent that gives blessings, and never tells the time."""

    authorizer = staticmethod(everyone)

    def __init__(self, gives: Blessings) -> None:
        self.gives = gives

    @method(tag=Tag.READ)
    async def time(self, call: Call) -> datetime:
        """Never returns."""
        await trio.sleep_forever()

    @method(tag=Tag.READ)
    async def seek_blessings(self, call: Call, secret: str) -> Blessings:
        """Returns the blessings."""
        return self.gives


@pytest.fixture
def clock() -> MockClock:
    """A clock that jumps to what is due next when everybody has waited for a moment."""
    return MockClock(autojump_threshold=0.01)


async def test_what_was_given_does_not_wait_for_the_time(clock: MockClock, node: Node) -> None:
    """Long before an attempt would be given up, and what it brought with it."""
    (node.folder / "secret").write_text("x")
    agent, replica = await blessed(node.root, "agent"), await blessed(node.root, "replica")
    given = await bless(node.root, replica, "x", Caveat.unconstrained())
    async with serve(Silent(given), agent, listen=["127.0.0.1:0"]) as server:
        with trio.fail_after(LEAST_ATTEMPT_SECONDS / 2):
            name = f"/(root:agent)@{server.addresses[0]}"
            assert await seek_blessings(name, node.folder / "secret", replica, utc_now) == given


@pytest.mark.parametrize("told", [datetime.max, datetime.min])
async def test_times_at_the_end_of_time(node: Node, told: datetime) -> None:
    """A cluster agent gone mad ends no pod agent."""
    (node.folder / "secret").write_text("x")
    agent, replica = await blessed(node.root, "agent"), await blessed(node.root, "replica")
    teller = Teller(await bless(node.root, replica, "x", Caveat.const(False)), told.replace(tzinfo=UTC))
    async with serve(teller, agent, listen=["127.0.0.1:0"]) as server:
        with pytest.raises(NotTrustedError, match=r"never valid.*; this node's clock is \d+ d \d+ h (behind|ahead of)"):
            await seek_blessings(f"/(root:agent)@{server.addresses[0]}", node.folder / "secret", replica, utc_now)


@pytest.mark.parametrize(
    ("ahead", "half", "is_noticeable"),
    [(5.1, 0, True), (-5.1, 0, True), (5, 0, False), (20, 16, False), (-20, 14, True)],
)
def test_a_slow_answer_is_no_skew(ahead: float, half: float, is_noticeable: bool) -> None:
    """What the round trip may explain is not held against the clock."""
    offset = Offset(timedelta(seconds=ahead), timedelta(seconds=half), utc_now())
    assert offset.is_noticeable is is_noticeable


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7, "7 s"), (432, "7 min 12 s"), (3600, "1 h"), (86405, "1 d"), (0, "0 s"), (90061, "1 d 1 h"), (59.7, "1 min")],
)
def test_in_words(seconds: float, words: str) -> None:
    """The largest unit and the next are enough."""
    assert in_words(timedelta(seconds=seconds)) == words
