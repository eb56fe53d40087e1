"""Upgrading a GKE cluster: gcloud is a stand-in that answers from a table and notes what it is told."""

import json
from pathlib import Path

import pytest
from stand_ins import calls, program, run_cli

from vanadium_node.controller.gke import is_older

NAMED = {"project": "p", "zone": "z", "cluster": "c"}
AGENT = {"clusterAgent": {"image": "i", "blessing": "a:b", "admin": "a"}, "podAgent": {"image": "p"}}
PLACE = ["--project", "p", "--zone", "z"]
NEWEST = "1.30.2-gke.10"


def gcloud(folder: Path, master: str, nodes: str, *, fails_at: str = "none") -> str:
    """A gcloud whose cluster has these versions."""
    config = json.dumps({"defaultClusterVersion": NEWEST})
    cluster = json.dumps({"currentMasterVersion": master, "currentNodeVersion": nodes})
    return program(
        folder,
        "gcloud",
        f"if {fails_at!r} in sys.argv: sys.exit('permission denied')\n"
        f"if 'get-server-config' in sys.argv: print({config!r})\n"
        f"elif 'describe' in sys.argv: print({cluster!r})\n",
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "vkube.cfg").write_text(json.dumps({**NAMED, **AGENT}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def upgrades(folder: Path) -> list[list[str]]:
    return [arguments for arguments, _ in calls(folder) if "upgrade" in arguments]


def test_the_master_first_then_the_nodes(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each step is announced; gcloud is told not to ask when we are."""
    name = gcloud(folder, "1.29.9-gke.2", "1.28.1-gke.1")
    status, printed, said = run_cli(capfd, "--gcloud", name, "upgrade-cluster", "--prompt=false")
    assert (status, printed) == (0, "Cluster 'c' is upgraded.\n")
    assert said.splitlines() == [
        f"upgrading the master of cluster 'c' from 1.29.9-gke.2 to {NEWEST}",
        f"upgrading the nodes of cluster 'c' from 1.28.1-gke.1 to {NEWEST}",
    ]
    step = ["container", "clusters", "upgrade", "c"]
    rest = ["--cluster-version", NEWEST, *PLACE, "--quiet"]
    assert upgrades(folder) == [[*step, "--master", *rest], [*step, *rest]]
    assert calls(folder)[0][0] == ["container", "get-server-config", *PLACE, "--format", "json"]


def test_only_what_is_older(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """gcloud asks by itself unless told otherwise."""
    name = gcloud(folder, NEWEST, "1.30.2-gke.9")
    assert run_cli(capfd, "--gcloud", name, "upgrade-cluster")[0] == 0
    [step] = upgrades(folder)
    assert "--master" not in step
    assert "--quiet" not in step


@pytest.mark.parametrize("version", [NEWEST, "1.31.0-gke.1"])
def test_nothing_to_do(folder: Path, capfd: pytest.CaptureFixture[str], version: str) -> None:
    """A cluster that a channel has moved past the default is never moved back."""
    name = gcloud(folder, version, version)
    assert run_cli(capfd, "--gcloud", name, "upgrade-cluster") == (0, "Nothing to do.\n", "")
    assert upgrades(folder) == []


@pytest.mark.parametrize(
    ("fails_at", "says"),
    [
        (
            "get-server-config",
            "cannot ask gcloud about cluster 'c': '{gcloud}' ended with status 1: permission denied; see",
        ),
        ("--master", "cannot upgrade the master of cluster 'c': '{gcloud}' ended with status 1"),
    ],
)
def test_a_gcloud_that_fails(folder: Path, capfd: pytest.CaptureFixture[str], fails_at: str, says: str) -> None:
    """The nodes are left alone when the master was not upgraded."""
    name = gcloud(folder, "1.1", "1.1", fails_at=fails_at)
    status, printed, said = run_cli(capfd, "--gcloud", name, "upgrade-cluster", "--prompt=false")
    assert (status, printed) == (1, "")
    assert says.format(gcloud=name) in said
    assert all("--master" in step for step in upgrades(folder))


def test_other_clusters(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Only GKE clusters have a gcloud to ask."""
    (folder / "vkube.cfg").write_text(json.dumps(AGENT))
    status, _, said = run_cli(capfd, "upgrade-cluster")
    assert status == 1
    assert "only GKE clusters can be upgraded" in said


@pytest.mark.parametrize("printed", ["", "[]", "{}"])
def test_answers_that_are_none(folder: Path, capfd: pytest.CaptureFixture[str], printed: str) -> None:
    """What gcloud prints is not trusted to be what it should be."""
    name = program(folder, "gcloud", f"print({printed!r})")
    status, _, said = run_cli(capfd, "--gcloud", name, "upgrade-cluster")
    assert (status, said.count("\n")) == (1, 1)


@pytest.mark.parametrize(
    ("version", "other", "older"),
    [
        ("1.9.1-gke.1", "1.10.0-gke.1", True),
        ("1.30.2-gke.9", "1.30.2-gke.10", True),
        (NEWEST, NEWEST, False),
        ("1.31.0-gke.1", NEWEST, False),
    ],
)
def test_versions(version: str, other: str, older: bool) -> None:
    """By number, not by letter."""
    assert is_older(version, other) is older
