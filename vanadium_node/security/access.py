"""Access lists and permissions: which names may call methods with which tag."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Self

from vanadium_node.errors import InputError, clip
from vanadium_node.security.pattern import Pattern, check_extension

MAX_TEXT_BYTES: Final = 1024 * 1024


class Tag(StrEnum):
    """The right that a method needs."""

    ADMIN = "Admin"
    DEBUG = "Debug"
    READ = "Read"
    WRITE = "Write"
    RESOLVE = "Resolve"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessList:
    """Names that are in, by pattern, and names that are not; who is not in is out, extensions included."""

    in_: tuple[Pattern, ...] = ()
    not_in: tuple[str, ...] = ()

    def includes(self, names: Iterable[str]) -> bool:
        """Tell whether one of the names is in and not excluded.

        A name that is excluded, or extends one that is, counts for nothing, and whoever has only such names is out. `...`
        includes even a peer that has no name at all.
        """
        given = tuple(names)
        left = tuple(name for name in given if not any(Pattern.of_name(out).is_matched_by(name) for out in self.not_in))
        if given and not left:
            return False
        return any(pattern.matches(left) for pattern in self.in_)


@dataclass(frozen=True, slots=True)
class Permissions:
    """Tag → access list. A tag without one admits nobody."""

    lists: Mapping[str, AccessList]

    @classmethod
    def of(cls, **lists: Iterable[str]) -> Self:
        """Make permissions from patterns: `Permissions.of(Admin=["root:alice"])`."""
        return cls(MappingProxyType({t: AccessList(in_=tuple(map(Pattern.parse, ps))) for t, ps in lists.items()}))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read JSON such as `{"Admin": {"In": ["root:alice"], "NotIn": []}}`.

        Raises:
            InputError: it is none.
        """
        if len(text) > MAX_TEXT_BYTES:
            raise InputError(f"permissions are longer than {MAX_TEXT_BYTES} bytes")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the permissions are not JSON: {error}", hint=_EXAMPLE) from error
        if not isinstance(value, dict):
            raise InputError("the permissions are not a JSON object", hint=_EXAMPLE)
        return cls(MappingProxyType({tag: _access_list(tag, entry) for tag, entry in value.items()}))

    def encode(self) -> str:
        """Return the JSON text."""
        return json.dumps(
            {t: {"In": [p.text for p in a.in_], "NotIn": list(a.not_in)} for t, a in self.lists.items()}, indent=2
        )

    def allow(self, tag: str, names: Iterable[str]) -> bool:
        """Tell whether one of the names has the right."""
        access = self.lists.get(tag)
        return access is not None and access.includes(names)


_EXAMPLE: Final = 'write them like {"Admin": {"In": ["root:alice"], "NotIn": []}}'


def _access_list(tag: str, entry: Any) -> AccessList:
    if tag not in list(Tag):
        raise InputError(f"'{clip(tag, 40)}' is not a tag", hint=f"the tags are {', '.join(Tag)}")
    if not isinstance(entry, dict) or set(entry) - {"In", "NotIn"}:
        raise InputError(f"the access list of {tag} is not an object with 'In' and 'NotIn'", hint=_EXAMPLE)
    names = {key: entry.get(key) or [] for key in ("In", "NotIn")}
    if not all(isinstance(v, list) and all(isinstance(n, str) for n in v) for v in names.values()):
        raise InputError(f"'In' and 'NotIn' of {tag} are not lists of names", hint=_EXAMPLE)
    return AccessList(
        in_=tuple(Pattern.parse(p) for p in names["In"]), not_in=tuple(check_extension(n) for n in names["NotIn"])
    )
