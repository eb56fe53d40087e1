"""What a discharger decides by: who may have a discharge at all, and a list of those who may not. Values, no I/O.

A deny list has a rule a line; what follows `#` is a comment:

    root:shop:cart                              whoever shows a name that matches this pattern
    root:contractor from 2026-12-01T00:00:00Z   the same, from a time on
    ...  until 2026-12-24T12:00:00Z             everybody, up to a time
    key 0a:e3:61:0e:3e:ec:9c:ce:ed:04:c1:c6:58:78:28:a8      whoever has this key
    caveat 5b:0c:...                            whoever needs a discharge of this caveat

The last kind revokes for certain: the caveat is in the blessings themselves, and in all that were made from them. The others
depend on what the asker shows, and one who is denied may have an accomplice who is not.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from vanadium_node.errors import InputError, clip
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import Pattern

MAX_TEXT_BYTES: Final = 1024 * 1024
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){15}")
_SYNTAX: Final = "a rule is PATTERN, 'key FINGERPRINT' or 'caveat FINGERPRINT', then 'from TIME' or 'until TIME'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Who asks for a discharge of which caveat, and when.

    `presented` are all names that the asker shows, `accepted` those that would count if it got the discharge.
    """

    presented: tuple[str, ...]
    accepted: tuple[str, ...]
    key: PublicKey | None
    caveat: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of a deny list."""

    text: str
    denies: Callable[[Request], bool]
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def parse(cls, line: str) -> Self:
        """Read a line.

        Raises:
            InputError: it is no rule.
        """
        words = line.split()
        since, until = _time(words, "from"), _time(words, "until")
        match words:
            case ["key", fingerprint] if _FINGERPRINT.fullmatch(fingerprint):
                return cls(text=line, denies=_denies_key(fingerprint), since=since, until=until)
            case ["caveat", fingerprint] if _FINGERPRINT.fullmatch(fingerprint):
                return cls(text=line, denies=lambda r: r.caveat == fingerprint, since=since, until=until)
            case [text] if text not in {"key", "caveat"}:
                return cls(text=line, denies=_denies_names(Pattern.parse(text)), since=since, until=until)
            case _:
                raise InputError(f"'{clip(line, 80)}' is not a rule", hint=_SYNTAX)

    def applies(self, request: Request) -> bool:
        """Tell whether the rule denies the request."""
        is_early = self.since is not None and request.now < self.since
        is_late = self.until is not None and request.now >= self.until
        return not is_early and not is_late and self.denies(request)


@dataclass(frozen=True, slots=True)
class DenyList:
    """Rules, each of which denies some requests."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a deny list.

        Raises:
            InputError: a line is no rule; the sentence has its number.
        """
        rules = []
        for number, line in enumerate(text.splitlines(), 1):
            rule = line.partition("#")[0].strip()
            if not rule:
                continue
            try:
                rules.append(Rule.parse(rule))
            except InputError as error:
                raise InputError(f"line {number}: {error.message}", hint=error.hint or _SYNTAX) from error
        return cls(tuple(rules))

    def why_denied(self, request: Request) -> str:
        """Return the rule that denies the request; empty where none does."""
        return next((rule.text for rule in self.rules if rule.applies(request)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who may have discharges: those that `allowed` matches, but for those that the list denies."""

    allowed: tuple[Pattern, ...]
    denied: DenyList

    def why_refused(self, request: Request) -> str:
        """Return why the request is refused; empty where it is not."""
        if not any(pattern.matches(request.accepted) for pattern in self.allowed):
            return "none of the names that count here may have discharges"
        rule = self.denied.why_denied(request)
        return f"the deny list says '{rule}'" if rule else ""


def _denies_key(fingerprint: str) -> Callable[[Request], bool]:
    return lambda request: request.key is not None and request.key.fingerprint == fingerprint


def _denies_names(pattern: Pattern) -> Callable[[Request], bool]:
    return lambda request: pattern.matches(request.presented)


def _time(words: list[str], name: str) -> datetime | None:
    """Take `name TIME` off the words."""
    if name not in words:
        return None
    index = words.index(name)
    text = words[index + 1] if index + 1 < len(words) else ""
    del words[index : index + 2]
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"'{clip(text, 40)}' after '{name}' is not a time", hint="write it like 2026-12-24T12:00:00Z"
        ) from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
