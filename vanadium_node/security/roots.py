"""Blessing roots: which public keys may be the root of which names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import ALL, Pattern

MAX_ENCODED_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BlessingRoots:
    """Public key → the patterns that names of chains rooted at it may match. An immutable value."""

    entries: Mapping[PublicKey, tuple[Pattern, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def with_root(self, public_key: PublicKey, pattern: Pattern) -> "BlessingRoots":
        """Return the roots with one more.

        Raises:
            InputError: the pattern matches everything, or nothing.
        """
        if pattern.text in (ALL, "", "$"):
            raise InputError(
                f"'{pattern}' cannot be the pattern of a root",
                hint="name what the key may be the root of, such as 'root'",
            )
        patterns = self.entries.get(public_key, ())
        if pattern in patterns:
            return self
        return BlessingRoots(MappingProxyType({**self.entries, public_key: tuple(sorted((*patterns, pattern)))}))

    def with_roots_of(self, blessings: Blessings) -> "BlessingRoots":
        """Return the roots with each chain's root key recognized for the root's own name."""
        roots = self
        for chain in blessings.chains:
            roots = roots.with_root(chain.root_key, Pattern.of_name(chain.certificates[0].extension))
        return roots

    def recognizes(self, public_key: PublicKey, name: str) -> bool:
        """Tell whether a chain rooted at the key may bear the name."""
        return any(pattern.is_matched_by(name) for pattern in self.entries.get(public_key, ()))

    def encode(self) -> bytes:
        """Return the canonical encoding: an array of [key, [pattern, …]], by key."""
        rows = sorted((key.der, [p.text for p in patterns]) for key, patterns in self.entries.items())
        return cbor.encode([[der, patterns] for der, patterns in rows])

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read the encoding.

        Raises:
            DecodeError: it is none.
        """
        entries: dict[PublicKey, tuple[Pattern, ...]] = {}
        rows = cbor.decode(encoded, max_bytes=MAX_ENCODED_BYTES)
        if not isinstance(rows, list):
            raise DecodeError("blessing roots are not an array")
        for row in rows:
            match row:
                case [bytes(der), list(patterns)] if all(isinstance(p, str) for p in patterns):
                    try:
                        entries[PublicKey.decode(der)] = tuple(Pattern.parse(p) for p in patterns)
                    except InputError as error:
                        raise DecodeError(f"blessing roots cannot be read: {error}") from error
                case _:
                    raise DecodeError("blessing roots hold something other than [key, patterns]")
        return cls(MappingProxyType(entries))

    def table(self) -> str:
        """Return the lines that `principal dump` shows: one root a line, under a head line."""
        rows = sorted((f"[{' '.join(p.text for p in patterns)}]", str(key)) for key, patterns in self.entries.items())
        return "\n".join([f"{'Public key':47}   Pattern", *(f"{key}   {patterns}" for patterns, key in rows)])
