"""Taking back what was done: in reverse, in spite of Ctrl-C, and not for ever."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from vanadium_node.controller.undo import UNDO_SECONDS, undone_on_failure
from vanadium_node.errors import KubernetesError, VanadiumError


class Steps:
    """Steps that note that they were taken."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.warnings: list[str] = []

    def step(self, name: str, error: VanadiumError | None = None, seconds: float = 0) -> Callable[[], Awaitable[None]]:
        async def take() -> None:
            await trio.sleep(seconds)
            self.taken.append(name)
            if error is not None:
                raise error

        return take


async def fail_after_pushing(steps: Steps, *pushed: tuple[str, Callable[[], Awaitable[None]]]) -> None:
    """Fail with something to take back."""
    async with undone_on_failure(steps.warnings.append) as undo:
        for what, step in pushed:
            undo.push(what, step)
        raise KubernetesError("the reason")


async def test_nothing_is_taken_back_after_success() -> None:
    """What was done stays."""
    steps = Steps()
    async with undone_on_failure(steps.warnings.append) as undo:
        undo.push("a", steps.step("a"))
    assert steps.taken == []


async def test_in_reverse_and_the_failure_goes_on() -> None:
    """The error that made it necessary is the one that the caller sees."""
    steps = Steps()
    with pytest.raises(KubernetesError, match="the reason"):
        await fail_after_pushing(steps, ("a", steps.step("a")), ("b", steps.step("b")))
    assert steps.taken == ["b", "a"]


async def test_a_step_that_fails_is_told_and_the_others_are_taken() -> None:
    """A warning names what could not be taken back."""
    steps = Steps()
    broken = steps.step("b", KubernetesError("no way"))
    with pytest.raises(KubernetesError, match="the reason"):
        await fail_after_pushing(steps, ("delete the first", steps.step("a")), ("delete the second", broken))
    assert steps.taken == ["b", "a"]
    assert steps.warnings == ["could not delete the second: no way"]


async def test_ctrl_c_waits_for_it(autojump_clock: trio.testing.MockClock) -> None:
    """Cancelling the block does not cancel the undoing."""
    steps = Steps()
    with trio.move_on_after(1) as scope:
        async with undone_on_failure(steps.warnings.append) as undo:
            undo.push("a", steps.step("a", seconds=5))
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert steps.taken == ["a"]


async def test_not_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """A step that hangs is given up, and what remains is told."""
    steps = Steps()
    with trio.move_on_after(1):
        async with undone_on_failure(steps.warnings.append) as undo:
            undo.push("delete the first", steps.step("a"))
            undo.push("delete the second", steps.step("b", seconds=1000))
            await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(1 + UNDO_SECONDS)
    assert steps.warnings == ["there was no time left to delete the second, to delete the first"]
