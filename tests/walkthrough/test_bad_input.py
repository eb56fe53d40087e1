"""Wrong input along the walkthrough: one sentence that names the thing and the next step, and nothing half-made."""

import json
import socket

import pytest
from typing_shell import Shell

pytestmark = pytest.mark.kubectl

KUBECTL = "vanadium-node controller --local kubectl"
START = "vanadium-node controller --local start -f fortuned-deployment.json fortuned"


@pytest.fixture
def rooted(shell: Shell) -> Shell:
    """A shell with the root principal and the seed's files."""
    shell.type("vanadium-node principal create --with-passphrase=false test-root test-root")
    shell.environment["V23_CREDENTIALS"] = str(shell.folder / "test-root")
    for name in ("vkube.cfg", "fortuned-deployment.json"):
        shell.write_seed_file(name)
    return shell


def one_sentence(stderr: str) -> str:
    """Return the last line of what a failed command said, which must be its reason."""
    lines = [line for line in stderr.splitlines() if not line.startswith("WARNING")]
    assert lines, "a failed command says why"
    assert lines[-1].startswith(("vanadium-node:", "fortuned:")), stderr
    return lines[-1]


def test_cluster_agent_before_and_after_its_claim(rooted: Shell) -> None:
    """Nothing starts with blessings before the claim; a second claim is told so; nothing is left of either."""
    shell = rooted
    assert "start-cluster-agent" in one_sentence(shell.refused(START)), "no cluster agent: the next step is named"
    shell.type("vanadium-node controller --local start-cluster-agent --wait")
    assert "claim-cluster-agent" in one_sentence(shell.refused(START))
    assert shell.type(f"{KUBECTL} get secrets -o name") == ""
    assert "fortuned" not in shell.type(f"{KUBECTL} get deployments -o name")
    shell.type("vanadium-node controller --local claim-cluster-agent")
    assert "already claimed" in one_sentence(shell.refused("vanadium-node controller --local claim-cluster-agent"))
    assert "already" in one_sentence(shell.refused("vanadium-node controller --local start-cluster-agent"))
    shell.type(f"{START} --wait")
    assert "already" in one_sentence(shell.refused(START))
    assert len(shell.type(f"{KUBECTL} get secrets -o name").splitlines()) == 1
    manifest = json.loads((shell.folder / "fortuned-deployment.json").read_text())
    manifest["metadata"]["name"] = "other"
    (shell.folder / "other.json").write_text(json.dumps(manifest))
    assert "other" in one_sentence(shell.refused("vanadium-node controller --local stop -f other.json"))
    assert "other" in one_sentence(shell.refused("vanadium-node controller --local update -f other.json"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {}}', "Deployment"),
        ('{"apiVersion": "apps/v1", "kind": ', "manifest"),
        ("a: [b\n", "manifest"),
        ("", "manifest"),
        ("- 1\n", "manifest"),
        ('{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}}', "manifest"),
    ],
)
def test_manifests_that_are_none(rooted: Shell, content: str, expected: str) -> None:
    """A file that is no Deployment is named, with what is wrong, before anything is made."""
    (rooted.folder / "manifest.yaml").write_text(content)
    refusal = rooted.refused("vanadium-node controller --local start -f manifest.yaml fortuned")
    assert expected in one_sentence(refusal)
    assert "manifest.yaml" in one_sentence(refusal)


def test_files_that_are_missing_or_broken(rooted: Shell) -> None:
    """Missing and broken files are named, with the next step."""
    shell = rooted
    assert "nowhere.json" in one_sentence(
        shell.refused("vanadium-node controller --local start -f nowhere.json fortuned")
    )
    assert "nowhere.cfg" in one_sentence(
        shell.refused("vanadium-node controller --config nowhere.cfg --local start-cluster-agent")
    )
    (shell.folder / "broken.cfg").write_text('{"clusterAgent": ')
    assert "broken.cfg" in one_sentence(
        shell.refused("vanadium-node controller --config broken.cfg --local start-cluster-agent")
    )
    (shell.folder / "unknown.cfg").write_text('{"clusterAgnet": {}}')
    refusal = one_sentence(shell.refused("vanadium-node controller --config unknown.cfg --local start-cluster-agent"))
    assert "clusterAgnet" in refusal
    assert "clusterAgent" in refusal
    assert "nowhere" in one_sentence(shell.refused("V23_CREDENTIALS=nowhere vanadium-node principal dump"))
    assert "V23_CREDENTIALS" in one_sentence(shell.refused("unset V23_CREDENTIALS; vanadium-node principal dump"))


def test_principals_and_patterns(rooted: Shell) -> None:
    """Wrong names and patterns are quoted; a corrupt credentials directory is named; none is left half-made."""
    shell = rooted
    assert "a::b" in one_sentence(shell.refused("vanadium-node principal create --with-passphrase=false new 'a::b'"))
    assert not (shell.folder / "new").exists()
    assert "test-root" in one_sentence(
        shell.refused("vanadium-node principal create --with-passphrase=false test-root again")
    )
    shell.type("vanadium-node principal get default >b")
    assert "a:$:b" in one_sentence(shell.refused("vanadium-node principal set forpeer b 'a:$:b'"))
    assert "b:" in one_sentence(shell.refused("vanadium-node rpc identify '/(b:)@127.0.0.1:1'"))
    shell.type("cp -r test-root corrupt")
    for path in (shell.folder / "corrupt").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "corrupt" in one_sentence(shell.refused("V23_CREDENTIALS=corrupt vanadium-node principal dump"))


def test_addresses_and_sockets(rooted: Shell) -> None:
    """Nobody there, a port in use, a socket path too long: each names the address and what to do."""
    shell = rooted
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in one_sentence(shell.refused(f"fortuned --v23.tcp.address=127.0.0.1:{port}"))
    assert f"127.0.0.1:{port}" in one_sentence(
        shell.refused(f"vanadium-node rpc identify --timeout 0.5 /127.0.0.1:{port}")
    )
    assert f"127.0.0.1:{port}" in one_sentence(shell.refused(f"vanadium-node secret --agent /127.0.0.1:{port} new x"))
    (shell.folder / "secret").write_text("x")
    roots = shell.type("vanadium-node principal get default").strip()
    long = "x" * 120
    refusal = shell.refused(
        f"unset V23_CREDENTIALS; vanadium-node pod-agent --agent /127.0.0.1:{port} --secret-key-file secret "
        f"--root-blessings {roots} --socket-path {long}/agent.sock"
    )
    assert "agent.sock" in one_sentence(refusal)


def test_an_unknown_secret_is_not_found(rooted: Shell) -> None:
    """A secret that the cluster agent does not know is refused without repeating it."""
    shell = rooted
    shell.type("vanadium-node controller --local start-cluster-agent --wait")
    shell.type("vanadium-node controller --local claim-cluster-agent")
    template = "{{range .status.loadBalancer.ingress}}{{.ip}}{{end}}"
    address = shell.type(f"{KUBECTL} get service cluster-agent --template '{template}'")
    secret = "c2VjcmV0LXRoYXQtbm9ib2R5LWtub3dz"
    refusal = one_sentence(shell.refused(f"vanadium-node secret --agent /{address}:8193 seekblessings {secret}"))
    assert secret not in refusal
    assert "secret" in refusal
    assert shell.type(f"vanadium-node secret --agent /{address}:8193 forget {secret}") == ""
