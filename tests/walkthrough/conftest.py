"""A shell to type the walkthrough into: a folder, an environment, and an embedded cluster that ends with the test."""

import os
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_shell import Shell


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A shell in a short temporary folder (socket paths end at 107 bytes) with an embedded cluster of its own."""
    with tempfile.TemporaryDirectory(prefix="vw-") as name:
        folder = Path(name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("V23_", "VANADIUM_", "KUBE"))}
        environment["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        environment["VANADIUM_LOCAL_DIR"] = str(folder / "c")
        shell = Shell(folder, environment)
        try:
            yield shell
        finally:
            shell.run("vanadium-node local down")
