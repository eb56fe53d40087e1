"""The values that settings are made of: text in, checked and typed values out, and back."""

import os
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, NewType, TypeVar

from vanadium_node.config.duration import format_duration, parse_duration
from vanadium_node.errors import InputError, clip
from vanadium_node.security.access import Permissions
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.pattern import Pattern

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)
MAX_SOCKET_PATH_BYTES: Final = 107
"""The size of `sun_path` in Linux' `sockaddr_un` (unix(7)), without the ending zero."""

_HOST_AND_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%[-.\w]+)?\]|[^\[\]:/@()\s]*):([0-9]{1,5})", re.ASCII)
_NAME: Final = re.compile(r"/(?:\((?P<pattern>[^()]+)\)@)?(?P<address>[^/@()]+)", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,12})\s?(B|KiB|MiB|GiB)?", re.ASCII)
_SIZE_UNITS: Final = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_MODE: Final = re.compile(r"(?:0o?)?([0-7]{3})", re.ASCII)


FileMode = NewType("FileMode", int)
"""Permissions of a file: a number that people write in octal digits, as a text."""


def text(given: str) -> str:
    """Return the text as it is.

    Raises:
        InputError: it is empty.
    """
    if not given:
        raise InputError("it is empty", hint="leave the setting out, or give a text")
    return given


def path(given: str) -> Path:
    """Return a path; a leading `~` is the home directory.

    Raises:
        InputError: it is empty, or no path can be like it.
    """
    if not given:
        raise InputError("the path is empty", hint="leave the setting out, or give a path")
    if "\0" in given:
        raise InputError(f"the path '{clip(given, 200)}' has a zero byte in it", hint="correct it")
    return Path(given).expanduser()


def lifetime(given: str) -> timedelta | None:
    """Return a duration; `0` means no end, as None."""
    return parse_duration(given) or None


def render_lifetime(value: timedelta | None) -> str:
    """Return what `lifetime` reads."""
    return format_duration(value) if value else "0"


def address(given: str) -> str:
    """Return `HOST:PORT`, `:PORT` or `[IPV6]:PORT`, checked.

    Raises:
        InputError: it is none.
    """
    found = _HOST_AND_PORT.fullmatch(given)
    if found is None or int(found[1]) > 65535:
        raise InputError(
            f"'{clip(given, 80)}' is no address",
            hint="write HOST:PORT, :PORT (all addresses) or [IPV6]:PORT; port 0 = any",
        )
    return given


def address_or_socket(given: str) -> str:
    """Return `HOST:PORT`, `:PORT`, `[IPV6]:PORT` or `unix:/PATH`, checked.

    Raises:
        InputError: it is none.
    """
    if not given.startswith("unix:"):
        return address(given)
    return f"unix:{socket_path(given.removeprefix('unix:'))}"


def agent_name(given: str) -> str:
    """Return the name of a server, `/HOST:PORT` or `/(PATTERN)@HOST:PORT`, checked.

    Raises:
        InputError: it is none.
    """
    found = _NAME.fullmatch(given)
    if found is None:
        raise InputError(f"'{clip(given, 80)}' is no name of a server", hint="write /HOST:PORT or /(PATTERN)@HOST:PORT")
    if found["pattern"] is not None:
        Pattern.parse(found["pattern"])
    address(found["address"])
    return given


def socket_path(given: str) -> Path:
    """Return the path of a unix socket, short enough for the system.

    Raises:
        InputError: it is longer than the system allows.
    """
    found = path(given)
    length = len(os.fsencode(found))
    if length > MAX_SOCKET_PATH_BYTES:
        raise InputError(
            f"the socket path '{clip(given, 200)}' has {length} bytes, and a unix socket's path at most {MAX_SOCKET_PATH_BYTES}",
            hint="choose a shorter directory",
        )
    return found


def socket_mode(given: str) -> FileMode:
    """Return the permissions of a socket.

    Raises:
        InputError: it is not three octal digits.
    """
    found = _MODE.fullmatch(given)
    if found is None:
        raise InputError(f"'{clip(given, 20)}' is no file mode", hint="write three octal digits, such as 0660")
    return FileMode(int(found[1], 8))


def render_mode(value: int) -> str:
    """Return what `socket_mode` reads."""
    return f"0{value:03o}"


def several(parse: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """Return a parser of values separated by commas."""

    def parse_all(given: str) -> tuple[T, ...]:
        return tuple(parse(part.strip()) for part in given.split(",") if part.strip())

    return parse_all


def patterns(given: str) -> tuple[Pattern, ...]:
    """Return blessing patterns separated by commas.

    Raises:
        InputError: one of them is none, or there is none.
    """
    found = several(Pattern.parse)(given)
    if not found:
        raise InputError("there is no pattern in it", hint="write patterns such as root:alice, separated by commas")
    return found


def root_blessings(given: str) -> tuple[Blessings, ...]:
    """Return blessings whose roots are to be recognized, in text form, separated by commas.

    Raises:
        InputError: one of them cannot be read, or there is none.
    """
    try:
        found = several(Blessings.parse)(given)
    except InputError as error:
        raise InputError(
            f"the root blessings cannot be read: {error.message}",
            hint="give what 'vanadium-node principal get default' prints, separated by commas",
        ) from error
    if not found:
        raise InputError("there are no blessings in it", hint="give what 'vanadium-node principal get default' prints")
    return found


def render_texts(values: Sequence[object]) -> str:
    """Return values separated by commas."""
    return ",".join(str(value) for value in values)


def render_blessings(values: Sequence[Blessings]) -> str:
    """Return what `root_blessings` reads."""
    return ",".join(value.text for value in values)


def permissions(given: str) -> Permissions:
    """Return permissions from their JSON form."""
    return Permissions.parse(given)


def size(given: str) -> int:
    """Return a number of bytes, such as `64MiB`.

    Raises:
        InputError: it is none.
    """
    found = _SIZE.fullmatch(given.strip())
    if found is None:
        raise InputError(f"'{clip(given, 40)}' is no size", hint="write a number and B, KiB, MiB or GiB, such as 64MiB")
    return int(found[1]) * _SIZE_UNITS[found[2] or "B"]


def render_size(value: int) -> str:
    """Return what `size` reads."""
    unit = next(unit for unit, count in _SIZE_UNITS.items() if value % count == 0)
    return f"{value // _SIZE_UNITS[unit]}{unit}"


def count(given: str) -> int:
    """Return a whole number that is not negative.

    Raises:
        InputError: it is none.
    """
    if not re.fullmatch(r"[0-9]{1,9}", given.strip(), re.ASCII):
        raise InputError(f"'{clip(given, 40)}' is no whole number", hint="write one such as 100")
    return int(given)


def positive(given: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        InputError: it is none.
    """
    found = count(given)
    if not found:
        raise InputError("0 would admit nothing", hint="write a number such as 100")
    return found


def positive_size(given: str) -> int:
    """Return a number of bytes of at least 1.

    Raises:
        InputError: it is none.
    """
    found = size(given)
    if not found:
        raise InputError("a size of 0 would admit nothing", hint="write a size such as 4MiB")
    return found


def frame_size(given: str) -> int:
    """Return the largest size of a message, 64 KiB to 64 MiB: blessings must fit into one, and memory must hold several.

    Raises:
        InputError: it is none.
    """
    found = size(given)
    if not 64 << 10 <= found <= 64 << 20:
        raise InputError(f"'{clip(given, 40)}' is not from 64KiB to 64MiB", hint="write a size such as 1MiB")
    return found


def positive_duration(given: str) -> timedelta:
    """Return a duration that is longer than none.

    Raises:
        InputError: it is none, or 0.
    """
    found = parse_duration(given)
    if not found:
        raise InputError("a time of 0 would admit nobody", hint="write a duration such as 10s")
    return found


def one_of(kind: type[E]) -> Callable[[str], E]:
    """Return a parser of the words that an enumeration knows."""

    def parse(given: str) -> E:
        word = given.strip().lower()
        if word not in set(kind):
            raise InputError(f"'{clip(given, 40)}' is none of {', '.join(kind)}", hint="write one of them")
        return kind(word)

    return parse


def numbers(given: str) -> tuple[int, ...]:
    """Return numbers of users or groups, separated by commas.

    Raises:
        InputError: one of them is none, or there is none: rules for nobody would be no rules, and let everybody in.
    """
    found = several(count)(given)
    if not found:
        raise InputError("there is no number in it", hint="leave the setting out, or write numbers such as 1000,1001")
    return found


def truth(given: str) -> bool:
    """Return true or false.

    Raises:
        InputError: it is neither.
    """
    word = given.strip().lower()
    if word not in {"true", "false"}:
        raise InputError(f"'{clip(given, 40)}' is neither true nor false", hint="write true or false")
    return word == "true"


def render_truth(value: bool) -> str:
    """Return what `truth` reads."""
    return "true" if value else "false"
