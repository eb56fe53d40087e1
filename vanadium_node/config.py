"""Settings: text from flags, environment and files becomes typed, frozen values; what is unknown or wrong is refused."""

import re
from datetime import timedelta
from typing import Final

from vanadium_node.errors import ConfigurationError, InputError, clip

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|s|m|h|d))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
MAX_DURATION: Final = timedelta(days=36500)


def parse_duration(text: str) -> timedelta:
    """Read a duration such as `90s`, `10m`, `1h30m`, `7d` or `0`.

    Raises:
        InputError: it is none, or longer than a century.
    """
    word = text.strip()
    if word == "0":
        return timedelta(0)
    if not _DURATION.fullmatch(word):
        raise InputError(f"'{clip(text, 40)}' is not a duration", hint="write it like 90s, 10m, 1h30m or 7d")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(word))
    if seconds > MAX_DURATION.total_seconds():
        raise InputError(f"the duration '{clip(text, 40)}' is longer than 36500d", hint="0 or no flag means no limit")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Return a duration as people write it, such as `1h30m`; fractions of a second are dropped beyond milliseconds."""
    milliseconds = duration // timedelta(milliseconds=1)
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def require(value: str | None, what: str, *, flag: str, variable: str) -> str:
    """Return a setting that must be given.

    Raises:
        ConfigurationError: it was given neither as a flag nor in the environment.
    """
    if not value:
        raise ConfigurationError(f"{what} is not given", hint=f"set {flag} or the environment variable {variable}")
    return value
