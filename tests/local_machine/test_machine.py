"""The machine as a whole: its end, its sudden death, and bugs in it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from machine_bench import Bench, container, running_bench, shell

from vanadium_node.local.api.kinds import NODE, POD
from vanadium_node.local.api.objects import Object
from vanadium_node.local.machine.addresses import Addresses
from vanadium_node.local.machine.controllers import Controller, itself, run_controller
from vanadium_node.local.machine.journal import Journal
from vanadium_node.local.machine.volumes import Volumes

MACHINE = """
import sys, trio
from pathlib import Path
from machine_bench import running_bench, shell

async def main():
    async with running_bench(Path(sys.argv[1])) as bench:
        bench.pod(shell("trap '' TERM; sleep 1000 & echo $$$$ $!; wait; wait"))
        print(await bench.until_logged("\\n"), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A machine in a process of its own; its first line names the processes of its one pod."""
    support = str(Path(__file__).parent.parent / "support")
    argv = [sys.executable, "-c", MACHINE, str(tmp_path / "m")]
    env = {"PYTHONPATH": support, "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) as process:
        yield process
        process.kill()


async def test_a_killed_machine_leaves_no_processes(machine: subprocess.Popen[str]) -> None:
    """SIGKILL of the machine ends its pods with all that they started."""
    assert machine.stdout is not None
    pids = [int(word) for word in machine.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(_is_alive, pids))
    machine.send_signal(signal.SIGKILL)
    with trio.fail_after(5):
        while any(map(_is_alive, pids)):  # noqa: ASYNC110 - the ends of grandchildren send no event
            await trio.sleep(0.02)


async def test_a_machine_that_is_shut_down_leaves_no_processes(tmp_path: Path) -> None:
    """When it is cancelled, its pods get SIGTERM and a moment, then SIGKILL."""
    async with running_bench(tmp_path / "m") as bench:
        bench.pod(shell("trap '' TERM; sleep 1000 & echo $$$$ $!; wait; wait"))
        pids = [int(word) for word in (await bench.until_logged("\n")).split()]
    assert not any(map(_is_alive, pids))


async def test_the_machine_is_a_node(bench: Bench) -> None:
    """It is ready, and says what it has."""
    (node,) = bench.store.list(NODE)
    assert node["status"]["conditions"][0]["type"] == "Ready"
    assert node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.33.")
    assert int(node["status"]["capacity"]["cpu"]) >= 1


async def test_a_system_without_pod_addresses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods share 127.0.0.1 there, and an event of the node says what that means."""
    monkeypatch.setattr(Addresses, "_claim", lambda _: False)
    async with running_bench(tmp_path / "m") as bench:
        bench.pod(container())
        assert (await bench.until_ready())["status"]["podIP"] == "127.0.0.1"
        (node,) = bench.store.list(NODE)
        assert bench.reasons(node["metadata"]["name"]) == ["NoPodAddresses"]


async def test_a_bug_in_one_pod_is_its_event_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The traceback is in the machine's log; the pod can be deleted."""
    fill = Volumes.fill

    def broken(self: Volumes, pod: Object) -> None:
        if pod["metadata"]["name"] == "cursed":
            raise ZeroDivisionError("a bug")
        fill(self, pod)

    monkeypatch.setattr(Volumes, "fill", broken)
    async with running_bench(tmp_path / "m", noting="ZeroDivisionError: a bug") as bench:
        bench.pod(container(), name="cursed")
        bench.pod(container(), name="blessed")
        await bench.until_ready("blessed")
        event = await bench.until_event("FailedSync", "cursed")
        assert event["message"].startswith("error syncing pod: ZeroDivisionError")
        bench.store.delete(POD, "default", "cursed")
        await bench.until_gone("cursed")


async def test_a_bug_in_a_controller_delays_one_object(bench: Bench, tmp_path: Path) -> None:
    """It is tried again, and the other objects get their turns."""
    seen: list[str] = []

    def reconcile(_: str, name: str) -> None:
        seen.append(name)
        if name == "bad" and seen.count("bad") == 1:
            raise ZeroDivisionError("a bug")

    journal = Journal(tmp_path / "log", bench.store.now)
    async with trio.open_nursery() as nursery:
        controller = Controller(name="test", reconcile=reconcile, watches={POD: itself})
        for name in ("bad", "good"):
            bench.pod(container(), name=name, nodeSelector={"none": "such"})
        nursery.start_soon(run_controller, bench.store, journal, controller)
        with trio.fail_after(5):
            while seen.count("bad") < 2 or "good" not in seen:  # noqa: ASYNC110 - retries come after a time
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert "ZeroDivisionError: a bug" in (tmp_path / "log").read_text()


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
