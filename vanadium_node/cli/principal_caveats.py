"""Caveats in words, as `--caveat`, `--for` and `--template` take them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from vanadium_node.cli.asking import says_yes
from vanadium_node.cli.output import run_async, warn
from vanadium_node.cli.principal_input import own_principal, read_key
from vanadium_node.config import parse_duration
from vanadium_node.errors import InputError, clip
from vanadium_node.security.access import Tag
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.discharge import NONCE_BYTES, Requirements, ThirdParty
from vanadium_node.security.keys import PublicKey

CAVEATS: Final = (
    "expiry:TIME, not-before:TIME, method:NAME,…, peer:PATTERN,…, tag:TAG,…, address:CIDR,…, const:true|false, "
    "discharge:DISCHARGER[;key=FILE][;tell=server,method,arguments][;if=CAVEAT]…"
)
TEMPLATES: Final = "read-only, one-hour, only-to:PATTERN, one-method:NAME"
CONNECT_SECONDS: Final = 10.0


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
        if not says_yes("Bless without any caveat? Type yes to do so:"):
            raise InputError("nothing was blessed", hint="give --for DURATION or --caveat, or answer yes")
    return [Caveat.unconstrained()]


def parse_caveat(word: str) -> Caveat:
    """Read a caveat as `NAME:VALUE`."""
    name, separator, value = word.partition(":")
    if name == "discharge" and value:
        return _parse_discharge(value)
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


def _parse_discharge(text: str) -> Caveat:
    """Read a third-party caveat: the discharger's name, then what it is to know and to check.

    `key=FILE` holds the discharger's key (or a directory, or blessings); without it the discharger itself is asked for it, and
    has to be somebody whom this principal recognizes.
    """
    location, *options = text.split(";")
    key: PublicKey | None = None
    told: tuple[str, ...] = ()
    conditions: list[Caveat] = []
    for option in options:
        name, _, value = option.partition("=")
        match name:
            case "key" if value:
                key = read_key(value)
            case "tell" if value and set(value.split(",")) <= {"server", "method", "arguments"}:
                told = tuple(value.split(","))
            case "if" if value:
                conditions.append(parse_caveat(value))
            case _:
                raise InputError(
                    f"'{clip(option, 80)}' says nothing about a discharge",
                    hint="after the discharger's name come key=FILE, tell=server,method,arguments and if=CAVEAT",
                )
    return ThirdParty(
        nonce=secrets.token_bytes(NONCE_BYTES),
        discharger_key=_key_of_discharger(location) if key is None else key,
        location=_checked(location),
        caveats=tuple(conditions),
        requirements=Requirements(server="server" in told, method="method" in told, arguments="arguments" in told),
    ).to_caveat()


def _checked(location: str) -> str:
    from vanadium_node.rpc import Name  # the whole RPC: only this kind of caveat needs it

    Name.parse(location)
    return location


@run_async
async def _key_of_discharger(location: str) -> PublicKey:
    from vanadium_node.rpc import connect

    async with (
        own_principal() as principal,
        connect(_checked(location), principal, timeout=CONNECT_SECONDS) as discharger,
    ):
        key = discharger.server.public_key
    if key is None:
        raise InputError(f"'{clip(location, 80)}' shows no key", hint="a discharger is reached by HOST:PORT")
    return key


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"'{clip(text, 40)}' is not a time", hint="write it like 2026-11-23T10:00:00Z") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
