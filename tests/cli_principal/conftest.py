"""The `principal` tool in an empty folder."""

from pathlib import Path

import pytest
from principal_tool import Tool


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    """The tool in an empty folder with principals alice (the current one) and bob."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("V23_AGENT_PATH", raising=False)
    tool = Tool(monkeypatch, capsys)
    for name in ("alice", "bob"):
        tool("create", "--with-passphrase=false", name, name)
    tool.become("alice")
    return tool
