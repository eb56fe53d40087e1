"""The files in `configs/`: each key of a daemon with its explanation, its ways and its default, and nothing else."""

import re
import tomllib
from pathlib import Path

import pytest
from agent_parties import default_of, new_root

from vanadium_node.config import (
    ClusterAgentSettings,
    DischargerSettings,
    PodAgentSettings,
    load,
    settings_of,
)

CONFIGS = Path(__file__).parents[2] / "configs"
ROLES = {
    "cluster-agent.toml": ClusterAgentSettings,
    "pod-agent.toml": PodAgentSettings,
    "discharger.toml": DischargerSettings,
}
ENTRY = re.compile(r"(?:# )?([a-z][a-z-]*) = (\".*\")")


def entries(name: str) -> dict[str, tuple[str, str]]:
    """Return what a file says of each key: the comment above it, and its line."""
    found = {}
    for block in (CONFIGS / name).read_text().split("\n\n")[1:]:
        *comment, line = block.strip().splitlines()
        entry = ENTRY.fullmatch(line)
        assert entry is not None, line
        found[entry[1]] = (" ".join(each.removeprefix("# ") for each in comment), line)
    return found


def test_there_is_a_file_for_each_daemon() -> None:
    """And no other one."""
    assert {path.name for path in CONFIGS.glob("*.toml")} == set(ROLES)


@pytest.mark.parametrize("name", ROLES)
def test_each_key_is_explained(name: str) -> None:
    """In the words of `--help`, in the same order, with its flag and variable, and its default if it has one."""
    settings = {declared.name: declared for declared in settings_of(ROLES[name])}
    found = entries(name)
    assert list(found) == list(settings)
    for key, (comment, line) in found.items():
        declared = settings[key]
        ways = [*declared.flags[:1], *([declared.environment] if declared.environment else [])]
        assert comment == f"{declared.help} [{', '.join(ways)}]"
        assert line.startswith("# ") is not declared.is_required
        if not declared.is_required and declared.default not in (None, ()):
            assert tomllib.loads(line.removeprefix("# ")) == {key: declared.render(declared.default)}


@pytest.mark.parametrize("name", ROLES)
async def test_it_can_be_used_as_it_is(name: str) -> None:
    """With the roots that only its user knows."""
    environment = {"ROOT_BLESSINGS": default_of(await new_root()).text, "CLAIMER": "root:$", "ADMIN": "root"}
    settings: object = load(ROLES[name], flags={}, environment=environment, file=CONFIGS / name)
    for declared in settings_of(ROLES[name]):
        if not declared.is_required and declared.environment not in environment:
            assert getattr(settings, declared.field) == declared.default


@pytest.mark.parametrize("name", ROLES)
def test_each_example_is_one(name: str) -> None:
    """What is commented out can be parsed, but for blessings, which nobody can make up."""
    settings = {declared.name: declared for declared in settings_of(ROLES[name])}
    for key, (_, line) in entries(name).items():
        if key != "root-blessings":
            settings[key].parse(tomllib.loads(line.removeprefix("# "))[key])
