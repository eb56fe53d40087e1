"""Building images: which builder is taken, what it is told, and what happens when it fails. Builders are stand-ins."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from stand_ins import calls, program, run_cli

from vanadium_node.controller.images import BUILDERS, names_to_build, timestamp_tag
from vanadium_node.controller.settings import Settings

ROOT = Path(__file__).parents[2]


def document(cluster_agent: str, pod_agent: str) -> dict[str, Any]:
    return {"clusterAgent": {"image": cluster_agent, "blessing": "a:b", "admin": "a"}, "podAgent": {"image": pod_agent}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the walkthrough's images in its settings, which is all that the PATH names."""
    (tmp_path / "vkube.cfg").write_text(json.dumps(document("r/cluster-agent:latest", "r/pod-agent:1")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("name", ["build-images", "build-docker-images"])
def test_whichever_builder_is_there(folder: Path, capfd: pytest.CaptureFixture[str], name: str, builder: str) -> None:
    """One build gives all names, the settings' own 'latest' too; then each is pushed, and printed."""
    program(folder, builder, "print('much talk')")
    names = ["r/cluster-agent:7", "r/cluster-agent:latest", "r/pod-agent:7"]
    given = (name, "--tag", "7", "--source", str(ROOT), "--build-arg", "A=b")
    assert run_cli(capfd, *given) == (0, "".join(f"{n}\n" for n in names), "")
    tags = [part for n in names for part in ("--tag", n)]
    build = ["build", "--file", str(ROOT / "container" / "Containerfile"), *tags, "--build-arg", "A=b", str(ROOT)]
    assert [arguments for arguments, _ in calls(folder)] == [build, *(["push", n] for n in names)]


def test_docker_is_preferred_and_one_that_is_named_more(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The order is fixed, so that two runs on one machine do the same."""
    for builder in BUILDERS:
        program(folder, builder, f"print('I am {builder}', file=sys.stderr)")
    for more, expected in (((), "docker"), (("--builder", "buildah"), "buildah")):
        status, _, said = run_cli(capfd, "build-images", "-v", "--no-push", "--source", str(ROOT), *more)
        assert (status, said) == (0, f"I am {expected}\n")
    assert [arguments[0] for arguments, _ in calls(folder)] == ["build", "build"]


def test_verbose_shows_what_the_builder_says_apart_from_the_result(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A script reads the names from standard output; the talk is on standard error."""
    program(folder, "podman", "print('STEP 1')")
    status, printed, said = run_cli(capfd, "build-images", "-v", "--tag", "7", "--no-push", "--source", str(ROOT))
    assert (status, said) == (0, "STEP 1\n")
    assert printed.splitlines() == ["r/cluster-agent:7", "r/cluster-agent:latest", "r/pod-agent:7"]


@pytest.mark.parametrize(
    ("body", "more", "says"),
    [
        (
            "if sys.argv[1] == 'build': sys.exit('no space\\nleft')",
            (),
            "cannot build '{root}/container/Containerfile': 'docker' ended with status 1: no space | left; run it again with -v",
        ),
        (
            "if sys.argv[1] == 'push': sys.exit(9)",
            (),
            "cannot push 'r/cluster-agent:7': 'docker' ended with status 9; log in to the registry ('docker login')",
        ),
        ("", ("--tag", "a b"), "':a b' is no image"),
        ("", ("--source", "/"), "name a checkout of vanadium-node with --source"),
        ("", ("--builder", "/no/builder"), "'/no/builder' is not installed or cannot be run"),
    ],
)
def test_what_fails(
    folder: Path, capfd: pytest.CaptureFixture[str], body: str, more: tuple[str, ...], says: str
) -> None:
    """One sentence with the builder's own last words; nothing is pushed after a build that failed."""
    program(folder, "docker", body)
    status, printed, said = run_cli(capfd, "build-images", "--tag", "7", "--source", str(ROOT), *more)
    assert (status, printed, said.count("\n")) == (1, "", 1)
    assert says.format(root=ROOT) in said


def test_no_builder(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What was looked for."""
    status, _, said = run_cli(capfd, "build-images", "--source", str(ROOT))
    assert status == 1
    assert "looked for docker, podman, buildah" in said
    assert not (folder / "calls").exists()


@pytest.mark.parametrize(
    ("cluster_agent", "pod_agent", "names"),
    [
        ("r/v:1", "r/v:1", ("r/v:7",)),
        ("r/v", "r/v:latest", ("r/v:7", "r/v:latest")),
        ("r:5000/a:2", "b@sha256:0", ("r:5000/a:7", "b:7")),
    ],
)
def test_names(cluster_agent: str, pod_agent: str, names: tuple[str, ...]) -> None:
    """One image for both roles is built once; 'latest' is moved only where the settings follow it."""
    assert names_to_build(Settings.from_document(document(cluster_agent, pod_agent), "x"), "7") == names


def test_the_usual_tag_is_the_time() -> None:
    """Later builds sort later."""
    assert timestamp_tag(datetime(2026, 11, 23, 17, 0, 5, tzinfo=UTC)) == "20261123-170005"
