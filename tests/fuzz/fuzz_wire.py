"""Fuzzes a target with atheris, guided by coverage, until it finds something or its time is over.

    pip install atheris
    python tests/fuzz/fuzz_wire.py frames --seconds 3600

The search begins with the frames of the golden session. What it has found worth keeping is in --corpus, so that the next run goes on
from there; an input that fails is written to `crash-…`, and `--replay crash-…` runs it again without atheris.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["frames", "handshake", "connection"])
    parser.add_argument("--seconds", type=int, default=600, help="how long (default 600)")
    parser.add_argument(
        "--corpus", type=Path, help="a folder of inputs, made where it is missing (default: a temporary one)"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input and nothing else")
    given = parser.parse_args()
    if given.replay is not None:
        from fuzz_targets import TARGETS

        TARGETS[given.target](given.replay.read_bytes())
        print("nothing is wrong with it")
        return 0
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: pip install atheris", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["vanadium_node.wire", "vanadium_node.security", "vanadium_node.cbor"]):
        from fuzz_targets import TARGETS, golden_frames
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        corpus = given.corpus or Path(scratch)
        corpus.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(golden_frames()):
            (corpus / f"golden-{number}").write_bytes(b"\x05" + frame)
        atheris.Setup(
            [sys.argv[0], f"-max_total_time={given.seconds}", "-max_len=2048", str(corpus)], TARGETS[given.target]
        )
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
