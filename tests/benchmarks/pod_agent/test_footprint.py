"""The promised footprint of a pod agent, measured."""

import json
import subprocess
import sys
from pathlib import Path

MAX_MEMORY_RATIO = 1.12


def test_a_pod_agent_is_little_more_than_its_libraries() -> None:
    """Memory does not depend on how busy the machine is; how long the start takes does, so that here it is only measured."""
    script = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, script, "--rounds", "3", "--json"], check=True, capture_output=True, text=True, timeout=120
    )
    found = json.loads(done.stdout)
    assert found["resident_ratio"] <= MAX_MEMORY_RATIO, found
    assert found["start_seconds"] > 0
