"""Writes the golden session: `python make_session.py DIRECTORY`. Its keys are those of `make_vectors.py`; see README.md."""

import sys
from pathlib import Path

import trio
from explain import explain
from session_script import played, script

HEAD = """\
# A whole session, version 1: every frame in the order in which it is sent, inside TLS, both directions.
# Lines are hex, then what the bytes are; `==` begins a frame. The channel binding is the bytes 0 to 31.
"""


def session() -> str:
    """Return the file."""
    steps = trio.run(script)
    blocks = [HEAD]
    for number, (step, frame) in enumerate(zip(steps, played(steps), strict=True), 1):
        blocks.append("\n".join([f"== {number}. {step.role} sends: {step.title}", *explain(frame)]) + "\n")
    return "\n".join(blocks)


if __name__ == "__main__":
    (Path(sys.argv[1]) / "session.txt").write_text(session(), encoding="utf-8")
