"""What the `principal` commands take: the own principal, files that hold keys or blessings, caveats in words."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vanadium_node.agent import open_principal
from vanadium_node.cli.output import note, warn
from vanadium_node.config import parse_duration
from vanadium_node.errors import DecodeError, InputError, UsageError, clip
from vanadium_node.security.access import Tag
from vanadium_node.security.blessing import MAX_ENCODED_BYTES, Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import PublicKey
from vanadium_node.storage.credentials import CredentialsDirectory
from vanadium_node.storage.files import read_limited

if TYPE_CHECKING:
    from vanadium_node.security.principal import Principal

AGENT_SECONDS: Final = 5.0
MAX_TEXT_BYTES: Final = 2 * MAX_ENCODED_BYTES
STDIN: Final = "-"

CAVEATS: Final = (
    "expiry:TIME, not-before:TIME, method:NAME,…, peer:PATTERN,…, tag:TAG,…, address:CIDR,…, const:true|false"
)
TEMPLATES: Final = "read-only, one-hour, only-to:PATTERN, one-method:NAME"


@asynccontextmanager
async def own_principal() -> AsyncIterator[Principal]:
    """Open the principal that the environment names."""
    async with open_principal(passphrase=ask_passphrase, timeout=AGENT_SECONDS) as principal:
        yield principal


def ask_passphrase() -> bytes:
    """Ask for the passphrase of an encrypted key."""
    if not sys.stdin.isatty():
        raise InputError("the private key is encrypted, and there is no terminal to ask for its passphrase")
    return getpass.getpass("Passphrase: ").encode()


def ask_new_passphrase() -> bytes | None:
    """Ask twice for the passphrase of a new key; an empty one means none."""
    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for a passphrase",
            hint="use --with-passphrase=false to leave the key unencrypted",
        )
    while True:
        first = getpass.getpass("Enter passphrase (empty: the key is not encrypted): ")
        if not first:
            warn("the private key is stored unencrypted")
            return None
        if first == getpass.getpass("The same again: "):
            return first.encode()
        note("The two are not the same.")


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


def caveats_from(lifetime: str | None, words: tuple[str, ...], templates: tuple[str, ...] = ()) -> list[Caveat]:
    """Return the caveats that `--for`, `--caveat` and `--template` ask for."""
    caveats = [*map(parse_caveat, words), *map(parse_template, templates)]
    if lifetime is not None:
        duration = parse_duration(lifetime)
        if duration <= timedelta(0):
            raise InputError("--for wants a duration longer than none", hint="write it like 90s, 10m, 24h or 7d")
        caveats.append(Caveat.expiry(datetime.now(UTC) + duration))
    return caveats


def confirmed(caveats: list[Caveat], require_caveats: bool) -> list[Caveat]:
    """Return the caveats; where there are none, the explicit unconstrained one, once the user has said `yes` to it."""
    if caveats:
        return caveats
    if require_caveats:
        warn("No caveats provided")
        note("Bless without any caveat? Type yes to do so:")
        if sys.stdin.readline().strip() not in ("yes", "YES"):
            raise InputError("nothing was blessed", hint="give --for DURATION or --caveat, or answer yes")
    return [Caveat.unconstrained()]


def parse_caveat(word: str) -> Caveat:
    """Read a caveat as `NAME:VALUE`."""
    name, separator, value = word.partition(":")
    values = [part for part in value.split(",") if part]
    makers = {
        "method": Caveat.method,
        "peer": Caveat.peer_blessings,
        "tag": Caveat.access_tag,
        "address": Caveat.peer_address,
    }
    if separator and values:
        if name in makers:
            return makers[name](*values)
        if name == "expiry":
            return Caveat.expiry(_time(value))
        if name == "not-before":
            return Caveat.not_before(_time(value))
        if name == "const" and value in ("true", "false"):
            return Caveat.const(value == "true")
    raise InputError(f"'{clip(word, 80)}' is not a caveat", hint=f"write one of {CAVEATS}")


def parse_template(word: str) -> Caveat:
    """Read a caveat in the words of people: `read-only`, `one-hour`, `only-to:PATTERN`, `one-method:NAME`."""
    name, separator, value = word.partition(":")
    match name, bool(separator), value:
        case "read-only", False, _:
            return Caveat.access_tag(Tag.READ, Tag.RESOLVE)
        case "one-hour", False, _:
            return Caveat.expiry(datetime.now(UTC) + timedelta(hours=1))
        case "only-to", True, pattern if pattern:
            return Caveat.peer_blessings(pattern)
        case "one-method", True, method if method:
            return Caveat.method(method)
        case _:
            raise InputError(f"'{clip(word, 80)}' is not a template", hint=f"write one of {TEMPLATES}")


def default_name() -> str:
    """Return the name of a self-blessing that was given none: who and where."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"'{clip(text, 40)}' is not a time", hint="write it like 2026-11-23T10:00:00Z") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _title(source: str) -> str:
    return "standard input" if source == STDIN else f"'{source}'"
