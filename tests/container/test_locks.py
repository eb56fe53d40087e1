"""What goes into the image: names, versions and hashes, of everything that the project needs and nothing of a machine."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"([a-z0-9.-]+)==[^ /]+( \\)?")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def normal(name: str) -> str:
    """Return a package's name as the index writes it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lock: str) -> set[str]:
    lines = (ROOT / "container" / lock).read_text().splitlines()
    return {found[1] for line in lines if (found := PIN.fullmatch(line))}


@pytest.mark.parametrize("lock", ["requirements.lock", "build.lock"])
def test_a_lock_holds_pins_and_hashes_only(lock: str) -> None:
    """No index, no folder of one machine, no package without a hash."""
    lines = (ROOT / "container" / lock).read_text().splitlines()
    assert [line for line in lines if not PIN.fullmatch(line) and not HASH.fullmatch(line)] == []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if PIN.fullmatch(line):
            assert HASH.fullmatch(following), f"{line} has no hash"


def test_every_dependency_is_pinned() -> None:
    """A dependency that is added to the project is missing in the image until 'container/lock' has run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = [re.split(r"[\[<>=!~; ]", text, maxsplit=1)[0] for text in project["project"]["dependencies"]]
    assert {normal(name) for name in names} <= pinned("requirements.lock")
    builders = [re.split(r"[\[<>=!~; ]", text, maxsplit=1)[0] for text in project["build-system"]["requires"]]
    assert {normal(name) for name in builders} <= pinned("build.lock")
