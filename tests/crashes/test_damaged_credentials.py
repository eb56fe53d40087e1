"""A bit of a credentials directory that changes: the right principal or a sentence that names the file, and nothing half made.

The plain run changes one bit of each byte; VANADIUM_TEST_EVERY_BYTE=1 changes all eight.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from agent_parties import Machine, clean_environment, default_of, new_root, short_directory
from crashing_agent import CrashingAgent
from disk_faults import EVERY_BYTE, flipped
from http_get import get

from vanadium_node.claim import open_ownership
from vanadium_node.claim.ownership import PERMISSIONS_FILE
from vanadium_node.errors import DamagedError, InputError, StorageError
from vanadium_node.security.access import Permissions
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import KeyType, PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.storage.credentials import CredentialsDirectory

PASSPHRASE = b"open sesame"


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A folder for the processes of one test."""
    with short_directory() as folder:
        machine = Machine(folder)
        yield machine
        machine.end()


def versions(data: bytes) -> Iterator[bytes]:
    """Yield the data with one bit changed."""
    for at in range(len(data)):
        for bit in range(8) if EVERY_BYTE else [(at * 5 + 3) % 8]:
            yield flipped(data, at, bit)


def opened_or_refused(directory: CredentialsDirectory, passphrase: bytes | None) -> Principal | None:
    """Return the principal; None where it is refused with a sentence that names the key's file and the next step."""
    ask = None if passphrase is None else lambda: passphrase
    try:
        return directory.open(ask)
    except (StorageError, InputError) as error:
        refused = error
    assert str(directory.key_file) in refused.message
    assert "backup" in refused.hint
    return None


@pytest.mark.parametrize("key_type", KeyType)
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
async def test_each_byte_of_the_key(tmp_path: Path, key_type: KeyType, passphrase: bytes | None) -> None:
    """Another key is not believed, whatever it decodes to; with a passphrase the sentence says that this may be what is wrong."""
    directory = CredentialsDirectory(tmp_path / "alice")
    made = await directory.create(PrivateKey.generate(key_type), "alice", passphrase=passphrase)
    right = directory.key_file.read_bytes()
    before = sorted(directory.path.iterdir())
    for damaged in versions(right):
        directory.key_file.write_bytes(damaged)
        opened = opened_or_refused(directory, passphrase)
        if opened is not None:
            assert opened.public_key == made.public_key
            assert (opened.store, opened.roots) == (made.store, made.roots)
        assert directory.key_file.read_bytes() == damaged
    assert sorted(directory.path.iterdir()) == before


@pytest.mark.parametrize("key_type", KeyType)
async def test_each_byte_of_the_state(tmp_path: Path, key_type: KeyType) -> None:
    """Store and roots are the ones that the principal signed, or none."""
    directory = CredentialsDirectory(tmp_path / "alice")
    made = await directory.create(PrivateKey.generate(key_type), "alice")
    state = directory.state_file(made.public_key)
    right = state.read_bytes()
    for damaged in versions(right):
        state.write_bytes(damaged)
        with pytest.raises(StorageError, match=f"'{state}' is damaged: .*backup"):
            directory.open()
    state.write_bytes(right)
    assert directory.open().store == made.store


async def test_each_byte_of_the_permissions(tmp_path: Path) -> None:
    """A name that changed by one letter is somebody else: nobody gets rights that the claim did not give."""
    root = await new_root()
    ownership = await open_ownership(tmp_path, [])
    granted = await root.bless(ownership.principal.public_key, default_of(root), "agent", [Caveat.unconstrained()])
    permissions = Permissions.of(Admin=["root:alice"], Read=["root"])
    await ownership.claim(granted, permissions)
    file = tmp_path / PERMISSIONS_FILE
    right = file.read_bytes()
    for damaged in versions(right):
        file.write_bytes(damaged)
        with pytest.raises(DamagedError, match=f"'{file}' is damaged: .*backup"):
            await open_ownership(tmp_path, [])
    file.write_text(permissions.encode())
    assert (await open_ownership(tmp_path, [])).permissions == permissions, "written by an earlier version"


async def claimed(folder: Path) -> CrashingAgent:
    """Return an agent that was claimed and ended."""
    agent = await CrashingAgent.at(folder)
    try:
        await agent.begin(secrets=1)
    finally:
        agent.end()
    return agent


def what_is_in(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder, with their content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["private-key.pem", "state-*", "permissions.json"])
async def test_a_cluster_agent_with_a_damaged_file(machine: Machine, name: str) -> None:
    """It lives, says why it is not ready, and has changed nothing; once the right file is there it is what it was, by itself."""
    agent = await claimed(machine.folder / "agent")
    data = agent.folder / "data"
    [file] = data.rglob(name)
    right = file.read_bytes()
    file.write_bytes(flipped(right, len(right) // 2, 4))
    before = what_is_in(data)
    daemon = agent.launch()
    try:
        log = await trio.to_thread.run_sync(daemon.logged, "not ready")
        assert f"'data/{file.relative_to(data)}' is damaged: " in log
        assert "restore it from a backup" in await agent.unready()
        assert what_is_in(data) == before
        file.write_bytes(right)
        agent.name = await trio.to_thread.run_sync(daemon.announced, "NAME")
        assert await agent.is_known(agent.secrets[0])
        assert not await agent.unready()
        assert "is sound again" in daemon.log.read_text()
        assert daemon.log.read_text().count("ERROR") == 1
        assert agent.stop() == 0
    finally:
        agent.end()


async def test_a_cluster_agent_with_a_damaged_file_ends_when_it_is_asked_to(machine: Machine) -> None:
    """At once, and well."""
    agent = await claimed(machine.folder / "agent")
    [file] = agent.folder.rglob("permissions.json")
    file.write_bytes(flipped(file.read_bytes(), 20, 4))
    daemon = agent.launch()
    try:
        await trio.to_thread.run_sync(daemon.logged, "not ready")
        assert agent.stop() == 0
        assert "Traceback" not in daemon.log.read_text()
        assert daemon.output.read_text() == ""
    finally:
        agent.end()


@pytest.mark.parametrize("name", ["private-key.pem", "state-*"])
async def test_each_byte_of_what_an_agent_is(tmp_path: Path, name: str) -> None:
    """Each is damage, which the agent waits out, and no other error, which would end it; or it is the same agent."""
    key = (await open_ownership(tmp_path, [])).principal.public_key
    [file] = (tmp_path / "principal").glob(name)
    right, refusals = file.read_bytes(), 0
    for damaged in versions(right):
        file.write_bytes(damaged)
        refused: DamagedError | None = None
        try:
            assert (await open_ownership(tmp_path, [])).principal.public_key == key
        except DamagedError as error:
            refused = error
        if refused is not None:
            refusals += 1
            assert str(file) in refused.message
            assert refused.hint.startswith("restore it from a backup")
    assert refusals > len(right) / 2


@pytest.mark.parametrize("name", ["private-key.pem", "state-*"])
async def test_commands_with_a_damaged_file(machine: Machine, name: str) -> None:
    """Tools say the same in one line, with the same status, and print nothing else."""
    directory = CredentialsDirectory(machine.folder / "alice")
    await directory.create(PrivateKey.generate(KeyType.ED25519), "alice")
    [damaged] = directory.path.glob(name)
    right = damaged.read_bytes()
    damaged.write_bytes(flipped(right, len(right) // 2, 4))
    environment = clean_environment(V23_CREDENTIALS=str(directory.path))
    done = machine.run("principal", "dump", environment=environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"'{damaged}' is damaged: " in done.stderr


async def test_a_pod_agent_with_a_damaged_secret(machine: Machine) -> None:
    """What it is given to read is text that makes no sense: it waits, names the file, and is neither ready nor ended."""
    secret, health = machine.folder / "secret", f"unix:{machine.folder / 'health'}"
    secret.write_bytes(b"\xff" + b"A" * 341)
    roots = default_of(await new_root()).text
    options = [f"--secret-key-file={secret}", f"--health-listen={health}", f"--root-blessings={roots}"]
    daemon = machine.start("pod-agent", "--agent=/127.0.0.1:1", f"--socket-path={machine.folder / 's'}", *options)
    log = await trio.to_thread.run_sync(daemon.logged, "no identity yet")
    assert f"the file '{secret}' holds no secret" in log
    assert (await get(health, "/livez"))[0] == 200
    status, reason = await get(health, "/readyz")
    assert status == 503
    assert str(secret) in reason
    probe = machine.run("healthcheck", f"--socket={machine.folder / 's'}")
    assert (probe.returncode, probe.stderr.count("\n")) == (1, 1)
    assert machine.run("healthcheck", "--live", f"--socket={machine.folder / 's'}").returncode == 0, "it lives"
    assert daemon.end() == 0
