"""Asking the person at the terminal: for passphrases, without showing them, and for a yes."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vanadium_node.cli.output import Interrupted, interruptible, note, warn
from vanadium_node.errors import InputError, UsageError


@contextmanager
def answerable() -> Iterator[None]:
    """Let Ctrl-C, Ctrl-D and SIGTERM end the wait for an answer: trio only takes a note of signals while its loop stands still.

    Raises:
        Interrupted: one of them came.
    """
    try:
        with interruptible():
            yield
    except EOFError:
        note("")
        raise Interrupted from None
    except Interrupted:
        note("")  # what follows is no part of the answer
        raise


def ask_passphrase(*, hint: str = "'vanadium-node agent start', at a terminal, asks for it once") -> bytes:
    """Ask for the passphrase of an encrypted key.

    Raises:
        InputError: there is nobody to ask.
        Interrupted: the person does not answer.
    """
    if not _is_somebody_there():
        raise InputError("the private key is encrypted, and there is no terminal to ask for its passphrase", hint=hint)
    return _ask("Passphrase: ").encode()


def ask_new_passphrase() -> bytes | None:
    """Ask twice for the passphrase of a new key; an empty one means none.

    Raises:
        UsageError: there is nobody to ask.
        Interrupted: the person does not answer.
    """
    if not _is_somebody_there():
        raise UsageError(
            "there is no terminal to ask for a passphrase",
            hint="use --with-passphrase=false to leave the key unencrypted",
        )
    while True:
        first = _ask("Enter passphrase (empty: the key is not encrypted): ")
        if not first:
            warn("the private key is stored unencrypted")
            return None
        if first == _ask("The same again: "):
            return first.encode()
        note("The two are not the same.")


def says_yes(question: str) -> bool:
    """Ask a question on standard error and tell whether the answer on standard input is `yes` or `YES`."""
    note(question)
    with answerable():
        return sys.stdin.readline().strip() in ("yes", "YES")


def _ask(prompt: str) -> str:
    with answerable():
        return getpass.getpass(prompt)


def _is_somebody_there() -> bool:
    """Tell whether a person can be asked: standard input may well be a pipe, as in `bless -`."""
    return sys.stdin.isatty() or sys.stderr.isatty()
