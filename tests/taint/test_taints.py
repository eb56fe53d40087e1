"""The search for keys and secrets finds one that is planted, in each form and each place, and programs leave no core behind."""

import base64
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from agent_parties import clean_environment
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from taints import Taints

SUPPORT = Path(__file__).parents[1] / "support"
P256, ED25519 = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
SCALAR = P256.private_numbers().private_value.to_bytes(32, "big")
SEED = ED25519.private_bytes_raw()
WRITTEN = {
    "raw": (SCALAR, SCALAR),
    "hex": (SCALAR, SCALAR.hex().encode()),
    "capitals": (SCALAR, SCALAR.hex().upper().encode()),
    "decimal": (SCALAR, str(int.from_bytes(SCALAR, "big")).encode()),
    "repr of bytes": (SCALAR, repr(SCALAR).encode()),
    "base64": (SCALAR, base64.b64encode(SCALAR)),
    "base64url, shifted": (SCALAR, base64.urlsafe_b64encode(b"x" + SCALAR)),
    "base64, shifted by two": (SCALAR, base64.b64encode(b"xy" + SCALAR)),
    "SEC 1": (SCALAR, P256.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())),
    "Ed25519 PEM": (SEED, ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
    "PKCS 8": (SCALAR, P256.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
    "PKCS 8 PEM": (SCALAR, P256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
    "PEM in JSON": (
        SCALAR,
        P256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).replace(b"\n", b"\\n"),
    ),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_it_is_found_in_each_form(form: str) -> None:
    """Inside of other text; the answer does not hold it."""
    value, written = WRITTEN[form]
    taints = Taints()
    taints.learn("key", value)
    found = taints.find(b"before " + written + b" after")
    assert found.startswith("a key (")
    assert value.hex() not in found
    assert taints.find(b"before " + os.urandom(64).hex().encode() + b" after") == ""
    assert taints.find(written[:20]) == "", "a part that gives nothing away"


PLACES = {
    "a log": 'import logging; logging.getLogger("x").warning("it is %s", SECRET)',
    "standard output": "print(SECRET)",
    "a failure": "raise RuntimeError(SECRET)",
    "an error that is caught": """
        from vanadium_node.errors import InputError
        with pytest.raises(InputError):
            raise InputError(f"no {SECRET}")
    """,
    "an argument": "subprocess.run(['true', SECRET])",
    "an environment": "subprocess.run(['true'], env={'S': SECRET})",
    "a file": '(tmp_path / "audit.jsonl").write_text(f"{{SECRET}}".replace("{SECRET}", SECRET))',
    "the log of a child that made it": """
        code = ("from vanadium_node.secret_store.store import fresh_secret; import sys; sys.stderr.write(fresh_secret())")
        with (tmp_path / "log").open("wb") as log:
            subprocess.run([sys.executable, "-c", code], stderr=log)
    """,
}


def reported(folder: Path, bodies: dict[str, str]) -> dict[str, str]:
    """Run tests with those bodies in a session of its own with the plugin; return what is reported of each."""
    tests = [
        f"def test_{number}(tmp_path):\n    SECRET = store.fresh_secret()\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
        for number, body in enumerate(bodies.values())
    ]
    head = "import subprocess, sys\nimport pytest\nfrom vanadium_node.secret_store import store\n\n"
    (folder / "test_planted.py").write_text(head + "\n".join(tests))
    words = [
        "-m",
        "pytest",
        "-q",
        "-rA",
        "-p",
        "taint_plugin",
        "-p",
        "no:cacheprovider",
        f"--rootdir={folder}",
        "-c",
        os.devnull,
    ]
    done = subprocess.run(
        [sys.executable, *words, str(folder / "test_planted.py")],
        capture_output=True, text=True, check=False, cwd=folder, env=clean_environment(PYTHONPATH=str(SUPPORT)),
    )  # fmt: skip
    lines = {
        title: re.search(rf"^(PASSED|FAILED) \S+::test_{number}\b.*$", done.stdout, re.MULTILINE)
        for number, title in enumerate(bodies)
    }
    return {title: found[0] if found else done.stdout + done.stderr for title, found in lines.items()}


def test_it_is_found_in_each_place(tmp_path: Path) -> None:
    """The test fails, and is told where the secret stands; whoever keeps it in a file that is made for it passes."""
    keeping = {"a secret's file": '(tmp_path / "secret").write_text(SECRET)', "nowhere": "pass"}
    results = reported(tmp_path, PLACES | keeping)
    for place in PLACES:
        assert results[place].startswith("FAILED"), (place, results[place])
        assert "TAINTED: a secret (" in results[place]
    for place in keeping:
        assert results[place].startswith("PASSED"), (place, results[place])


def test_no_command_leaves_a_core(tmp_path: Path) -> None:
    """Aborted while it holds a key, where cores are allowed, it writes none: the limit says so."""
    environment = clean_environment(V23_CREDENTIALS=str(tmp_path / "alice"))
    program = [sys.executable, "-m", "vanadium_node"]
    made = ["principal", "create", "--with-passphrase=false", "alice", "alice"]
    subprocess.run([*program, *made], check=True, cwd=tmp_path, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"/127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            ["sh", "-c", 'ulimit -S -c "$(ulimit -H -c)" && exec "$@"', "sh", *program, "rpc", "identify", name],
            stderr=subprocess.DEVNULL, cwd=tmp_path, env=environment,
        )  # fmt: skip
        connection, _ = silent.accept()  # it has read its key
        with connection:
            limits = Path(f"/proc/{process.pid}/limits").read_text()
            process.send_signal(signal.SIGABRT)
            assert process.wait(10) == -signal.SIGABRT
    assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE)
    assert [path.name for path in tmp_path.iterdir()] == ["alice"]
