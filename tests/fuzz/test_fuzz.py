"""The fuzz targets for a few seconds, with Hypothesis; for as long as you like with VANADIUM_FUZZ_EXAMPLES=1000000, or with `fuzz_wire.py`."""

from __future__ import annotations

import os

import pytest
from fuzz_targets import TARGETS, golden_frames
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("VANADIUM_FUZZ_EXAMPLES", "400"))
BOUNDARIES = [b"\x00", b"\xff", b"\x17\x18", b"\x5a\xff\xff\xff\xff", b"\x5b" + b"\xff" * 8, b"\x9f", b"\xbf", b"\xc0", b"\xf7", b"\xfb"]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return frames of the golden session, some of them damaged; the first byte chooses how they are cut."""
    chosen = draw(st.lists(st.sampled_from(golden_frames()), min_size=1, max_size=6))
    data = bytearray(draw(st.binary(min_size=1, max_size=1)) + b"".join(chosen))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(1, max(1, len(data) - 1)))
        match draw(st.integers(0, 4)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                data[at:at] = draw(st.sampled_from(BOUNDARIES))
            case 2:
                del data[at : at + draw(st.integers(1, 8))]
            case 3:
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case _:
                data[at : at + 1] = draw(st.binary(max_size=9))
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(st.one_of(mutated(), mutated(), st.binary(max_size=300)))
def test_nothing_that_a_peer_sends_is_unforeseen(target: str, data: bytes) -> None:
    """A target raises only where the code is wrong."""
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_the_golden_session_passes(target: str) -> None:
    """Each frame, and all of them, as they are."""
    for each in (*golden_frames(), b"".join(golden_frames())):
        TARGETS[target](b"\x05" + each)
