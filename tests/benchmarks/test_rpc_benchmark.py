"""The benchmark itself runs: a short one, of which only the shape counts and not the speed."""

import json
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parent / "rpc" / "run.py"


def test_the_rpc_benchmark_measures_every_kind_of_row() -> None:
    """Each kind of row gives a rate above zero; grpcio need not be installed."""
    only = "calls/s, 1 B, 64|connections/s, one|MB/s|memory"
    arguments = [
        "--rounds",
        "1",
        "--seconds",
        "0.1",
        "--variants",
        "own-def",
        "--only",
        only,
        "--json",
        "--connections",
        "50",
    ]
    done = subprocess.run(
        [sys.executable, str(RUN), *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    rows = json.loads(done.stdout)
    assert [row["kind"] for row in rows] == ["unary", "connect", "stream", "memory"]
    assert all(row["variants"]["own-def"]["rate"] > 0 for row in rows[:3])
    assert 0.5 < rows[3]["ratio"] < 2
