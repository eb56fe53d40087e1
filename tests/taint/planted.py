"""Tests that leak a key or a secret, each in another place: `test_places.py` runs them in a session of their own.

The name of each test says what the watch must report of it; the first part of what it prints is the place.
"""

import base64
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from prometheus_client import CollectorRegistry, Counter, generate_latest
from taint_hooks import scalar

from vanadium_node.errors import InputError
from vanadium_node.secret_store import fresh_secret
from vanadium_node.security.keys import KeyType, PrivateKey

log = logging.getLogger("vanadium_node.planted")


def raw(key: PrivateKey) -> bytes:
    """Return the bytes of a key."""
    return scalar(key._key)


@pytest.fixture(params=KeyType)
def key(request: pytest.FixtureRequest) -> PrivateKey:
    """A key of the product's."""
    return PrivateKey.generate(request.param)


@pytest.fixture
def text(key: PrivateKey) -> str:
    """The key as text."""
    return raw(key).hex()


@pytest.fixture
def secret() -> str:
    """An application's secret."""
    return fresh_secret()


def test_log_that_is_shown(text: str) -> None:
    log.warning("made %s", text)


def test_log_that_is_not_shown(secret: str) -> None:
    log.debug("made %s", secret)


def test_standard_output(key: PrivateKey) -> None:
    print(raw(key))


def test_standard_error(secret: str) -> None:
    print(base64.b64encode(secret.encode()), file=sys.stderr)


def test_failure(text: str) -> None:
    assert not text


def test_error_of_ours(text: str) -> None:
    InputError("no", hint=text)


def test_error_of_others(secret: str) -> None:
    with pytest.raises(ValueError, match="no"):
        raise ValueError("no", secret)


def test_metrics(text: str) -> None:
    registry = CollectorRegistry()
    Counter("calls", "Calls.", ["who"], registry=registry).labels(text).inc()
    generate_latest(registry)


def test_file(tmp_path: Path, key: PrivateKey) -> None:
    (tmp_path / "audit.jsonl").write_bytes(b'{"key": "' + base64.b64encode(raw(key)) + b'"}\n')


def test_file_with_a_key_of_another_name(tmp_path: Path, key: PrivateKey) -> None:
    (tmp_path / "private-key.pem").write_bytes(key.to_pem())
    (tmp_path / "private-key.pem.bak").write_bytes(key.to_pem())


def test_file_for_something_else(tmp_path: Path, secret: str) -> None:
    (tmp_path / "private-key.pem").write_text(secret)


def test_file_that_is_removed(key: PrivateKey) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "core").write_bytes(bytes(12345) + raw(key))


def test_file_that_a_program_removes(text: str) -> None:
    program = "import pathlib, shutil, sys, tempfile; d = tempfile.mkdtemp(); pathlib.Path(d, 'log').write_text(sys.stdin.read()); shutil.rmtree(d)"
    subprocess.run([sys.executable, "-c", program], input=text.encode(), check=True)


def test_arguments(secret: str) -> None:
    subprocess.run(["true", secret], check=True)


def test_arguments_of_a_program_that_a_shell_starts(text: str) -> None:
    line = 'read -r x; "$0" -c pass "$x"; true'
    subprocess.run(["sh", "-c", line, sys.executable], input=text.encode() + b"\n", check=True)


def test_environment(text: str) -> None:
    subprocess.run(["true"], env={**os.environ, "KEY": text}, check=True)


def test_environment_of_ours(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("SECRET", secret)
    subprocess.run([sys.executable, "-c", "pass"], check=True)


@pytest.fixture
def sleeper(text: str) -> Iterator[None]:
    """A program that nobody of ours has started, and that goes on."""
    with subprocess.Popen(["bash", "-c", 'read -r x; echo; exec -a "$x" sleep 600'], stdin=-1, stdout=-1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(text.encode() + b"\n")
        process.stdin.close()
        process.stdout.read(1)
        while b"sleep" not in Path(f"/proc/{process.pid}/comm").read_bytes():
            pass
        yield
        process.kill()


def test_arguments_of_a_living_process(sleeper: None) -> None:
    pass


def test_output_of_a_program(text: str) -> None:
    subprocess.run(["cat"], input=text.encode(), capture_output=True, check=True)


def test_error_output_of_a_program(secret: str) -> None:
    subprocess.run(["sh", "-c", "cat >&2"], input=secret.encode(), capture_output=True, check=True)


def test_file_with_the_key_of_a_program(tmp_path: Path) -> None:
    command = ["principal", "create", "--with-passphrase=false", "p", "p"]
    subprocess.run([sys.executable, "-m", "vanadium_node", *command], cwd=tmp_path, check=True)
    (tmp_path / "p" / "private-key.pem").rename(tmp_path / "key")


def test_file_with_the_key_of_a_clean_program(tmp_path: Path) -> None:
    command = ["principal", "create", "--with-passphrase=false", "p", "p"]
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-m", "vanadium_node", *command], cwd=tmp_path, env=environment, check=True)
    (tmp_path / "p" / "private-key.pem").rename(tmp_path / "key")


def test_file_with_a_key_read_from_a_file(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    unknown = Ed25519PrivateKey.generate()
    der = unknown.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    PrivateKey.from_pem(unknown.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "der").write_bytes(der)


def test_nothing_of_a_well_kept_key(tmp_path: Path, key: PrivateKey, secret: str) -> None:
    (tmp_path / "private-key.pem").write_bytes(key.to_pem())
    log.warning("made %r, %s", key, key.public_key)
    subprocess.run(["cat"], input=secret.encode(), stdout=subprocess.DEVNULL, check=True)
