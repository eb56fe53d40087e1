"""The promised costs of chains, measured."""

import subprocess
import sys
from pathlib import Path

ATTEMPTS = 15
"""A machine that is busy with other things, for as long as half a minute, spoils a measurement, and never improves one."""


def test_chains_cost_little_more_than_their_signatures() -> None:
    """Cold at most 1.25 times the raw signature checks, warm under 1/20 of cold."""
    printed = []
    for _ in range(ATTEMPTS):
        script = Path(__file__).with_name("chains.py")
        done = subprocess.run([sys.executable, script], check=False, capture_output=True, text=True, timeout=120)
        if done.returncode == 0:
            return
        printed.append(done.stdout + done.stderr)
    raise AssertionError("\n".join(printed))
