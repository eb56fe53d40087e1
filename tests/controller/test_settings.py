"""vkube.cfg: what it may say, what it may not, and how that is told."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from vanadium_node.controller.settings import Settings
from vanadium_node.controller.update_config import update_images, with_image
from vanadium_node.errors import ConfigurationError, InputError, StorageError

SEED = Path(__file__).parents[1] / "walkthrough" / "seed" / "vkube.cfg"


def seed() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(SEED.read_text())
    return document


def test_the_seeds_file() -> None:
    """Every key that the walkthrough's file has means something."""
    settings = Settings.from_file(SEED)
    agent = settings.cluster_agent
    assert all((settings.project, settings.zone, settings.cluster))
    assert (agent.namespace, agent.cpu, agent.memory) == ("default", "0.1", "250M")
    assert (agent.blessing, agent.granter, agent.extension) == ("test-root:cluster-agent", "test-root", "cluster-agent")
    assert agent.admin == ("test-root",)
    assert agent.persistent_disk == "test-cluster-agent-disk"
    assert agent.in_cluster_name == "/(test-root:cluster-agent)@cluster-agent.default:8193"
    assert not agent.internal_only


def test_the_least_file() -> None:
    """What has a default may be left out; an empty text counts as left out, as templates leave it."""
    document = {
        "project": "",
        "clusterAgent": {"image": "i", "blessing": "a:b:c", "admin": "a, b:ops"},
        "podAgent": {"image": "p"},
    }
    settings = Settings.from_document(document, "x")
    agent = settings.cluster_agent
    assert settings.project is None
    assert (agent.namespace, agent.cpu, agent.memory, agent.external_ip) == ("default", "0.1", "250M", None)
    assert (agent.granter, agent.extension, agent.admin) == ("a:b", "c", ("a", "b:ops"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "clusterAgent: {image: i, blessing: 'a:b', admin: a}\npodAgent: {image: p}\n"),
        ("c.toml", "[clusterAgent]\nimage='i'\nblessing='a:b'\nadmin='a'\n[podAgent]\nimage='p'\n"),
        ("vkube.cfg", '{"clusterAgent": {"image": "i", "blessing": "a:b", "admin": "a"}, "podAgent": {"image": "p"}}'),
    ],
)
def test_formats_by_ending(tmp_path: Path, name: str, text: str) -> None:
    """JSON, YAML and TOML say the same."""
    path = tmp_path / name
    path.write_text(text)
    assert Settings.from_file(path).cluster_agent.blessing == "a:b"


def changed(section: str, **values: Any) -> dict[str, Any]:
    """The seed's file with other values in a section; None removes a key."""
    document = seed()
    part = document[section] if section else document
    part.update(values)
    for key in [key for key, value in part.items() if value is None]:
        del part[key]
    return document


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (changed("", clusteragent={}), "unknown key 'clusteragent'; did you mean 'clusterAgent'?"),
        (
            changed("clusterAgent", internalonly=True),
            "unknown key 'clusterAgent.internalonly'; did you mean 'internalOnly'?",
        ),
        (changed("podAgent", zzz=1), "unknown key 'podAgent.zzz'; known keys are image"),
        (changed("", podAgent=None), "'podAgent' is missing"),
        (changed("", podAgent="x"), "'podAgent' is a text, not an object"),
        (changed("clusterAgent", image=None), "'clusterAgent.image' is missing"),
        (changed("clusterAgent", image=3), "'clusterAgent.image' is 3; it must be a text"),
        (
            changed("clusterAgent", namespace="My_Space"),
            "'clusterAgent.namespace' is \"My_Space\"; it must be the name of a namespace",
        ),
        (changed("clusterAgent", cpu="a lot"), "it must be a Kubernetes quantity"),
        (changed("clusterAgent", memory=250), "it must be a Kubernetes quantity"),
        (changed("clusterAgent", blessing="test-root"), "it must be a name of yours and an extension"),
        (changed("clusterAgent", blessing=":x"), "it must be a name of yours and an extension"),
        (changed("clusterAgent", blessing="a:(b"), "it must be a name of yours and an extension"),
        (changed("clusterAgent", admin="a,,b"), "it must be blessing patterns"),
        (changed("clusterAgent", externalIP="here"), "it must be an IP address"),
        (changed("clusterAgent", internalOnly="yes"), "it must be true or false"),
        (changed("clusterAgent", persistentVolumeClaim="c"), "names both 'persistentDisk' and 'persistentVolumeClaim'"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], says: str) -> None:
    """File, key, value and what it must be, in one sentence."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_document(document, "vkube.cfg")
    assert str(caught.value).startswith("vkube.cfg: ")
    assert says in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.cfg", b'{"project": }', "is not valid JSON"),
        ("a.cfg", b"\xff", "is not valid JSON"),
        ("a.cfg", b"[]", "holds a list, not an object"),
        ("a.yaml", b"a: [", "is not valid YAML"),
        ("a.toml", b"a = ", "is not valid TOML"),
        ("a.cfg", b" " * (1024 * 1024 + 1), "is larger than"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    """Broken, binary or huge files, each in one sentence with its name."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_file(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    """A missing file names the option."""
    with pytest.raises(ConfigurationError, match=r"there is no configuration file .*--config"):
        Settings.from_file(tmp_path / "vkube.cfg")
    with pytest.raises(ConfigurationError, match="cannot read"):
        Settings.from_file(tmp_path)


@pytest.mark.parametrize(
    ("current", "wanted", "result"),
    [
        ("gcr.io/p/agent:latest", ":2", "gcr.io/p/agent:2"),
        ("gcr.io/p/agent", ":2", "gcr.io/p/agent:2"),
        ("localhost:5000/agent", ":2", "localhost:5000/agent:2"),
        ("localhost:5000/agent:1", ":2", "localhost:5000/agent:2"),
        ("agent:1@sha256:abc", ":2", "agent:2"),
        ("agent:1", "other/thing:3", "other/thing:3"),
    ],
)
def test_images(current: str, wanted: str, result: str) -> None:
    """`:TAG` changes the tag alone; a registry's port is no tag, and a digest must not win over the new tag."""
    assert with_image(current, wanted) == result


@pytest.mark.parametrize("wanted", ["", ":", "a b", "ü:1", "a\n"])
def test_what_is_no_image(wanted: str) -> None:
    """Refused before anything is written."""
    with pytest.raises(InputError, match="is no image"):
        with_image("agent:1", wanted)


def test_update_config_changes_the_images_only(tmp_path: Path) -> None:
    """Other keys, the file's permissions and a link to it stay."""
    real, link = tmp_path / "real.cfg", tmp_path / "vkube.cfg"
    real.write_text(SEED.read_text())
    real.chmod(0o640)
    link.symlink_to(real)
    expected = copy.deepcopy(seed())
    name = expected["clusterAgent"]["image"].rpartition(":")[0]
    expected["clusterAgent"]["image"] = f"{name}:7"
    expected["podAgent"]["image"] = "other:1"
    settings = update_images(link, cluster_agent=":7", pod_agent="other:1")
    assert settings.cluster_agent.image == f"{name}:7"
    assert json.loads(real.read_text()) == expected
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["real.cfg", "vkube.cfg"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "clusterAgent: {image: i:1, blessing: 'a:b', admin: a} # i:1 is ours\npodAgent: {image: i:1}\n"),
        ("c.toml", '# i:1\n[clusterAgent]\nimage = "i:1"\nblessing = "a:b"\nadmin = "a"\n[podAgent]\nimage = "i:1"\n'),
        (
            "c.cfg",
            '{"podAgent":{"image":"i:1"},\n  "clusterAgent":{"image":"i:1","blessing":"a:i:1","admin":"a"}}',
        ),
    ],
)
def test_update_config_keeps_every_other_character(tmp_path: Path, name: str, text: str) -> None:
    """Comments, order and spaces stay, in each format, even where the image's text stands in other places too."""
    path = tmp_path / name
    path.write_text(text)
    settings = update_images(path, cluster_agent=None, pod_agent=":22")
    assert (settings.cluster_agent.image, settings.pod_agent.image) == ("i:1", "i:22")
    assert Settings.from_file(path) == settings
    assert len(path.read_text()) == len(text) + 1
    assert path.read_text().count("i:22") == 1
    update_images(path, cluster_agent=None, pod_agent=":1")
    assert path.read_text() == text


def test_update_config_refuses_what_it_would_spoil(tmp_path: Path) -> None:
    """An image that is written in another form than it is read in, and a file that is not there."""
    escaped = tmp_path / "c.yaml"
    text = 'clusterAgent: {image: "r\\x2fi:1", blessing: "a:b", admin: a}\npodAgent: {image: p}\n'
    escaped.write_text(text)
    with pytest.raises(ConfigurationError, match=r"does not hold the image 'r/i:1' as plain text; change .* by hand"):
        update_images(escaped, cluster_agent=":2", pod_agent=None)
    assert escaped.read_text() == text
    with pytest.raises(ConfigurationError, match="no configuration file"):
        update_images(tmp_path / "none", cluster_agent=":2", pod_agent=None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_update_config_in_a_folder_of_somebody_else(tmp_path: Path) -> None:
    """The old file stays."""
    path = tmp_path / "vkube.cfg"
    path.write_text(SEED.read_text())
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError):
        update_images(path, cluster_agent=":2", pod_agent=None)
    tmp_path.chmod(0o700)
    assert path.read_text() == SEED.read_text()
