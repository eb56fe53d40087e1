"""`vanadium-node demo`: the whole walkthrough, each step run as a user would type it.

Every step is a real command in a process of its own, in a temporary folder, against an embedded cluster of its own; the
demo only shows it, says what just happened, and stops at the first one that fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import click

from vanadium_node.cli.demo_script import CLEAN_UP, FILES, LAST_STEP, STEPS, Step
from vanadium_node.cli.output import is_terminal, note, run_async
from vanadium_node.errors import VanadiumError

if TYPE_CHECKING:
    import trio

CLEAN_UP_SECONDS: Final = 15
"""How long the clean-up may take after the demo has failed or was interrupted."""

STEP_END_SECONDS: Final = 5


class Display(Protocol):
    """Shows the demo to whoever looks: a person or a pipe."""

    def title(self, number: int, total: int, step: Step) -> None:
        """Announce a step."""

    def command(self, line: str) -> None:
        """Show a command as a user would type it."""

    def printed(self, text: str) -> None:
        """Show what the command printed."""

    def remark(self, text: str) -> None:
        """Say what just happened."""


class PlainDisplay:
    """Lines for pipes and files."""

    def title(self, number: int, total: int, step: Step) -> None:
        """Announce a step."""
        click.echo(f"\n# Step {number} of {total}: {step.title}")

    def command(self, line: str) -> None:
        """Show a command as a user would type it."""
        click.echo(f"$ {line}")

    def printed(self, text: str) -> None:
        """Show what the command printed."""
        if text:
            click.echo(text.rstrip("\n"))

    def remark(self, text: str) -> None:
        """Say what just happened."""
        click.echo(f"# {text}")


class RichDisplay:
    """The same, for a person at a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def title(self, number: int, total: int, step: Step) -> None:
        """Announce a step."""
        self._console.print()
        self._console.rule(f"[bold]{number}/{total}  {step.title}", align="left", style="dim")

    def command(self, line: str) -> None:
        """Show a command as a user would type it."""
        from rich.text import Text

        self._console.print(Text.assemble(("$ ", "dim"), (line, "bold green")), soft_wrap=True)

    def printed(self, text: str) -> None:
        """Show what the command printed."""
        if text:
            self._console.out(text.rstrip("\n"), highlight=False)

    def remark(self, text: str) -> None:
        """Say what just happened."""
        from rich.text import Text

        self._console.print(Text(text, style="italic cyan"))


@click.command()
@click.option("--keep", is_flag=True, help="Leave the cluster and the application running, and say how to go on.")
@run_async
async def command(keep: bool) -> None:
    """Run the whole walkthrough on an embedded cluster in a temporary folder.

    A root principal is created, a cluster agent started and claimed, the example application started with blessings,
    identified from outside, updated, and everything is cleaned up again. Nothing but this package is needed; kubectl is
    used where it is there.
    """
    display: Display = RichDisplay() if is_terminal() else PlainDisplay()
    with temporary_folder(keep) as folder:
        async with stage(folder, display, keep):
            identified = ""
            display.remark(
                f"Everything happens in {folder}, with V23_CREDENTIALS and VANADIUM_LOCAL_DIR set to folders in it."
            )
            steps = possible_steps()
            for number, step in enumerate(steps, 1):
                display.title(number, len(steps) + (not keep), step)
                printed = await perform(step, folder, display)
                if step is LAST_STEP:
                    identified = presented(printed)
    if keep:
        _say_how_to_go_on(folder)
    click.echo(identified)


@contextmanager
def temporary_folder(keep: bool) -> Iterator[Path]:
    """Make the folder that the demo works in, with its input files; remove it in the end, unless it is kept."""
    folder = Path(tempfile.mkdtemp(prefix="vanadium-demo-"))
    done = False
    try:
        for name, content in FILES.items():
            (folder / name).write_text(content)
        yield folder
        done = True
    finally:
        if not (keep and done):
            shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def stage(folder: Path, display: Display, keep: bool) -> AsyncIterator[None]:
    """Clean up behind the steps: shown after success; in silence, and within a deadline, after a failure or Ctrl-C."""
    import trio

    is_done = False
    try:
        yield
        is_done = True
    finally:
        if not is_done:
            with trio.move_on_after(CLEAN_UP_SECONDS, shield=True):
                await run(CLEAN_UP[-1].line, folder)
    if not keep:
        last = len(possible_steps()) + 1
        display.title(last, last, CLEAN_UP[0])
        for step in CLEAN_UP:
            await perform(step, folder, display)


def possible_steps() -> list[Step]:
    """Return the steps whose programs are there."""
    return [step for step in STEPS if not step.program or shutil.which(step.program)]


async def perform(step: Step, folder: Path, display: Display) -> str:
    """Show and run one step, and return what it printed.

    Raises:
        VanadiumError: the command failed; the sentence names the step.
    """
    display.command(step.line)
    status, printed = await run(step.line, folder)
    display.printed(printed)
    if status != 0:
        raise VanadiumError(
            f"the demo failed at the step '{step.title}': '{step.line}' ended with exit status {status}",
            hint="what it printed stands above",
        )
    if step.remark:
        display.remark(step.remark)
    return printed


async def run(line: str, folder: Path) -> tuple[int, str]:
    """Run a command line in the folder and return its exit status and everything it printed.

    When this is cancelled, everything that the line has started is ended too: a command that went on would start again what
    is being cleaned up.
    """
    import subprocess

    import trio

    result = await trio.run_process(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
        start_new_session=True,
        deliver_cancel=end_group,
    )
    return result.returncode, result.stdout.decode(errors="replace")


async def end_group(process: trio.Process) -> None:
    """Ask all processes of a command line to end, and kill what has not in time."""
    import trio

    for number in (signal.SIGTERM, signal.SIGKILL):
        _signalled(process.pid, number)
        with trio.move_on_after(STEP_END_SECONDS):
            while _signalled(process.pid, 0):  # noqa: ASYNC110 - the end of a group sends no event
                await trio.sleep(0.02)
            return


def _signalled(group: int, number: int) -> bool:
    """Send a signal to a process group; tell whether there is anybody in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of the steps: this one's, with this package's commands first and the demo's own principal."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("V23_", "VANADIUM_", "KUBECONFIG"))
    }
    scripts = [sysconfig.get_path("scripts"), str(Path(sys.executable).parent)]
    return own | {
        "PATH": os.pathsep.join([*scripts, os.environ.get("PATH", os.defpath)]),
        "V23_CREDENTIALS": str(folder / "test-root"),
        "VANADIUM_LOCAL_DIR": str(folder / "c"),
    }


def presented(printed: str) -> str:
    """Return the line of `rpc identify` that says which name the application presented."""
    return next((line for line in printed.splitlines() if line.startswith("PRESENTED:")), "")


def _say_how_to_go_on(folder: Path) -> None:
    note(
        f"\nEverything is still running. To go on:\n"
        f"  cd {folder}\n"
        f"  export V23_CREDENTIALS={folder / 'test-root'} VANADIUM_LOCAL_DIR={folder / 'c'}\n"
        f"  vanadium-node controller --local kubectl get pods\n"
        f"To end it:\n"
        f"  vanadium-node local down && rm -r {folder}\n"
    )
