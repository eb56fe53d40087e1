"""kubectl's plugin, shell completion, and options of the controller after its command."""

import os
import shutil
import stat
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from vanadium_node.cli.hoisting import hoisted

ROOT = Path(__file__).parents[2]
SCRIPTS = {"kubectl-vanadium": "kubectl_plugin", "kubectl_complete-vanadium": "kubectl_completion"}


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has the plugin's programs, as an installation makes them, before kubectl."""
    for name, function in {**SCRIPTS, "vanadium-node": "main"}.items():
        script = tmp_path / name
        script.write_text(f"#!{sys.executable}\nfrom vanadium_node.__main__ import {function}\n{function}()\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}


def run(programs: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    folder = programs["HOME"]
    return subprocess.run(command, env=programs, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_the_project_installs_them() -> None:
    """Under the names that kubectl looks for."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    for name, function in SCRIPTS.items():
        module, _, attribute = declared[name].partition(":")
        assert attribute == function
        assert callable(getattr(import_module(module), attribute))


@pytest.mark.kubectl
def test_as_a_plugin_of_kubectl(programs: dict[str, str]) -> None:
    """A real kubectl finds it, its usage names kubectl, and its exit status is passed on."""
    assert shutil.which("kubectl"), "this test needs kubectl"
    assert "kubectl-vanadium" in run(programs, "kubectl", "plugin", "list").stdout
    assert run(programs, "kubectl", "__complete", "vanadium", "stat").stdout.startswith("status\t")
    helped = run(programs, "kubectl", "vanadium", "--help")
    assert helped.returncode == 0
    assert helped.stdout.startswith("Usage: kubectl vanadium [OPTIONS] COMMAND [ARGS]...")
    assert "Exit status: 0 done" in helped.stdout
    wrong = run(programs, "kubectl", "vanadium", "start")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("kubectl vanadium: Missing option '-f'")
    assert "'kubectl vanadium start --help' shows how it is used" in wrong.stderr
    failed = run(programs, "kubectl", "vanadium", "status", "-n", "shop")
    assert failed.returncode == 1
    assert failed.stderr.startswith("kubectl vanadium: there is no configuration file 'vkube.cfg'")


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (("stat",), ["status\tShow the applications: replicas, names", ":4"]),
        (("status", "--wat"), ["--watch\tGo on, and show each change until Ctrl-C.", ":4"]),
        (("status", "-o", ""), ["wide", "json", ":4"]),
        (("start", "-f", ""), [":0"]),
        (("-n", "shop", "sto"), ["stop\t", "stop-cluster-agent\t", ":4"]),
        (("status", "fortuned", ""), [":4"]),
    ],
)
def test_what_kubectl_is_told_about_completion(
    programs: dict[str, str], words: tuple[str, ...], printed: list[str]
) -> None:
    """One candidate a line, with its help after a tab, then whether files make sense."""
    lines = run(programs, "kubectl_complete-vanadium", *words).stdout.splitlines()
    assert len(lines) == len(printed)
    assert all(line.startswith(start) for line, start in zip(lines, printed, strict=True)), lines


def test_completion_in_a_real_bash(programs: dict[str, str]) -> None:
    """Sourcing what is printed makes bash complete; a command is imported only when it is needed."""
    script = (
        "source <(vanadium-node completion bash); COMP_LINE='vanadium-node controller start-cl'; COMP_POINT=${#COMP_LINE}; "
        '_vanadium_node_completion vanadium-node; echo "${COMPREPLY[@]}"; complete -p vanadium-node'
    )
    done = run(programs, "bash", "-c", script)
    assert done.stdout.splitlines()[0] == "start-cluster-agent", done
    assert "_vanadium_node_completion" in done.stdout.splitlines()[1]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_for_other_shells(programs: dict[str, str], shell: str) -> None:
    """They are printed, and others are refused."""
    assert "_VANADIUM_NODE_COMPLETE" in run(programs, "vanadium-node", "completion", shell).stdout
    assert run(programs, "vanadium-node", "completion", "cmd").returncode == 2


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("status -n shop", "-n shop status"),
        ("status fortuned --namespace=shop -o json", "--namespace=shop status fortuned -o json"),
        ("--config a stop -f x --local", "--config a --local stop -f x"),
        ("-n a kubectl get pods -n b --context c", "-n a kubectl get pods -n b --context c"),
        ("start -- -n x", "start -- -n x"),
        ("status -n", "-n status"),
        ("status --watch", "status --watch"),
    ],
)
def test_options_after_the_command(given: str, meant: str) -> None:
    """Those that say which cluster is meant; what is kubectl's stays kubectl's."""
    assert hoisted(given.split()) == meant.split()
