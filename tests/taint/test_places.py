"""The watch for secrets finds what is planted in each place, fails the session, names the place and shows no value."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from taint_hooks import FOLDER, REPORT

HERE = Path(__file__).parent
SUPPORT = Path(FOLDER).parent
INI = "[pytest]\npythonpath = {}\naddopts = --import-mode=importlib -p no:cacheprovider -p no:trio\n"
PLANTED = (HERE / "planted.py").read_text()
TESTS = re.findall(r"^def test_(\w+)\(", PLANTED, re.MULTILINE)

EXPECTED = {
    "standard": "captured std",
    "log that is shown": "captured log",
    "log that is not shown": "log",
    "error of others": "error",
    "file that": "file ",
    "arguments": "arguments of",
    "environment": "environment of",
}
"""How the place of some leaks is named; the others are named as their test begins."""


def session(folder: Path, tests: str, chosen: str = "") -> "subprocess.CompletedProcess[str]":
    """Run tests in a session with a watch of its own, of which ours hears nothing."""
    (folder / "pytest.ini").write_text(INI.format(f"{SUPPORT} {FOLDER}"))
    (folder / "conftest.py").write_text('pytest_plugins = ["taint_plugin"]\n')
    (folder / "test_planted.py").write_text(tests)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--basetemp={folder / 'base'}", "-k", chosen, "test_planted.py"],
        cwd=folder, env={**os.environ, REPORT: ""}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> "subprocess.CompletedProcess[str]":
    """A session of which each test leaks something."""
    return session(tmp_path_factory.mktemp("planted"), PLANTED)


@pytest.mark.parametrize("name", [name for name in TESTS if not name.startswith("nothing")])
def test_what_is_planted_is_found(planted: "subprocess.CompletedProcess[str]", name: str) -> None:
    """With the place and the test, once for each kind of key."""
    spoken = name.replace("_", " ")
    place = next((place for test, place in EXPECTED.items() if spoken.startswith(test)), spoken.split(" ")[0])
    leaks = [line for line in planted.stdout.splitlines() if re.search(rf"\(seen at .*::test_{name}(\[|\))", line)]
    tests = {line.rpartition("::")[2] for line in leaks if line.startswith(place)}
    takes_keys = re.search(rf"^def test_{name}\(.*(text|key): |^def test_{name}\(sleeper", PLANTED, re.MULTILINE)
    assert len(tests) == (2 if takes_keys else 1), planted.stdout


def test_a_session_with_leaks_fails_and_shows_none_of_them(planted: "subprocess.CompletedProcess[str]") -> None:
    """Only the test that was to fail shows what it failed with; the summary has places, kinds and forms."""
    assert planted.returncode == pytest.ExitCode.TESTS_FAILED
    assert "test_nothing_of_a_well_kept_key" not in planted.stdout
    summary = planted.stdout.partition("secrets where none may be")[2].partition("short test summary")[0]
    assert summary.count("seen at") > len(TESTS)
    assert not re.search(r"[0-9a-fA-F]{40}|[A-Za-z0-9+_-]{60}|\d{60}", re.sub(r"/\S+|test_\w+", "", summary))


def test_a_session_without_leaks_passes(tmp_path: Path) -> None:
    """What is where it may be is no leak, although it was looked for."""
    done = session(tmp_path, PLANTED, "nothing")
    assert done.returncode == 0, done.stdout
    assert re.search(r"searched for [1-9]\d* keys and secrets, 0 leaks", done.stdout)


def test_passing_tests_do_not_hide_a_leak(tmp_path: Path) -> None:
    """The session fails though each of its tests has passed."""
    done = session(tmp_path, PLANTED, "log_that_is_not_shown")
    assert "1 passed" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
