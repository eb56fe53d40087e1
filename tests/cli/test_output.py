"""How commands run and how their failures come out of nurseries."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from vanadium_node.cli.output import Interrupted, emit, run_async, single_error
from vanadium_node.errors import StorageError, UnreachableError


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_command_and_its_cleanup_runs(number: signal.Signals) -> None:
    """Ctrl-C ends a command through its own cleanup."""
    cleaned: list[bool] = []

    @run_async
    async def command() -> None:
        os.kill(os.getpid(), number)
        try:
            await trio.sleep_forever()
        finally:
            cleaned.append(True)

    with pytest.raises(Interrupted):
        command()
    assert cleaned == [True]


def test_a_command_returns_its_value() -> None:
    """The async function's result is the command's."""

    @run_async
    async def command(value: int) -> int:
        await trio.lowlevel.checkpoint()
        return value

    assert command(3) == 3


def test_one_of_our_errors_is_unwrapped_from_groups() -> None:
    """However deep in nurseries a command fails, its one reason comes out."""
    with pytest.raises(StorageError), single_error():
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [StorageError("disk")]), UnreachableError("net")])


def test_a_reader_that_left_comes_out_of_groups() -> None:
    """As it does where there is no nursery: `secret list | head` is no bug."""
    with pytest.raises(BrokenPipeError), single_error():
        raise ExceptionGroup("nursery", [BrokenPipeError()])


def test_a_result_that_cannot_be_written_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk; and nothing of it is tried again when the process ends."""
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", full)
        with pytest.raises(StorageError, match="cannot write 'standard output': no space left on device; make room"):
            emit("result")
        assert sys.stdout is not full
        sys.stdout.close()
        with suppress(OSError):
            full.close()


def test_a_bug_is_not_hidden_behind_one_of_our_errors() -> None:
    """A group that holds anything but our own errors stays whole: it is a bug."""
    with pytest.raises(ExceptionGroup), single_error():
        raise ExceptionGroup("outer", [StorageError("disk"), ValueError("bug")])
