"""`vanadium-node demo`: the walkthrough as newcomers see it, and what it leaves behind: nothing."""

import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vanadium_node.cli import demo
from vanadium_node.cli.demo_script import Step
from vanadium_node.cli.running import run

DEMO = Path(sysconfig.get_path("scripts")) / "vanadium-node"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose temporary folders can be looked at, and that has no kubectl."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "cat"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    scratch = tempfile.mkdtemp(prefix="vd-")
    yield {"PATH": str(tools), "TMPDIR": scratch, "HOME": str(tmp_path)}
    shutil.rmtree(scratch, ignore_errors=True)


def left_below(folder: str) -> list[str]:
    """Return the processes that are left of those below a folder, once ending ones have had a moment to end."""
    end = time.monotonic() + 5
    while (found := processes_below(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def processes_below(folder: str) -> list[str]:
    """Return the command lines of processes whose environment or arguments name a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if folder.encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def test_the_demo_needs_nothing_and_leaves_nothing(environment: dict[str, str]) -> None:
    """Piped, without kubectl: every step is shown, the last line is who was presented, nothing is left."""
    done = subprocess.run([DEMO, "demo"], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("PRESENTED: test-root:fortuned:")
    assert "$ vanadium-node controller --local claim-cluster-agent" in lines
    assert "\x1b" not in done.stdout
    assert not any(line.startswith("$ vanadium-node controller --local kubectl") for line in lines)
    assert left_below(environment["TMPDIR"]) == []
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_ctrl_c_cleans_up(environment: dict[str, str]) -> None:
    """Interrupted in the middle, the demo stops its cluster, removes its folder, and says so with status 130."""
    with subprocess.Popen(
        [DEMO, "demo"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "claim-cluster-agent" in line:
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
        assert "interrupted" in process.stderr.read()
        assert process.wait(timeout=30) == 130
    assert left_below(environment["TMPDIR"]) == []
    assert list(Path(environment["TMPDIR"]).iterdir()) == []


def test_a_failing_step_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo stops at the first step that fails, names it, and ends with status 1."""
    steps = (
        Step(title="Fine", line="echo fine"),
        Step(title="Broken", line="echo oh; exit 3"),
        Step(title="No", line="echo no"),
    )
    monkeypatch.setattr(demo, "STEPS", steps)
    monkeypatch.setattr(demo, "CLEAN_UP", (Step(title="Clean", line="echo cleaned >&2"),))
    assert run(demo.command, [], "vanadium-node") == 1
    printed = capsys.readouterr()
    assert "failed at the step 'Broken': 'echo oh; exit 3' ended with exit status 3" in printed.err
    assert "oh" in printed.out
    assert "echo no" not in printed.out


def test_keep_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With --keep the folder stays, nothing is cleaned up, and the next commands are shown."""
    monkeypatch.setattr(demo, "STEPS", (Step(title="Fine", line="pwd"),))
    monkeypatch.setattr(demo, "CLEAN_UP", (Step(title="Clean", line="exit 1"),))
    assert run(demo.command, ["--keep"], "vanadium-node") == 0
    printed = capsys.readouterr()
    found = re.search(r"cd (\S+)", printed.err)
    assert found
    assert found[1] in printed.out
    assert "vanadium-node local down" in printed.err
    assert (Path(found[1]) / "vkube.cfg").exists()
    shutil.rmtree(found[1])
