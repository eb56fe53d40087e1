"""Types `principal` commands in one folder."""

import io

import pytest

from vanadium_node.cli.principal import command
from vanadium_node.cli.running import run


class Tool:
    """Runs `principal` commands in one folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def become(self, directory: str) -> None:
        """Act as the principal in a directory from now on."""
        self._monkeypatch.setenv("V23_CREDENTIALS", directory)

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must succeed and return its standard output."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        status = run(command, list(arguments), "principal")
        captured = self._capsys.readouterr()
        assert status == 0, captured.err
        self.talk = captured.err
        return captured.out

    def refused(self, *arguments: str, stdin: str = "", status: int = 1) -> str:
        """Run a command that must fail and return its one sentence."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        assert run(command, list(arguments), "principal") == status
        return self._capsys.readouterr().err
