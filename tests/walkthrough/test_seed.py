"""The walkthrough of the seed, typed from its first command to its last, on the embedded cluster."""

import re

import pytest
from typing_shell import Shell

pytestmark = pytest.mark.kubectl

NAME = r"test-root:fortuned:127\.\d+\.\d+\.\d+:\d+"


def ready_pods(shell: Shell) -> list[str]:
    """Return the names of the pods of fortuned that are ready and not on their way out."""
    lines = shell.type("vanadium-node controller --local kubectl get pods -l application=fortuned --no-headers")
    return [line.split()[0] for line in lines.splitlines() if line.split()[1] == "2/2" and line.split()[2] == "Running"]


def test_the_walkthrough_works_typed_by_hand(shell: Shell) -> None:
    """Every step of the seed works as it is written there, with an update to a new image tag in between."""
    shell.type("vanadium-node principal create --with-passphrase=false test-root test-root")
    shell.environment["V23_CREDENTIALS"] = str(shell.folder / "test-root")
    dump = shell.type("vanadium-node principal dump").splitlines()
    assert re.fullmatch(r"Public key : ([0-9a-f]{2}:){15}[0-9a-f]{2}", dump[0])
    assert dump[1] == "Default Blessings : test-root"
    assert dump[-1].endswith("[test-root]")

    shell.write_seed_file("vkube.cfg")
    shell.type("vanadium-node controller --local start-cluster-agent --wait")
    shell.type("vanadium-node controller --local claim-cluster-agent")

    shell.write_seed_file("fortuned-deployment.json")
    shell.type("vanadium-node controller --local start -f fortuned-deployment.json fortuned --wait")
    assert len(ready_pods(shell)) == 1

    shell.write_seed_file("fortuned-service.json")
    shell.type("vanadium-node controller --local kubectl create -f fortuned-service.json")
    shell.type("vanadium-node controller --local kubectl get service fortune")
    template = "{{range .status.loadBalancer.ingress}}{{.ip}}{{end}}"
    address = shell.type(f"vanadium-node controller --local kubectl get service fortune --template '{template}'")
    signature = shell.type(f"vanadium-node rpc signature /{address}:2345")
    assert "// Fortune is the interface to a fortune-telling service." in signature
    assert "Get() (fortune string | error)" in signature
    first = identify(shell, address)

    old = ready_pods(shell)
    shell.type("sed -i s/fortuned:latest/fortuned:2/ fortuned-deployment.json")
    shell.type("vanadium-node controller --local update -f fortuned-deployment.json --wait")
    assert ready_pods(shell) != old
    second = identify(shell, address)
    assert first["PUBLICKEY"] != second["PUBLICKEY"], "a new replica has a key of its own"

    shell.type("vanadium-node controller --local stop -f fortuned-deployment.json")
    shell.type("vanadium-node controller --local kubectl delete service fortune")
    shell.type("vanadium-node controller --local stop-cluster-agent")
    assert shell.type("vanadium-node controller --local kubectl get deployments,secrets -o name") == ""


def identify(shell: Shell, address: str) -> dict[str, str]:
    """Identify the application from outside, check the form of the answer and return it."""
    printed = shell.type(f"vanadium-node rpc identify /{address}:2345").splitlines()
    answer = dict(line.split(": ", 1) for line in printed)
    assert list(answer) == ["PRESENTED", "VALID", "PUBLICKEY"]
    assert re.fullmatch(NAME, answer["PRESENTED"])
    assert answer["VALID"] == f"[{answer['PRESENTED']}]"
    return answer
