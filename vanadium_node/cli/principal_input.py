"""What the `principal` commands take: the own principal, files that hold keys or blessings."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vanadium_node.agent import open_principal
from vanadium_node.cli.asking import ask_passphrase
from vanadium_node.errors import DecodeError, InputError
from vanadium_node.security.blessing import MAX_ENCODED_BYTES, Blessings
from vanadium_node.security.keys import PublicKey
from vanadium_node.storage.credentials import CredentialsDirectory
from vanadium_node.storage.files import read_limited

if TYPE_CHECKING:
    from vanadium_node.security.principal import Principal

AGENT_SECONDS: Final = 5.0
MAX_TEXT_BYTES: Final = 2 * MAX_ENCODED_BYTES
STDIN: Final = "-"


@asynccontextmanager
async def own_principal() -> AsyncIterator[Principal]:
    """Open the principal that the environment names."""
    async with open_principal(passphrase=ask_passphrase, timeout=AGENT_SECONDS) as principal:
        yield principal


def read_text(source: str) -> str:
    """Return the text of a file, or of standard input for `-`."""
    if source == STDIN:
        text = sys.stdin.read(MAX_TEXT_BYTES + 1)
        if len(text) > MAX_TEXT_BYTES:
            raise InputError(f"standard input holds more than {MAX_TEXT_BYTES} bytes")
        return text
    data = read_limited(Path(source), max_bytes=MAX_TEXT_BYTES)
    return data.decode(errors="replace")


def read_blessings(source: str) -> Blessings:
    """Return the blessings whose text form a file, or standard input for `-`, holds."""
    try:
        return Blessings.parse(read_text(source))
    except DecodeError as error:
        raise InputError(
            f"{_title(source)} does not hold blessings: {error.message}", hint="it wants the line that 'bless' prints"
        ) from error


def read_key(who: str) -> PublicKey:
    """Return the public key of a credentials directory, or the one in a file with a key or blessings (`-`: standard input)."""
    if who != STDIN and Path(who).is_dir():
        return CredentialsDirectory(Path(who)).open(ask_passphrase).public_key
    text = read_text(who)
    try:
        return PublicKey.parse(text)
    except DecodeError:
        pass
    try:
        return Blessings.parse(text).public_key
    except DecodeError as error:
        raise InputError(
            f"{_title(who)} holds neither a public key nor blessings",
            hint="it wants what 'get publickey' or 'get default' prints, or a credentials directory",
        ) from error


def default_name() -> str:
    """Return the name of a self-blessing that was given none: who and where."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _title(source: str) -> str:
    return "standard input" if source == STDIN else f"'{source}'"
