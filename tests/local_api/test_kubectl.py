"""A real kubectl on the embedded cluster: what people do with it, on every kind that the walkthrough has."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.kubectl


def deployment(name: str = "web", command: str = "echo hello; exec sleep 600", **spec: Any) -> str:
    """Return a manifest whose pods are shells."""
    container = {
        "name": "web",
        "image": "example/web:1",
        "command": ["sh", "-c", command],
        "env": [{"name": "COLOR", "value": "red"}],
    }
    pod = {"containers": [container], "terminationGracePeriodSeconds": 1}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template} | spec,
    }
    return yaml.safe_dump(manifest)


@pytest.fixture
def web(kubectl: Any) -> Iterator[Any]:
    """Give a kubectl on a cluster where a deployment is being applied; it is gone in the end."""
    kubectl("apply", "-f", "-", given=deployment())
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    yield kubectl
    kubectl.run("delete", "deployment", "web", "--ignore-not-found")
    kubectl.run("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=30s")


def columns(table: str) -> list[list[str]]:
    """Return the cells of a printed table."""
    return [line.split() for line in table.splitlines()]


def test_version_and_resources(kubectl: Any) -> None:
    """The server names the release that it follows, and every resource it has."""
    assert json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == "v1.33.0"
    listed = kubectl("api-resources", "--no-headers")
    for name in ("namespaces", "secrets", "configmaps", "services", "deployments", "replicasets", "pods", "events"):
        assert name in listed
    assert "events.k8s.io" in listed
    assert "apps/v1" in kubectl("api-versions").split()


def test_get_in_every_form(web: Any) -> None:
    """As a table, wide, as JSON and YAML, by JSON path and by template, by label."""
    assert columns(web("get", "deployment", "web"))[0] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert columns(web("get", "deploy", "web"))[1][:4] == ["web", "1/1", "1", "1"]
    assert "example/web:1" in web("get", "deploy", "web", "-o", "wide")
    assert json.loads(web("get", "deploy", "web", "-o", "json"))["status"]["readyReplicas"] == 1
    assert yaml.safe_load(web("get", "deploy", "web", "-o", "yaml"))["kind"] == "Deployment"
    assert web("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "1"
    assert web("get", "pods", "--template", "{{range .items}}{{.status.phase}}{{end}}") == "Running"
    assert web("get", "pods", "-l", "app=web", "--no-headers").split()[1:3] == ["1/1", "Running"]
    assert web("get", "pods", "-l", "app!=web", "-o", "name") == ""
    assert web("get", "pods", "--field-selector", "status.phase=Running", "-o", "name").startswith("pod/web-")
    assert "replicaset.apps/web-" in web("get", "all", "-o", "name")
    assert "kube-system" in web("get", "namespaces", "-o", "name")


def test_describe_shows_events(web: Any) -> None:
    """Of the deployment, and of its pod."""
    assert "ScalingReplicaSet" in web("describe", "deployment", "web")
    text = web("describe", "pod", "-l", "app=web")
    assert "Started container web" in text
    assert "COLOR:  red" in text
    assert "ScalingReplicaSet" in web("get", "events")


def test_logs(web: Any) -> None:
    """Once, and followed until the pod ends."""
    assert web("logs", "deployment/web") == "hello\n"
    with subprocess.Popen(
        [web.path, "logs", "-f", "-l", "app=web"],
        env=web.cluster.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "hello\n"
        web("delete", "deployment", "web")
        following.communicate(timeout=20)
    assert following.returncode == 0


def test_scale_and_wait(web: Any) -> None:
    """Up and down again; wait sees the condition and the end."""
    web("scale", "deployment/web", "--replicas=3")
    web("rollout", "status", "deployment/web", "--timeout=30s")
    assert len(web("get", "pods", "-l", "app=web", "-o", "name").split()) == 3
    assert "condition met" in web("wait", "--for=condition=Available", "deployment/web", "--timeout=10s")
    web("scale", "deployment/web", "--replicas=0")
    web.run("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=20s")
    assert web("get", "pods", "-l", "app=web", "-o", "name") == ""


def test_apply_changes_and_removes(web: Any) -> None:
    """kubectl's own three-way patch: a variable goes, one comes, the container stays one."""
    changed = yaml.safe_load(deployment())
    changed["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "SIZE", "value": "big"}]
    assert web("apply", "-f", "-", given=yaml.safe_dump(changed)) == "deployment.apps/web configured\n"
    assert web("apply", "-f", "-", given=yaml.safe_dump(changed)) == "deployment.apps/web unchanged\n"
    environment = web("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].env}")
    assert json.loads(environment) == [{"name": "SIZE", "value": "big"}]
    web("rollout", "status", "deployment/web", "--timeout=30s")
    assert web("diff", "-f", "-", given=yaml.safe_dump(changed)) == ""


def test_rollout_history_and_undo(web: Any) -> None:
    """A new image is a new revision; undo goes back."""
    web("set", "image", "deployment/web", "web=example/web:2")
    web("rollout", "status", "deployment/web", "--timeout=30s")
    assert [line[0] for line in columns(web("rollout", "history", "deployment/web"))[2:] if line] == ["1", "2"]
    web("rollout", "undo", "deployment/web")
    web("rollout", "status", "deployment/web", "--timeout=30s")
    assert "example/web:1" in web("get", "deployment", "web", "-o", "wide")
    web("rollout", "restart", "deployment/web")
    web("rollout", "status", "deployment/web", "--timeout=30s")


def test_server_side_apply_and_its_conflicts(kubectl: Any) -> None:
    """Applied by two managers, with and without force."""
    manifest = deployment("applied", replicas=0)
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", given=manifest)
    other = deployment("applied", replicas=1).replace("replicas: 1", "replicas: 0").replace("red", "blue")
    refused = kubectl.refused("apply", "--server-side", "--field-manager=other", "-f", "-", given=other)
    assert 'conflict with "kubectl"' in refused
    kubectl("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-", given=other)
    kubectl("delete", "deployment", "applied")


def test_watch_shows_changes(kubectl: Any) -> None:
    """`get -w` prints a line per change."""
    with subprocess.Popen(
        [kubectl.path, "get", "configmaps", "-w", "--no-headers"],
        env=kubectl.cluster.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as watching:
        assert watching.stdout is not None
        kubectl("create", "configmap", "seen", "--from-literal=a=b")
        assert watching.stdout.readline().split()[:2] == ["seen", "1"]
        kubectl("patch", "configmap", "seen", "-p", '{"data":{"c":"d"}}')
        assert watching.stdout.readline().split()[:2] == ["seen", "2"]
        watching.terminate()
    kubectl("delete", "configmap", "seen")


@pytest.mark.parametrize(
    "made",
    [
        ("configmap", "made", "--from-literal=a=b"),
        ("secret", "generic", "made", "--from-literal=a=b"),
        ("serviceaccount", "made"),
        ("deployment", "made", "--image=example/made:1", "--dry-run=client"),
        ("role", "made", "--verb=get", "--resource=pods"),
        ("rolebinding", "made", "--role=made", "--user=me"),
        ("job", "made", "--image=example/made:1", "--dry-run=client"),
    ],
    ids=lambda made: str(made[0]),
)
def test_create_makes_what_it_says(kubectl: Any, made: tuple[str, ...]) -> None:
    """Newer kubectls send protobuf for these, older ones JSON."""
    assert "created" in kubectl("create", *made)
    if "--dry-run=client" not in made:
        kubectl("delete", made[0], "made")


def test_namespaces_come_and_go(kubectl: Any) -> None:
    """With what is in them; delete waits for the end."""
    kubectl("create", "namespace", "shop")
    kubectl("apply", "-n", "shop", "-f", "-", given=deployment())
    kubectl("rollout", "-n", "shop", "status", "deployment/web", "--timeout=30s")
    kubectl("delete", "namespace", "shop", "--timeout=30s")
    assert "not found" in kubectl.refused("get", "namespace", "shop")
    assert kubectl("get", "pods", "-n", "shop", "-o", "name") == ""


def test_services(kubectl: Any) -> None:
    """An address in the cluster, and one for outside; the template of the walkthrough finds it."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "front"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 2345}], "selector": {"app": "front"}},
    }
    kubectl("create", "-f", "-", given=json.dumps(service))
    template = "{{range .status.loadBalancer.ingress}}{{.ip}}{{end}}"
    kubectl.cluster.local("address", "front")
    assert kubectl("get", "service", "front", "--template", template).startswith("127.")
    row = columns(kubectl("get", "service", "front"))[1]
    assert (row[0], row[1]) == ("front", "LoadBalancer")
    assert row[2].startswith("127.96.")
    kubectl("describe", "service", "front")
    kubectl("delete", "service", "front")


def test_json_merge_and_strategic_patches(kubectl: Any) -> None:
    """Each kind of `kubectl patch`, and `label` and `annotate`."""
    kubectl("apply", "-f", "-", given=deployment("patched", replicas=0))
    kubectl(
        "patch", "deployment", "patched", "--type=json", "-p", '[{"op":"add","path":"/spec/minReadySeconds","value":1}]'
    )
    kubectl("patch", "deployment", "patched", "--type=merge", "-p", '{"spec":{"minReadySeconds":2}}')
    strategic = {"spec": {"template": {"spec": {"containers": [{"name": "web", "workingDir": "/"}]}}}}
    kubectl("patch", "deployment", "patched", "-p", json.dumps(strategic))
    kubectl("label", "deployment", "patched", "tier=front")
    kubectl("annotate", "deployment", "patched", "note=seen")
    found = json.loads(kubectl("get", "deployment", "patched", "-o", "json"))
    assert found["spec"]["minReadySeconds"] == 2
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert (container["workingDir"], container["image"]) == ("/", "example/web:1")
    assert found["metadata"]["labels"] == {"tier": "front"}
    kubectl("delete", "deployment", "patched")


def test_edit(kubectl: Any) -> None:
    """An editor's change is sent as a patch."""
    kubectl("create", "-f", "-", given=deployment("edited", replicas=0))
    done = subprocess.run(
        [kubectl.path, "edit", "deployment", "edited"],
        env=kubectl.cluster.environment() | {"EDITOR": "sed -i s/red/blue/"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "deployment.apps/edited edited\n", done.stderr
    path = "jsonpath={.spec.template.spec.containers[0].env[0].value}"
    assert kubectl("get", "deployment", "edited", "-o", path) == "blue"
    kubectl("delete", "deployment", "edited")


def test_replace_and_dry_run(kubectl: Any) -> None:
    """replace needs an object; a dry run on the server changes nothing."""
    kubectl("create", "-f", "-", given=deployment("kept", replicas=0))
    kubectl("replace", "-f", "-", given=deployment("kept", replicas=0, minReadySeconds=5))
    dry = deployment("kept", replicas=0, minReadySeconds=7)
    assert "(server dry run)" in kubectl("apply", "--dry-run=server", "-f", "-", given=dry)
    assert kubectl("get", "deployment", "kept", "-o", "jsonpath={.spec.minReadySeconds}") == "5"
    kubectl("delete", "deployment", "kept")


def test_what_users_get_wrong_is_said(kubectl: Any) -> None:
    """In the words of a real API server."""
    assert 'deployments.apps "none" not found' in kubectl.refused("get", "deployment", "none")
    assert "the server doesn't have a resource type" in kubectl.refused("get", "wonders")
    wrong = deployment("wrong", selector={"matchLabels": {"app": "other"}})
    assert "`selector` does not match template `labels`" in kubectl.refused("create", "-f", "-", given=wrong)
    count = deployment("wrong", replicas="two")
    assert "cannot unmarshal string into Go struct field" in kubectl.refused("create", "-f", "-", given=count)
    name = deployment("Wrong")
    assert "a lowercase RFC 1123 subdomain must consist of" in kubectl.refused("create", "-f", "-", given=name)
    unknown = kubectl.run("create", "-f", "-", given=deployment("unknown", replica=1, replicas=0))
    assert 'unknown field "spec.replica"' in unknown.stderr  # older kubectls are warned, newer ones refused
    kubectl.run("delete", "deployment", "unknown")


def test_rights(kubectl: Any) -> None:
    """The one user may do everything."""
    assert kubectl("auth", "can-i", "create", "deployments") == "yes\n"


def test_exec_is_refused_with_the_reason(web: Any) -> None:
    """There are no containers to enter."""
    assert "has no exec" in web.refused("exec", "deployment/web", "--", "true")
