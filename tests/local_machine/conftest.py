"""A machine for each test, and a clock that goes like a real one but can be moved on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from machine_bench import Bench, running_bench
from trio.testing import MockClock


@pytest.fixture
def clock() -> MockClock:
    """The clock of the test: as fast as a real one, and `jump` moves it on. To be asked for before `bench`."""
    return MockClock(rate=1.0)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A running machine."""
    async with running_bench(tmp_path / "m") as running:
        yield running
