"""Reading manifest files, and bringing old Deployments to apps/v1."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from vanadium_node.errors import InputError
from vanadium_node.kube.manifest import read_application, read_manifests

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: c}]}"
SEED = Path(__file__).parents[1] / "walkthrough" / "seed" / "fortuned-deployment.json"


def write(folder: Path, text: str, name: str = "manifest.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_the_seeds_deployment_becomes_apps_v1_and_keeps_every_field() -> None:
    """Only apiVersion and selector differ from what the walkthrough's file says, and both are warned about."""
    converted = read_application(str(SEED)).workloads[0]
    original = json.loads(SEED.read_text())
    expected = original | {"apiVersion": "apps/v1"}
    expected["spec"] = original["spec"] | {"selector": {"matchLabels": {"application": "fortuned"}}}
    assert converted.manifest == expected
    assert len(converted.warnings) == 2
    assert "extensions/v1beta1" in converted.warnings[0]
    assert "application=fortuned" in converted.warnings[1]


def test_a_current_deployment_is_taken_as_it_is(tmp_path: Path, deployment: dict[str, Any]) -> None:
    """Nothing changes and nothing is said; unknown fields are kept."""
    deployment["spec"]["template"]["spec"]["fieldOfNextYear"] = {"a": [1, 2]}
    converted = read_application(write(tmp_path, json.dumps(deployment))).workloads[0]
    assert converted.manifest == deployment
    assert converted.warnings == ()


def test_old_actions_are_left_out_with_a_warning(tmp_path: Path, deployment: dict[str, Any]) -> None:
    """`rollbackTo` asked the old API for something that apps/v1 has no field for."""
    deployment["apiVersion"] = "apps/v1beta1"
    deployment["spec"]["rollbackTo"] = {"revision": 3}
    converted = read_application(write(tmp_path, json.dumps(deployment))).workloads[0]
    assert "rollbackTo" not in converted.manifest["spec"]
    assert any("rollbackTo" in warning for warning in converted.warnings)


def test_yaml_with_several_documents(tmp_path: Path) -> None:
    """Empty documents are left out; the order stays."""
    text = "---\nkind: Service\nmetadata: {name: a}\n---\n---\nkind: Deployment\nmetadata: {name: b}\n"
    assert [m["kind"] for m in read_manifests(write(tmp_path, text))] == ["Service", "Deployment"]


def test_an_application_of_several_objects(tmp_path: Path, deployment: dict[str, Any]) -> None:
    """Workloads of any kind are used, what lies beside them is told apart, and the order of the file is known."""
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fortuned"}}
    old = json.loads(json.dumps(deployment)) | {"apiVersion": "apps/v1beta2", "kind": "StatefulSet"}
    text = "\n---\n".join(json.dumps(m) for m in (service, deployment, old)) + f"\n---\n{POD}"
    application = read_application(write(tmp_path, text))
    assert [w.manifest["kind"] for w in application.workloads] == ["Deployment", "StatefulSet", "Pod"]
    assert application.workloads[1].manifest["apiVersion"] == "apps/v1"
    assert application.others == (service,)
    changed = application.changed(lambda workload: {"kind": "Changed", "was": workload["kind"]})
    assert [d.get("was", d["kind"]) for d in changed] == ["Service", "Deployment", "StatefulSet", "Pod"]


def test_a_list_is_its_items(tmp_path: Path, deployment: dict[str, Any]) -> None:
    """What `kubectl get -o json` prints can be used as it is."""
    listing = {"apiVersion": "v1", "kind": "List", "items": [deployment]}
    assert read_application(write(tmp_path, json.dumps(listing))).workloads[0].manifest == deployment


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-f -` reads what is piped in."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"kind: Pod\nmetadata: {name: x}\n")))
    assert read_manifests("-")[0]["metadata"]["name"] == "x"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no manifest"),
        ("just words", "without 'kind'"),
        ("[1, 2]", "without 'kind'"),
        ("kind: Service\nmetadata: {name: x}\n", "holds nothing that runs: only Service"),
        ("kind: Deployment\n", "has no name"),
        ("kind: Deployment\nmetadata: {name: x}\n", "has the apiVersion ''"),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n", "has no pod template"),
        ("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {template: {}}\n", "has no containers"),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {template: {spec: {containers: [{name: c}]}}}\n",
            "has no labels",
        ),
        ("kind: A\nmetadata: {name: x}\n---\nkind: B\nmetadata: {name: y}\n", "only A, B"),
        (f"{POD}\n---\n{POD}\n", "holds Pod x twice"),
        (
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec: {jobTemplate: {spec: {}}}\n",
            "has no pod template",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: []}\n", "has no containers"),
        ("a: [1,\n", "not valid YAML"),
        ("a: &a [*a]\n", "without 'kind'"),
        ('{"kind": "Deployment" "x"}', "not valid JSON"),
        ("\x00\x01", "not valid YAML"),
    ],
)
def test_what_is_no_deployment_is_refused_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    """The sentence names the file and what is wrong with it, and there is a next step."""
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_application(path)
    assert path in str(caught.value)
    assert says in str(caught.value)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, a folder and a binary file are errors of the caller, too."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "nothing.json", tmp_path, binary):
        with pytest.raises(InputError, match=str(path)):
            read_application(str(path))


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    """A mistaken -f must not read gigabytes."""
    with pytest.raises(InputError, match="larger than"):
        read_manifests(write(tmp_path, "#" * (4 * 1024 * 1024 + 1)))
