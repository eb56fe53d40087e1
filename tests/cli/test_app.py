"""The command tree: what is listed, how roles are chosen, and how failures are told."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from vanadium_node import __version__
from vanadium_node.__main__ import main
from vanadium_node.cli.app import ROLES, TOOLS, app, load, with_role


def test_help_lists_every_command() -> None:
    """A user finds every role and tool in the help."""
    printed = CliRunner().invoke(app, ["--help"]).output
    for name in (*ROLES, *TOOLS):
        assert f"  {name} " in printed


def test_help_imports_no_heavy_library() -> None:
    """Help is fast because it imports neither trio nor rich nor any floor but the command line."""
    code = (
        "import sys; from vanadium_node.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'trio', 'rich', 'cryptography', 'httpx'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", [*ROLES, *TOOLS])
def test_every_listed_command_can_be_loaded(name: str) -> None:
    """What the help lists is there, and documents itself."""
    assert load(name).help


def test_version() -> None:
    """The version is the package's."""
    assert CliRunner().invoke(app, ["--version"]).output == f"vanadium-node, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "role", "expected"),
    [
        (["--role", "pod-agent", "--x"], None, ["pod-agent", "--x"]),
        (["--role=pod-agent"], None, ["pod-agent"]),
        (["--x"], "pod-agent", ["pod-agent", "--x"]),
        ([], "pod-agent", ["pod-agent"]),
        (["healthcheck"], "pod-agent", ["healthcheck"]),
        (["cluster-agent"], "pod-agent", ["cluster-agent"]),
        (["--help"], "pod-agent", ["--help"]),
        (["--x"], None, ["--x"]),
    ],
)
def test_the_role_is_the_first_argument(arguments: list[str], role: str | None, expected: list[str]) -> None:
    """`--role R`, VANADIUM_ROLE=R and a first argument R are the same; a named command wins over the environment."""
    assert with_role(arguments, role) == expected


@pytest.mark.parametrize("arguments", [["cluter-agent"], ["--role", "king"], ["principal", "--no-such-option"]])
def test_wrong_usage_is_one_sentence_and_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line names what is wrong, points to the help, and ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("vanadium-node: ")
    assert len(error.splitlines()) == 1


def test_the_nearest_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped command gets the one that was probably meant."""
    with pytest.raises(SystemExit):
        main(["principle"])
    assert "did you mean 'principal'?" in capsys.readouterr().err
