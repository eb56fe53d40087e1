"""A shell for tests that type commands as a user does."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SEED = Path(__file__).parents[1] / "walkthrough" / "seed"


@dataclass
class Finished:
    """How a command line ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def everything(self) -> str:
        """Return both outputs, for messages."""
        return f"exit status {self.status}\n--- stdout\n{self.stdout}--- stderr\n{self.stderr}"


@dataclass
class Shell:
    """Runs command lines as a user types them, all in one folder with one environment."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, line: str, timeout: float = 120) -> Finished:
        """Run a command line with bash and return how it ended."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def type(self, line: str) -> str:
        """Run a command line that must succeed and return its standard output."""
        done = self.run(line)
        assert done.status == 0, f"$ {line}\n{done.everything}"
        return done.stdout

    def refused(self, line: str, status: int = 1) -> str:
        """Run a command line that must fail with one sentence and no traceback, and return that sentence."""
        done = self.run(line)
        assert done.status == status, f"$ {line}\n{done.everything}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr

    def write_seed_file(self, name: str) -> None:
        """Write a file of the walkthrough as its heredoc does: byte for byte, with the variables filled in."""
        text = (SEED / name).read_text()
        (self.folder / name).write_text(text.replace("$PROJECT", "p").replace("$ZONE", "z").replace("$CLUSTER", "c"))
