"""A blessing store: which blessings a principal shows, as a server to everybody and as a client to whom."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Self

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError, clip
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.pattern import Pattern

MAX_ENCODED_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BlessingStore:
    """A default, shown when acting as a server, and peer pattern → blessings, shown as a client. An immutable value."""

    default: Blessings | None = None
    peers: Mapping[Pattern, Blessings] = field(default_factory=lambda: MappingProxyType({}))

    def with_default(self, blessings: Blessings | None) -> "BlessingStore":
        """Return the store with this default; None: without one."""
        return replace(self, default=blessings)

    def with_peer(self, pattern: Pattern, blessings: Blessings | None) -> "BlessingStore":
        """Return the store with these blessings for peers that match the pattern; None: with none for them.

        Raises:
            InputError: there is a name for which blessings would then be shown that are too many together.
        """
        peers = {p: b for p, b in self.peers.items() if p != pattern}
        if blessings is not None:
            peers[pattern] = blessings
        store = replace(self, peers=MappingProxyType(dict(sorted(peers.items()))))
        if blessings is not None:
            store._refuse_excess(pattern)
        return store

    def for_peer(self, names: Iterable[str]) -> Blessings | None:
        """Return all blessings to be shown to a server with these names; None: there are none.

        Raises:
            InputError: it has several names for which other blessings are chosen, and those are too many together.
        """
        known = tuple(names)
        matching = [blessings for pattern, blessings in self.peers.items() if pattern.matches(known)]
        if len(matching) < 2:
            return matching[0] if matching else None
        try:
            return Blessings.union(*matching)
        except InputError as error:
            raise InputError(
                f"the blessings to show to '{clip(', '.join(known), 120)}' are too many: {error.message}",
                hint="'principal set forpeer' chooses fewer for the patterns that it matches; 'principal dump' shows them",
            ) from error

    def _refuse_excess(self, changed: Pattern) -> None:
        """Try each name that the changed pattern matches and another pattern begins at: no other has more blessings."""
        for name in {changed.narrowest, *(p.narrowest for p in self.peers if changed.matches(p.narrowest))}:
            self.for_peer(name)

    def encode(self) -> bytes:
        """Return the canonical encoding: [default or null, [[pattern, blessings], …]]."""
        peers = [[pattern.text, blessings.encoded] for pattern, blessings in sorted(self.peers.items())]
        return cbor.encode([self.default.encoded if self.default else None, peers])

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read the encoding and verify the blessings in it.

        Raises:
            DecodeError: it is none.
        """
        match cbor.decode(encoded, max_bytes=MAX_ENCODED_BYTES):
            case [(bytes() | None) as default, list(rows)]:
                pass
            case _:
                raise DecodeError("a blessing store is not [default, peers]")
        peers: dict[Pattern, Blessings] = {}
        for row in rows:
            match row:
                case [str(pattern), bytes(blessings)]:
                    try:
                        peers[Pattern.parse(pattern)] = Blessings.decode(blessings)
                    except InputError as error:
                        raise DecodeError(f"a blessing store cannot be read: {error}") from error
                case _:
                    raise DecodeError("a blessing store holds something other than [pattern, blessings]")
        return cls(None if default is None else Blessings.decode(default), MappingProxyType(peers))

    def table(self) -> str:
        """Return the lines that `principal dump` shows: the default, and the blessings for each peer pattern."""
        rows = [("Default Blessings", str(self.default) if self.default else "")]
        rows += [("Peer pattern", "Blessings"), *((p.text, str(b)) for p, b in sorted(self.peers.items()))]
        return "\n".join(f"{left:32} {right}".rstrip() for left, right in rows)
