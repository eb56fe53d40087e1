"""Adding the pod agent to workloads and taking it away: everything else stays, and nothing of the user's is overwritten."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vanadium_node.errors import InputError
from vanadium_node.kube.injection import (
    PodAgent,
    inject,
    is_injected,
    roots_in_use,
    secret_in_use,
    uninject,
)
from vanadium_node.kube.workloads import KINDS

NATIVE = PodAgent(
    image="example.org/vanadium-node:1",
    secret_name="secret-0123",
    agent_name="/(root:cluster-agent)@cluster-agent.default:8193",
    root_blessings="cm9vdA",
    native_sidecar=True,
)
PLAIN = PodAgent(
    image=NATIVE.image,
    secret_name=NATIVE.secret_name,
    agent_name=NATIVE.agent_name,
    root_blessings=NATIVE.root_blessings,
    native_sidecar=False,
)


def pod_of(workload: Any) -> Any:
    return workload["spec"]["template"]["spec"]


def test_the_native_sidecar_comes_first_and_serves_init_containers_too(deployment: dict[str, Any]) -> None:
    """It is an init container that keeps running, and everything after it starts once it has an identity."""
    pod_of(deployment)["initContainers"] = [{"name": "migrate", "image": "m"}]
    pod = pod_of(inject(deployment, NATIVE))
    agent, migrate = pod["initContainers"]
    assert agent["name"] == "pod-agent"
    assert agent["restartPolicy"] == "Always"
    assert agent["startupProbe"]["exec"]["command"] == [
        "vanadium-node",
        "healthcheck",
        "--socket",
        "/agent/socket/agent.sock",
    ]
    for container in (migrate, *pod["containers"]):
        assert {"name": "V23_AGENT_PATH", "value": "/agent/socket/agent.sock"} in container["env"]
        assert {"name": "agent-socket", "mountPath": "/agent/socket", "readOnly": True} in container["volumeMounts"]


def test_the_plain_container_comes_last_and_leaves_init_containers_alone(deployment: dict[str, Any]) -> None:
    """Before 1.29 init containers run before the pod agent: waiting for its socket they would wait for ever."""
    pod_of(deployment)["initContainers"] = [{"name": "migrate", "image": "m"}]
    pod = pod_of(inject(deployment, PLAIN))
    assert pod["initContainers"] == [{"name": "migrate", "image": "m"}]
    assert [c["name"] for c in pod["containers"]] == ["fortuned", "pod-agent"]
    assert "restartPolicy" not in pod["containers"][1]
    assert "startupProbe" not in pod["containers"][1]
    assert "--live" in pod["containers"][1]["livenessProbe"]["exec"]["command"]


def test_nobody_is_killed_for_waiting(deployment: dict[str, Any]) -> None:
    """The cluster agent may be away for longer than every blessing lives: killing pod agents brings it back no sooner."""
    agent = pod_of(inject(deployment, NATIVE))["initContainers"][0]
    assert agent["livenessProbe"]["exec"]["command"] == [*agent["startupProbe"]["exec"]["command"], "--live"]
    assert agent["startupProbe"]["failureThreshold"] * agent["startupProbe"]["periodSeconds"] >= 3600


def test_what_the_pod_agent_is_told(deployment: dict[str, Any]) -> None:
    """Name of the cluster agent, roots, socket and secret file; the secret itself is in no variable and no argument."""
    agent = pod_of(inject(deployment, NATIVE))["initContainers"][0]
    assert agent["args"] == ["pod-agent"]
    assert {e["name"]: e["value"] for e in agent["env"]} == {
        "AGENT_NAME": "/(root:cluster-agent)@cluster-agent.default:8193",
        "ROOT_BLESSINGS": "cm9vdA",
        "SOCKET_PATH": "/agent/socket/agent.sock",
        "SECRET_KEY_FILE": "/agent/secret/secret",
    }


def test_only_the_pod_agent_sees_the_secret(deployment: dict[str, Any]) -> None:
    """The volume of the secret is mounted once, read-only; the socket is in memory."""
    pod = pod_of(inject(deployment, NATIVE))
    mounting = [
        c["name"] for c in [*pod["initContainers"], *pod["containers"]] if "agent-secret" in str(c["volumeMounts"])
    ]
    assert mounting == ["pod-agent"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["agent-secret"]["secret"]["secretName"] == "secret-0123"
    assert volumes["agent-socket"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Mi"}


def test_pod_security_restricted(deployment: dict[str, Any]) -> None:
    """The container meets every rule of the level 'restricted' by itself, whatever the pod says."""
    security = pod_of(inject(deployment, NATIVE))["initContainers"][0]["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] != 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["readOnlyRootFilesystem"] is True


def test_who_may_use_the_socket(deployment: dict[str, Any]) -> None:
    """A pod's own fsGroup serves; otherwise the pod agent's group becomes a supplemental group of the pod's containers."""
    assert pod_of(inject(deployment, NATIVE))["securityContext"] == {"supplementalGroups": [65532]}
    pod_of(deployment)["securityContext"] = {"fsGroup": 2000}
    assert pod_of(inject(deployment, NATIVE))["securityContext"] == {"fsGroup": 2000}
    pod_of(deployment)["securityContext"] = {"supplementalGroups": [5], "runAsUser": 7}
    assert pod_of(inject(deployment, NATIVE))["securityContext"] == {"supplementalGroups": [5, 65532], "runAsUser": 7}


def test_facts_read_back(deployment: dict[str, Any]) -> None:
    """An update finds the Secret and the roots in use in the live Deployment."""
    assert (secret_in_use(deployment), roots_in_use(deployment)) == (None, None)
    for agent in (NATIVE, PLAIN):
        injected = inject(deployment, agent)
        assert (secret_in_use(injected), roots_in_use(injected)) == ("secret-0123", "cm9vdA")


def test_a_second_injection_replaces_the_first(deployment: dict[str, Any]) -> None:
    """From the plain form to the native one, with another secret, as if the first had never been."""
    assert inject(inject(deployment, PLAIN), NATIVE) == inject(deployment, NATIVE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda pod: pod.update(volumes=[{"name": "agent-secret", "emptyDir": {}}]),
            "a volume 'agent-secret' of its own",
        ),
        (lambda pod: pod["containers"].append({"name": "pod-agent"}), "a container 'pod-agent' of its own"),
        (lambda pod: pod.update(initContainers=[{"name": "pod-agent"}]), "a container 'pod-agent' of its own"),
        (
            lambda pod: pod["containers"][0].update(env=[{"name": "V23_AGENT_PATH", "value": "x"}]),
            "sets V23_AGENT_PATH itself",
        ),
        (
            lambda pod: pod["containers"][0].update(volumeMounts=[{"name": "v", "mountPath": "/agent/socket/"}]),
            "mounts something at /agent/socket",
        ),
        (
            lambda pod: pod["containers"][0].update(volumeMounts=[{"name": "v", "mountPath": "/agent"}]),
            "mounts something",
        ),
    ],
)
def test_names_that_are_taken_are_refused(deployment: dict[str, Any], change: Any, says: str) -> None:
    """Nothing of the user's is overwritten: the sentence names what is in the way and what to do."""
    change(pod_of(deployment))
    with pytest.raises(InputError, match=says) as caught:
        inject(deployment, NATIVE)
    assert "--noblessings" in caught.value.hint


def test_pods_that_end_need_native_sidecars() -> None:
    """A plain pod agent would keep a Job's pods running for ever."""
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}
    job = {"kind": "Job", "metadata": {"name": "once"}, "spec": spec}
    assert is_injected(inject(job, NATIVE))
    with pytest.raises(InputError, match="added to Job once: on a cluster older than"):
        inject(job, PLAIN)


names = st.from_regex(r"[a-z]{1,8}", fullmatch=True).map(lambda n: f"u-{n}")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)
)


@st.composite
def containers(draw: st.DrawFn, *, at_least: int) -> list[dict[str, Any]]:
    """Containers with distinct names, and any other fields."""
    result = []
    for name in draw(st.lists(names, min_size=at_least, max_size=3, unique=True)):
        container: dict[str, Any] = {"name": name, "image": draw(st.text(min_size=1))}
        if draw(st.booleans()):
            container["env"] = [
                {"name": n, "value": "1"} for n in draw(st.lists(names, min_size=1, max_size=2, unique=True))
            ]
        if draw(st.booleans()):
            container["volumeMounts"] = [{"name": "u-v", "mountPath": "/u"}]
        container["x"] = draw(values)
        result.append(container)
    return result


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any]:
    """Workloads of each kind, with fields that this project knows, and fields that it does not."""
    pod: dict[str, Any] = {"containers": draw(containers(at_least=1))}
    if draw(st.booleans()):
        pod["initContainers"] = draw(containers(at_least=1))
    if draw(st.booleans()):
        pod["volumes"] = [{"name": "u-v", "emptyDir": {}}]
    if draw(st.booleans()):
        pod["securityContext"] = draw(
            st.fixed_dictionaries(
                {"x": values},
                optional={
                    "fsGroup": st.integers(0, 70000),
                    "supplementalGroups": st.lists(st.just(65532) | st.integers(0, 9), min_size=1),
                },
            )
        )
    metadata: dict[str, Any] = {"labels": {"a": "b"}}
    if draw(st.booleans()):
        metadata["annotations"] = {"u": "v"}
    pod["y"] = draw(values)
    template = {"metadata": metadata, "spec": pod}
    kind = draw(st.sampled_from(list(KINDS)))
    if kind == "Pod":
        return {"kind": kind, "metadata": {"name": "w"} | metadata, "spec": pod}
    spec = {"template": template, "z": draw(values)}
    return {
        "kind": kind,
        "metadata": {"name": "w"},
        "spec": {"jobTemplate": {"spec": spec}} if kind == "CronJob" else spec,
    }


@settings(deadline=None)  # a busy machine is no fault of the code
@given(workloads(), st.sampled_from([NATIVE, PLAIN]), st.sampled_from([NATIVE, PLAIN]))
def test_injection_is_undone_exactly_and_idempotent(
    workload: dict[str, Any], first: PodAgent, second: PodAgent
) -> None:
    """uninject(inject(w)) == w, inject(inject(w)) == inject(w), and the argument is never touched."""
    before = copy.deepcopy(workload)
    injected = inject(workload, first)
    assert workload == before
    assert is_injected(injected)
    assert uninject(injected) == before
    assert inject(injected, second) == inject(workload, second)
    assert uninject(workload) is workload
