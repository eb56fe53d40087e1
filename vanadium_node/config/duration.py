"""Durations as people write them: `90s`, `10m`, `24h`, `7d`, `1h30m`, `500ms`, `1.5h`, `0`."""

import re
from datetime import timedelta
from typing import Final

from vanadium_node.errors import InputError, clip

_UNITS: Final[dict[str, timedelta]] = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|d|h|m|s)", re.ASCII)
MAX_DURATION: Final = timedelta(days=36500)
"""Longer is a mistake, and would not fit when it is added to a date."""

_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Return the duration that `text` stands for; it is never negative.

    Raises:
        InputError: `text` is no duration, or longer than a century.
    """
    word = text.strip()
    if word == "0":
        return timedelta(0)
    if not _WHOLE.fullmatch(word):
        raise InputError(
            f"'{clip(text, 40)}' is not a duration",
            hint="write a number and a unit (ms, s, m, h, d), such as 90s, 10m, 24h, 7d or 1h30m",
        )
    seconds = sum(float(number) * _UNITS[unit].total_seconds() for number, unit in _PART.findall(word))
    if seconds > MAX_DURATION.total_seconds():
        raise InputError(f"the duration '{clip(text, 40)}' is longer than 36500d", hint="give a shorter one")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Return the shortest text that `parse_duration` turns into `duration`, to the millisecond."""
    rest = duration // _UNITS["ms"]
    if rest <= 0:
        return "0"
    text = ""
    for unit, length in _UNITS.items():
        count, rest = divmod(rest, length // _UNITS["ms"])
        text += f"{count}{unit}" if count else ""
    return text
