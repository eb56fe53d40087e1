"""What `vanadium-node demo` does, as data: the walkthrough's files and its steps, in order."""

import json
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command of the walkthrough: its title, the command line, and what just happened in a few words.

    A step with a `program` is left out where that program is not installed.
    """

    title: str
    line: str
    remark: str = ""
    program: str = ""


_CONFIG: Final = {
    "project": "my-project",
    "zone": "my-zone",
    "cluster": "my-cluster",
    "clusterAgent": {
        "namespace": "default",
        "image": "gcr.io/my-project/cluster-agent:latest",
        "cpu": "0.1",
        "memory": "250M",
        "blessing": "test-root:cluster-agent",
        "admin": "test-root",
        "persistentDisk": "test-cluster-agent-disk",
    },
    "podAgent": {"image": "gcr.io/my-project/pod-agent:latest"},
}

_SERVICE: Final = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "fortune"},
    "spec": {
        "ports": [{"port": 2345, "targetPort": 2345}],
        "selector": {"application": "fortuned"},
        "type": "LoadBalancer",
    },
}


def _deployment(tag: str) -> dict[str, object]:
    """Return the walkthrough's application, in the old form that the controller converts."""
    container = {
        "name": "fortuned",
        "image": f"gcr.io/my-project/fortuned:{tag}",
        "command": ["fortuned", "--v23.tcp.address=:2345"],
        "ports": [{"containerPort": 2345}],
    }
    return {
        "apiVersion": "extensions/v1beta1",
        "kind": "Deployment",
        "metadata": {"name": "fortuned"},
        "spec": {
            "template": {"metadata": {"labels": {"application": "fortuned"}}, "spec": {"containers": [container]}},
        },
    }


def _text(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


FILES: Final[dict[str, str]] = {
    "vkube.cfg": _text(_CONFIG),
    "fortuned-deployment.json": _text(_deployment("latest")),
    "fortuned-deployment-2.json": _text(_deployment("2")),
    "fortuned-service.json": _text(_SERVICE),
}
"""The input files of the walkthrough: name → content."""

LAST_STEP: Final = Step(
    title="Identify the application from outside",
    line="vanadium-node rpc identify /$(vanadium-node local address fortune):2345",
    remark="The replica presents the name the controller gave it, under a key that was made in its pod and never left it.",
)

STEPS: Final[tuple[Step, ...]] = (
    Step(
        title="Start an embedded cluster",
        line="vanadium-node local up",
        remark="A Kubernetes API for this machine. Its pods are processes; it isolates nothing.",
    ),
    Step(
        title="Create the root principal",
        line="vanadium-node principal create --with-passphrase=false test-root test-root",
        remark="A key and a name for it: whoever trusts this key trusts what it blesses.",
    ),
    Step(title="Look at it", line="vanadium-node principal dump"),
    Step(
        title="Configure the controller",
        line="cat vkube.cfg",
        remark="Which image plays which role, what the cluster agent will be called, and who its administrator is.",
    ),
    Step(
        title="Start the cluster agent",
        line="vanadium-node controller --local start-cluster-agent --wait",
        remark="It has no blessings yet, and serves nothing but its claim.",
    ),
    Step(
        title="Claim the cluster agent",
        line="vanadium-node controller --local claim-cluster-agent",
        remark="It is now test-root:cluster-agent, and takes orders from test-root.",
    ),
    Step(
        title="Start the application with the blessing extension 'fortuned'",
        line="vanadium-node controller --local start -f fortuned-deployment.json fortuned --wait",
        remark="A secret was made at the cluster agent, and a pod agent added to the pod: it fetched the replica's blessings.",
    ),
    Step(title="See its pods", line="vanadium-node controller --local kubectl get pods", program="kubectl"),
    Step(
        title="Make it reachable",
        line="vanadium-node local apply fortuned-service.json",
        remark="A Service with an address outside the pods (kubectl create -f does the same).",
    ),
    Step(
        title="Ask the application what it serves",
        line="vanadium-node rpc signature /$(vanadium-node local address fortune):2345",
    ),
    Step(
        title="Update it to another image, one replica after another",
        line="vanadium-node controller --local update -f fortuned-deployment-2.json --wait",
        remark="Same secret, new pod: a new key, and a new name under the same blessing.",
    ),
    LAST_STEP,
)
"""The walkthrough, in order."""

CLEAN_UP: Final[tuple[Step, ...]] = (
    Step(title="Clean up", line="vanadium-node controller --local stop -f fortuned-deployment-2.json"),
    Step(title="Stop the cluster agent", line="vanadium-node controller --local stop-cluster-agent"),
    Step(title="Stop the embedded cluster", line="vanadium-node local down"),
)
"""What ends it all; the last step alone stops everything there is."""
