"""Names of blessings and the patterns that match them.

A name is extensions joined by `:`, such as `root:alice:phone`. A pattern `a:b` matches `a:b` and every extension of it,
`a:b:$` matches `a:b` only, `...` matches everything, no name at all included; `$` and the empty pattern match nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from vanadium_node.errors import InputError, clip

SEPARATOR: Final = ":"
ALL: Final = "..."
NO_EXTENSION: Final = "$"
MAX_NAME_BYTES: Final = 4096
"""More than any readable name has; a longer one would make each comparison and each log line a burden."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+(?:[:.@][A-Za-z0-9_-]+)*")
"""Names like nearly all: nothing forbidden can be in them."""

_FORBIDDEN: Final = ("...", "::", ",", "@@", "(", ")", "<", ">", "/")


def check_extension(extension: str) -> str:
    """Return `extension` if it may extend a blessing's name.

    Raises:
        InputError: it may not; the sentence says why.
    """
    why = _why_not(extension)
    if why:
        raise InputError(f"'{clip(extension, 80)}' cannot be part of a blessing's name: {why}")
    return extension


def _why_not(extension: str) -> str:
    if len(extension) <= MAX_NAME_BYTES and _PLAIN.fullmatch(extension):
        return ""
    if not extension:
        return "it is empty"
    if not extension.isascii() and _utf8_length(extension) is None:
        return "it is not valid Unicode"
    if len(extension) > MAX_NAME_BYTES or (_utf8_length(extension) or 0) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    if any(not c.isprintable() and c != " " for c in extension):
        return "it has a control character"
    for part in _FORBIDDEN:
        if part in extension:
            return f"it has '{part}' in it"
    if extension.startswith(SEPARATOR) or extension.endswith(SEPARATOR):
        return "it begins or ends with ':'"
    if NO_EXTENSION in extension.split(SEPARATOR):
        return "'$' stands for no extension in patterns"
    return ""


def _utf8_length(text: str) -> int | None:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


@dataclass(frozen=True, slots=True, order=True)
class Pattern:
    """A set of names."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pattern.

        Raises:
            InputError: it is none.
        """
        if text in ("", ALL, NO_EXTENSION):
            return cls(text)
        why = _why_not(text.removesuffix(SEPARATOR + NO_EXTENSION))
        if why:
            raise InputError(
                f"'{clip(text, 80)}' is not a pattern: {why}",
                hint="a pattern is like 'root:shop', 'root:shop:$' or '...'",
            )
        return cls(text)

    @classmethod
    def of_name(cls, name: str) -> Self:
        """Return the pattern that matches the name and its extensions."""
        return cls(name)

    def __str__(self) -> str:
        return self.text

    def is_matched_by(self, name: str) -> bool:
        """Tell whether the pattern matches one name."""
        if self.text == ALL:
            return True
        if self.text in ("", NO_EXTENSION):
            return False
        base = self.text.removesuffix(SEPARATOR + NO_EXTENSION)
        if base != self.text:
            return name == base
        return name == base or name.startswith(base + SEPARATOR)

    def matches(self, names: Iterable[str]) -> bool:
        """Tell whether the pattern matches one of the names; `...` matches even none."""
        return self.text == ALL or any(self.is_matched_by(name) for name in names)

    @property
    def narrowest(self) -> tuple[str, ...]:
        """The shortest name that matches, as a tuple of one; empty for a pattern that matches every name, or none."""
        base = self.text.removesuffix(SEPARATOR + NO_EXTENSION)
        return () if base in ("", ALL, NO_EXTENSION) else (base,)
