"""Every manifest that the project makes or changes is what the published schemas of Kubernetes say, and passes "restricted"."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pod_security import violations
from workload_manifests import workload

from vanadium_node.controller.marks import marked
from vanadium_node.controller.objects import cluster_agent_deployment, cluster_agent_service, namespace, secret
from vanadium_node.controller.settings import ClusterAgentSettings
from vanadium_node.kube.injection import PodAgent, inject, uninject
from vanadium_node.kube.workloads import KINDS, template_of

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
CONFIGS = Path(__file__).parents[2] / "configs" / "kubernetes"
AGENT = PodAgent(
    image="example.org/vanadium-node:1",
    secret_name="secret-0123",
    agent_name="/(root:cluster-agent)@cluster-agent.default:8193",
    root_blessings="cm9vdA",
    native_sidecar=True,
)
SETTINGS = ClusterAgentSettings(
    image="example.org/vanadium-node:1", blessing="root:cluster-agent", admin=("root",), cpu="100m", memory="256Mi"
)
RESTRICTED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def check(manifest: Any, version: str) -> None:
    """Check a manifest, fields that no schema knows included."""
    kubernetes_validate.validate(manifest, version, strict=True)


def made_by_the_controller() -> Iterator[Any]:
    """Every object that the controller makes, in each of its forms."""
    yield namespace("shop")
    yield secret("secret-0123", "StatefulSet/cart", "key")
    disk, claim = replace(SETTINGS, persistent_disk="disk"), replace(SETTINGS, persistent_volume_claim="claim")
    for given_disk in (SETTINGS, disk, claim):
        yield marked(cluster_agent_deployment(given_disk, root_blessings="r", claimer="c"), "nonce")
    for exposure in (SETTINGS, replace(SETTINGS, internal_only=True), replace(SETTINGS, external_ip="192.0.2.1")):
        yield cluster_agent_service(exposure)


def injected_workloads() -> Iterator[Any]:
    """A workload of each kind with each form of the pod agent."""
    for kind in KINDS:
        ends = kind in {"Job", "CronJob"}
        yield inject(workload(kind, restart="Never" if ends else "Always"), AGENT)
        if not ends:
            yield inject(workload(kind), replace(AGENT, native_sidecar=False))


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_controller_makes_and_changes(version: str) -> None:
    """All of it, strictly: a field that is misspelt, or in the wrong place, fails."""
    for manifest in (*made_by_the_controller(), *injected_workloads()):
        check(manifest, version)


def test_the_check_finds_what_is_wrong() -> None:
    """An unknown field, deep inside."""
    manifest: Any = inject(workload("Deployment"), AGENT)
    template_of(manifest)["spec"]["initContainers"][0]["restartPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        check(manifest, VERSIONS[0])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_files_for_kubernetes(version: str) -> None:
    """Each file of configs/kubernetes as it is."""
    files = [path for path in CONFIGS.rglob("*.yaml") if path.name != "kustomization.yaml"]
    assert len(files) >= 8
    for path in files:
        for document in yaml.safe_load_all(path.read_text()):
            check(document, version)


@pytest.mark.kubectl
@pytest.mark.parametrize("folder", ["base", "controller", "overlays/gke"])
def test_what_kustomize_makes_of_them(folder: str) -> None:
    """As `kubectl apply -k` would send it."""
    argv = ["kubectl", "kustomize", str(CONFIGS / folder)]
    made = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    documents = list(yaml.safe_load_all(made.stdout))
    assert documents
    for document in documents:
        check(document, VERSIONS[-1])


def test_the_cluster_agent_is_restricted() -> None:
    """It passes the strictest Pod Security level, on every kind of disk that the level allows."""
    for settings_ in (SETTINGS, replace(SETTINGS, persistent_volume_claim="claim")):
        manifest = cluster_agent_deployment(settings_, root_blessings="r", claimer="c")
        assert violations(manifest["spec"]["template"]["spec"]) == set()
    base = yaml.safe_load((CONFIGS / "base" / "deployment.yaml").read_text())
    assert violations(base["spec"]["template"]["spec"]) == set()


@pytest.mark.parametrize("native", [True, False])
def test_a_restricted_workload_stays_restricted(native: bool) -> None:
    """The pod agent asks for nothing that "restricted" forbids."""
    manifest = workload("Deployment")
    pod = template_of(manifest)["spec"]
    pod["securityContext"] = dict(RESTRICTED_POD)
    pod["containers"][0]["securityContext"] = dict(RESTRICTED)
    assert violations(pod) == set()
    injected = inject(manifest, replace(AGENT, native_sidecar=native))
    assert violations(template_of(injected)["spec"]) == set()


@pytest.mark.parametrize(
    ("pod", "container", "says"),
    [
        ({"hostNetwork": True}, {}, "hostNetwork must be false"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, {}, "volume v must not be of type hostPath"),
        ({}, {"securityContext": {"runAsUser": 0}}, "runAsUser must not be 0"),
        ({}, {"ports": [{"containerPort": 1, "hostPort": 1}]}, "hostPort must not be used"),
        ({}, {"livenessProbe": {"httpGet": {"port": 1, "host": "h"}}}, "httpGet must not name a host"),
        ({}, {}, "capabilities must drop ALL"),
    ],
)
def test_the_rules_find_violations(pod: Any, container: Any, says: str) -> None:
    """Each of these is something that "restricted" forbids."""
    spec = pod | {"containers": [{"name": "app"} | container]}
    assert any(says in found for found in violations(spec))


security_contexts = st.fixed_dictionaries(
    {},
    optional={
        "runAsNonRoot": st.booleans(),
        "runAsUser": st.integers(0, 70000),
        "seccompProfile": st.sampled_from([{"type": "RuntimeDefault"}, {"type": "Unconfined"}]),
    },
)
pod_security_contexts = st.tuples(
    security_contexts,
    st.fixed_dictionaries(
        {},
        optional={
            "fsGroup": st.integers(0, 70000),
            "supplementalGroups": st.lists(st.integers(0, 9) | st.just(65532), min_size=1, max_size=3),
        },
    ),
).map(lambda parts: parts[0] | parts[1])
container_security_contexts = st.tuples(
    security_contexts,
    st.fixed_dictionaries(
        {},
        optional={
            "privileged": st.booleans(),
            "allowPrivilegeEscalation": st.booleans(),
            "readOnlyRootFilesystem": st.booleans(),
            "capabilities": st.sampled_from([{"drop": ["ALL"]}, {"add": ["NET_ADMIN"]}]),
        },
    ),
).map(lambda parts: parts[0] | parts[1])


@st.composite
def containers(draw: st.DrawFn, prefix: str) -> list[dict[str, Any]]:
    """Containers that a cluster would take."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        container: dict[str, Any] = {"name": f"{prefix}-{number}", "image": "example.org/app:1"}
        if draw(st.booleans()):
            container["env"] = [{"name": "A", "value": draw(st.text(st.characters(codec="utf-8")))}]
        if draw(st.booleans()):
            container["envFrom"] = [{"configMapRef": {"name": "settings", "optional": True}}]
        if draw(st.booleans()):
            container["volumeMounts"] = [{"name": "v", "mountPath": "/v", "readOnly": draw(st.booleans())}]
        if draw(st.booleans()):
            container["securityContext"] = draw(container_security_contexts)
        if draw(st.booleans()):
            container["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}}
        made.append(container)
    return made


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any]:
    """Workloads of every kind, with pods that a cluster would take."""
    kind = draw(st.sampled_from(list(KINDS)))
    restart = draw(st.sampled_from(["Never", "OnFailure"])) if kind in {"Job", "CronJob"} else "Always"
    made = workload(kind, restart=restart)
    pod = template_of(made)["spec"]
    pod["containers"] = draw(containers("app"))
    pod["volumes"] = [{"name": "v", "emptyDir": {}}]
    if draw(st.booleans()):
        pod["initContainers"] = draw(containers("init"))
    if draw(st.booleans()):
        pod["securityContext"] = draw(pod_security_contexts.filter(bool))  # an empty one says the same as none
    if draw(st.booleans()):
        pod["hostNetwork"] = draw(st.booleans())
    if draw(st.booleans()):
        template_of(made).setdefault("metadata", {})["annotations"] = {"a": draw(st.text(st.characters(codec="utf-8")))}
    return made


@settings(deadline=None)  # a busy machine is no fault of the code
@given(workloads(), st.sampled_from(VERSIONS), st.booleans())
def test_any_pod_stays_valid_and_gets_no_less_secure(made: dict[str, Any], version: str, native: bool) -> None:
    """What a cluster took before it takes with the pod agent; nothing new violates "restricted"; uninject undoes it."""
    ends = template_of(made)["spec"].get("restartPolicy") != "Always"
    agent = replace(AGENT, native_sidecar=native or ends)
    check(made, version)
    injected = inject(made, agent)
    check(injected, version)
    assert violations(template_of(injected)["spec"]) <= violations(template_of(made)["spec"])
    assert uninject(injected) == made
