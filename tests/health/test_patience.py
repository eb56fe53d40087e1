"""Waiting for what is damaged to be put right."""

import pytest
import trio
from trio.testing import MockClock

from vanadium_node.errors import DamagedError, StorageError
from vanadium_node.health import Health, once_sound
from vanadium_node.health.patience import RETRY_SECONDS


class Thing:
    """What is to be opened: as many times as there are errors it is damaged."""

    def __init__(self, *errors: StorageError) -> None:
        self.errors = list(errors)
        self.health = Health(not_ready=lambda: ("it is starting",))
        self.seen: list[tuple[str, ...]] = []

    async def open(self) -> str:
        """Fail, or be open."""
        self.seen.append(tuple(self.health.not_ready()))
        if self.errors:
            raise self.errors.pop(0)
        return "opened"


async def test_it_looks_again_until_all_is_sound(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Each reason is told by the health, and logged once; in the end nothing is left of it."""
    caplog.set_level("INFO")
    key, state = DamagedError("the key is damaged", hint="restore it"), DamagedError("the state is damaged")
    thing = Thing(key, key, state)
    assert await once_sound(thing.open, thing.health, trio.Event()) == "opened"
    assert trio.current_time() == pytest.approx(3 * RETRY_SECONDS)
    told = ("the key is damaged; restore it",)
    assert thing.seen == [("it is starting",), told, told, ("the state is damaged",)]
    assert tuple(thing.health.not_ready()) == ("it is starting",)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "INFO"]


async def test_it_ends_when_it_is_told_to(autojump_clock: MockClock) -> None:
    """At once, though there is time until it would look again."""
    thing = Thing(*[DamagedError("damaged")] * 100)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def tell() -> None:
            await trio.sleep(2.5 * RETRY_SECONDS)
            stop.set()

        nursery.start_soon(tell)
        assert await once_sound(thing.open, thing.health, stop) is None
        assert trio.current_time() == pytest.approx(2.5 * RETRY_SECONDS)


async def test_other_errors_are_the_callers(autojump_clock: MockClock) -> None:
    """What another attempt may mend, or somebody has to configure, is not waited for."""
    thing = Thing(StorageError("another process uses it"))
    with pytest.raises(StorageError, match="another process"):
        await once_sound(thing.open, thing.health, trio.Event())
    assert trio.current_time() == 0
