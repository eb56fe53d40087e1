"""The whole of it as people do it: a discharger as a daemon, a blessing that needs it, a line that revokes the blessing."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_parties import Daemon, Machine, clean_environment, short_directory

PERMISSIONS = '{"Debug": {"In": ["root:friend"]}}'


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A folder with a short name, and processes that end with the test."""
    with short_directory() as folder:
        machine = Machine(folder)
        try:
            yield machine
        finally:
            machine.end()


def do(machine: Machine, who: str, *arguments: str, status: int = 0) -> str:
    """Run a command as somebody, and return what it printed; its last sentence where it fails."""
    done = machine.run(*arguments, environment=clean_environment(V23_CREDENTIALS=str(machine.folder / who)))
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout.strip() if status == 0 else done.stderr.strip().splitlines()[-1]


def fork(machine: Machine, who: str) -> None:
    """Make a principal blessed by root."""
    do(
        machine, "root", "principal", "fork", "--with-passphrase=false", "--require-caveats=false",
        str(machine.folder / who), who,
    )  # fmt: skip


def serve(machine: Machine, who: str, *arguments: str) -> Daemon:
    """Start a daemon as somebody."""
    environment = clean_environment(V23_CREDENTIALS=str(machine.folder / who))
    return machine.start(*arguments, "--v23.tcp.address=127.0.0.1:0", environment=environment)


@pytest.fixture
def people(machine: Machine) -> Machine:
    """Root, a server, a discharger, and a friend without a blessing yet."""
    do(machine, "", "principal", "create", "--with-passphrase=false", str(machine.folder / "root"), "root")
    for who in ("server", "revoker", "friend"):
        fork(machine, who)
    (machine.folder / "deny").write_text("# nobody yet\n")
    return machine


def test_revoked_within_seconds(people: Machine) -> None:
    """Bless, call, revoke by the fingerprint that is shown, be refused, forgive, call again."""
    folder = people.folder
    daemon = serve(people, "revoker", "discharger", "--deny-file", str(folder / "deny"), "--ttl", "1s")
    name = daemon.announced("NAME")
    assert name.startswith("/(root:revoker)@127.0.0.1:")
    server = serve(
        people, "server", "cluster-agent", "--root-dir", str(folder / "data"), "--v23.permissions.literal", PERMISSIONS
    )
    called = f"/{server.announced('NAME').rpartition('@')[2]}"
    given = do(
        people, "root", "principal", "bless", f"--caveat=discharge:{name};if=address:127.0.0.0/8", str(folder / "friend"),
        "friend",
    )  # fmt: skip
    (folder / "given").write_text(given)
    do(people, "friend", "principal", "set", "default", str(folder / "given"))
    do(people, "friend", "principal", "set", "forpeer", str(folder / "given"), "...")
    shown = do(people, "friend", "principal", "dumpblessings", str(folder / "given"))
    assert "and checks: Restricted to peers at [127.0.0.0/8]" in shown
    fingerprint = shown.partition("Requires a discharge of ")[2].partition(" ")[0]
    explained = do(people, "friend", "principal", "explain", str(folder / "given"))
    assert "needs a discharge, which the client fetches before the call" in explained
    call = ("rpc", "signature", "--timeout=10", called)
    do(people, "friend", *call)
    (folder / "deny").write_text(f"caveat {fingerprint}  # lost the laptop\n")
    assert f"the deny list says 'caveat {fingerprint}'" in do(people, "friend", *call, status=1)
    (folder / "deny").write_text("what is this\n")
    assert "this discharger's deny list cannot be read" in do(people, "friend", *call, status=1)
    assert "line 1: 'what is this' is not a rule" in daemon.logged("nobody gets a discharge until")
    (folder / "deny").write_text("")
    do(people, "friend", *call)
    assert daemon.end() == 0
    offline = do(
        people, "root", "principal", "bless", f"--caveat=discharge:{name};key={folder / 'revoker'};tell=method",
        str(folder / "friend"), "friend",
    )  # fmt: skip
    (folder / "given").write_text(offline)
    assert "which is told the method" in do(people, "friend", "principal", "dumpblessings", str(folder / "given"))
    assert "nobody answers" in do(
        people, "root", "principal", "bless", f"--caveat=discharge:{name}", "-", "x", status=1
    )


@pytest.mark.parametrize(
    ("deny", "says"),
    [("what is this\n", "line 1: 'what is this' is not a rule"), (None, "no such file")],
)
def test_a_deny_list_that_is_wrong_from_the_start(people: Machine, deny: str | None, says: str) -> None:
    """The daemon ends with one sentence rather than refuse everybody."""
    path: Path = people.folder / "deny"
    path.unlink() if deny is None else path.write_text(deny)
    assert says in do(people, "revoker", "discharger", "--deny-file", str(path), "--listen=127.0.0.1:0", status=1)


@pytest.mark.parametrize(
    ("caveat", "says"),
    [
        ("discharge:", "is not a caveat"),
        ("discharge:nowhere", "nowhere"),
        ("discharge:/127.0.0.1:1;who=me", "'who=me' says nothing about a discharge"),
        ("discharge:/127.0.0.1:1;tell=all", "'tell=all' says nothing"),
        ("discharge:/127.0.0.1:1;key=/nowhere", "/nowhere"),
        ("discharge:/127.0.0.1:1;if=what", "'what' is not a caveat"),
    ],
)
def test_words_that_are_no_caveat(people: Machine, caveat: str, says: str) -> None:
    """One sentence, and nothing is blessed."""
    assert says in do(people, "root", "principal", "bless", f"--caveat={caveat}", "friend", "friend", status=1)


def test_what_a_daemon_logs(people: Machine) -> None:
    """JSON lines: calls at debug, refusals and strangers that say nothing at info, each with its fields."""
    daemon = serve(
        people, "server", "cluster-agent", "--root-dir", str(people.folder / "data"), "--v23.permissions.literal",
        PERMISSIONS, "--log-format=json", "--log-level=debug", "--handshake-timeout=200ms",
    )  # fmt: skip
    address = daemon.announced("NAME").rpartition("@")[2]
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as silent:
        assert silent.recv(1) == b""
    given = do(people, "root", "principal", "bless", "--for=1h", str(people.folder / "friend"), "friend")
    (people.folder / "given").write_text(given)
    do(people, "friend", "principal", "set", "forpeer", str(people.folder / "given"), "...")
    do(people, "friend", "rpc", "signature", f"/{address}")
    do(people, "friend", "rpc", "call", f"/{address}", "ListSecrets", status=1)
    daemon.logged("refused")
    assert daemon.end() == 0
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert all(line["level"] in {"debug", "info"} and line["time"].endswith("+00:00") for line in lines)
    called = next(line for line in lines if line.get("method") == "__signature")
    assert (called["level"], called["code"], called["peer"]) == ("debug", "ok", ["root:friend"])
    assert called["duration_ms"] >= 0
    refused = next(line for line in lines if line["message"].startswith("refused"))
    assert (refused["level"], refused["code"], refused["local_names"]) == ("info", "no-access", ["root:server"])
    assert refused["peer"].startswith("root:friend at 127.0.0.1:")
    silent_one = next(line for line in lines if "has not authenticated in time" in line["message"])
    assert (silent_one["level"], silent_one["local_names"]) == ("info", ["root:server"])
    assert silent_one["peer"].startswith("127.0.0.1:")


def test_a_damaged_principal_is_waited_out(people: Machine) -> None:
    """It stays, says which file it is, and serves once that is restored."""
    key = people.folder / "revoker" / "private-key.pem"
    right = key.read_bytes()
    key.write_bytes(right[:100] + b"!" + right[101:])
    daemon = serve(people, "revoker", "discharger")
    assert f"'{key}' is damaged" in daemon.logged("not ready")
    assert daemon.process.poll() is None
    key.write_bytes(right)
    assert daemon.announced("NAME").startswith("/(root:revoker)@127.0.0.1:")
    assert daemon.end() == 0
