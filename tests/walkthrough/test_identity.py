"""What identity means in a running cluster: a key per replica, kept by its pod agent, through kills of either agent."""

import base64
import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from typing_shell import Shell

pytestmark = pytest.mark.kubectl

KUBECTL = "vanadium-node controller --local kubectl"


@pytest.fixture
def application(shell: Shell) -> Shell:
    """The walkthrough's application with two replicas, started with blessings."""
    shell.type("vanadium-node principal create --with-passphrase=false test-root test-root")
    shell.environment["V23_CREDENTIALS"] = str(shell.folder / "test-root")
    shell.write_seed_file("vkube.cfg")
    shell.write_seed_file("fortuned-deployment.json")
    manifest = json.loads((shell.folder / "fortuned-deployment.json").read_text())
    manifest["spec"]["replicas"] = 2
    (shell.folder / "fortuned-deployment.json").write_text(json.dumps(manifest))
    shell.type("vanadium-node controller --local start-cluster-agent --wait")
    shell.type("vanadium-node controller --local claim-cluster-agent")
    shell.type("vanadium-node controller --local start -f fortuned-deployment.json fortuned --wait")
    return shell


def pods(shell: Shell, label: str = "application=fortuned") -> list[dict[str, str]]:
    """Return name and address of the pods with that label."""
    items = json.loads(shell.type(f"{KUBECTL} get pods -l {label} -o json"))["items"]
    return [{"name": pod["metadata"]["name"], "ip": pod["status"]["podIP"]} for pod in items]


def identify(shell: Shell, address: str) -> dict[str, str]:
    """Return the answer of `rpc identify` as a mapping."""
    printed = shell.type(f"vanadium-node rpc identify /{address}:2345").splitlines()
    return dict(line.split(": ", 1) for line in printed)


def processes(shell: Shell, role: str) -> dict[int, dict[str, str]]:
    """Return pid → environment of the cluster's processes that run `vanadium-node ROLE`."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            entries = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        environment = dict(e.decode(errors="replace").split("=", 1) for e in entries if b"=" in e)
        if role.encode() in arguments[1:4] and str(shell.folder) in environment.get("PWD", "") + str(environment):
            found[int(folder.name)] = environment
    return found


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 40) -> None:
    """Wait until a condition of real processes holds, and fail by naming it when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds} s, still not: {what}"
        time.sleep(0.1)


def test_two_replicas_have_two_keys_and_two_names(application: Shell) -> None:
    """Replicas share a blessing, and neither a key nor a name."""
    answers = [identify(application, pod["ip"]) for pod in pods(application)]
    assert len(answers) == 2
    assert len({answer["PUBLICKEY"] for answer in answers}) == 2
    assert len({answer["PRESENTED"] for answer in answers}) == 2
    assert all(answer["PRESENTED"].startswith("test-root:fortuned:127.") for answer in answers)


def test_a_client_without_a_blessing_of_the_root_is_refused(application: Shell) -> None:
    """A stranger that trusts the application is refused by it, and told which name was rejected and why."""
    shell = application
    address = pods(shell)[0]["ip"]
    shell.type("vanadium-node principal get default >root.blessings")
    shell.type("vanadium-node principal create --with-passphrase=false stranger stranger")
    refusal = shell.refused(f"V23_CREDENTIALS=$PWD/stranger vanadium-node rpc identify /{address}:2345")
    assert "test-root:fortuned" in refusal, "the client says which name it would not accept"
    shell.type("V23_CREDENTIALS=$PWD/stranger vanadium-node principal recognize test-root root.blessings")
    refusal = shell.refused(f"V23_CREDENTIALS=$PWD/stranger vanadium-node rpc call /{address}:2345 Get")
    assert "stranger" in refusal
    assert "not recognized" in refusal
    assert shell.type(f"vanadium-node rpc call /{address}:2345 Get")


def test_the_private_key_of_a_pod_agent_is_nowhere(application: Shell) -> None:
    """No 32 bytes in the pod's files, logs, environments and arguments are the private key of its identity."""
    shell = application
    address = pods(shell)[0]["ip"]
    fingerprint = identify(shell, address)["PUBLICKEY"]
    texts = [
        path.read_bytes()
        for path in (shell.folder / "c").rglob("*")
        if path.is_file() and path.stat().st_size < 300_000
    ]
    for pid in processes(shell, "pod-agent"):
        texts += [(Path("/proc") / str(pid) / name).read_bytes() for name in ("environ", "cmdline")]
    assert len(texts) > 5
    assert not any(fingerprint in all_private_keys_in(text) for text in set(texts))


def test_a_private_key_would_be_found() -> None:
    """The search above finds a key in each form in which one could be written down."""
    key = ec.generate_private_key(ec.SECP256R1())
    scalar = key.private_numbers().private_value
    raw = scalar.to_bytes(32, "big")
    encodings = [
        key.private_bytes(encoding, form, NoEncryption())
        for encoding in (Encoding.DER, Encoding.PEM)
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
    ]
    words = [raw.hex().encode(), base64.b64encode(raw), base64.urlsafe_b64encode(encodings[0]).rstrip(b"=")]
    assert fingerprint_of(scalar) in private_keys_in(raw)
    for written in [*encodings, *words]:
        assert fingerprint_of(scalar) in all_private_keys_in(b"before " + written + b"\nafter"), written


def all_private_keys_in(text: bytes) -> set[str]:
    """Return the fingerprints of the private keys in a text: as bytes, and behind every base64 or hex word of it."""
    return set().union(*(private_keys_in(candidate) for candidate in (text, *encoded_forms(text))))


def encoded_forms(text: bytes) -> Iterator[bytes]:
    """Yield the bytes that base64 (PEM of several lines too) and hex words of a text stand for."""
    bodies = [body.replace(b"\n", b"") for body in re.findall(rb"-----\n([A-Za-z0-9+/=\n]+)-----END", text)]
    for word in (*bodies, *re.findall(rb"[A-Za-z0-9_+/-]{43,}", text)):
        plain = word.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        plain = plain[: -1 if len(plain) % 4 == 1 else None]
        yield base64.b64decode(plain + b"=" * (-len(plain) % 4))
    for word in re.findall(rb"[0-9a-fA-F]{64}", text):
        yield bytes.fromhex(word.decode())


def private_keys_in(text: bytes) -> set[str]:
    """Return the fingerprints of the P-256 keys whose private scalar stands at the places a key would stand.

    A key is stored raw (alone), or behind the OCTET STRING header 04 20 of SEC 1 and PKCS#8.
    """
    places = {0, *(found.end() for found in re.finditer(rb"\x04\x20", text))}
    scalars = {text[at : at + 32] for at in places if len(text) >= at + 32}
    return {fingerprint_of(int.from_bytes(scalar, "big")) for scalar in scalars}


def fingerprint_of(scalar: int) -> str:
    """Return the fingerprint of the public key that belongs to a private scalar of P-256."""
    try:
        key = ec.derive_private_key(scalar, ec.SECP256R1()).public_key()
    except ValueError:
        return ""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()[:16].hex(":")


def test_killing_the_cluster_agent_disturbs_no_pod(application: Shell) -> None:
    """Applications go on while the cluster agent is away, and it comes back with its identity and secrets."""
    shell = application
    before = {pod["ip"]: identify(shell, pod["ip"]) for pod in pods(shell)}
    (victim,) = processes(shell, "cluster-agent")
    os.kill(victim, signal.SIGKILL)
    assert {ip: identify(shell, ip) for ip in before} == before
    wait_for("the cluster agent is restarted", lambda: set(processes(shell, "cluster-agent")) not in ({victim}, set()))
    shell.type(f"{KUBECTL} wait --for=condition=Available deployment/cluster-agentd --timeout=60s")
    shell.type(f"{KUBECTL} scale deployment fortuned --replicas=3")
    shell.type(f"{KUBECTL} rollout status deployment/fortuned --timeout=60s")
    assert len({identify(shell, pod["ip"])["PRESENTED"] for pod in pods(shell)}) == 3


def test_a_killed_pod_agent_is_restarted_with_a_new_key(application: Shell) -> None:
    """The key dies with its pod agent; the next one gets blessings for a fresh key, and the application uses them."""
    shell = application
    pod = pods(shell)[0]
    before = identify(shell, pod["ip"])
    victims = [pid for pid, env in processes(shell, "pod-agent").items() if env.get("VANADIUM_POD_IP") == pod["ip"]]
    assert len(victims) == 1
    os.kill(victims[0], signal.SIGKILL)

    def has_new_key() -> bool:
        done = shell.run(f"vanadium-node rpc identify /{pod['ip']}:2345")
        return done.status == 0 and before["PUBLICKEY"] not in done.stdout

    wait_for("the application presents a new key", has_new_key)
    assert identify(shell, pod["ip"])["PRESENTED"].startswith("test-root:fortuned:")
