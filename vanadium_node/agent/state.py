"""What an agent tells its clients about the principal it serves, in one piece, so that key and blessings always agree."""

from dataclasses import dataclass
from typing import Final, Self

from vanadium_node import cbor
from vanadium_node.errors import DecodeError
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.principal import Principal
from vanadium_node.security.roots import BlessingRoots
from vanadium_node.security.store import BlessingStore

MAX_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentState:
    """A principal but for its private key."""

    public_key: PublicKey
    store: BlessingStore
    roots: BlessingRoots

    @classmethod
    def of(cls, principal: Principal) -> Self:
        """Return the state of a principal as it is now."""
        return cls(public_key=principal.public_key, store=principal.store, roots=principal.roots)

    def encode(self) -> bytes:
        """Return the encoding: [public key, store, roots]."""
        return cbor.encode([self.public_key.der, self.store.encode(), self.roots.encode()])

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read the encoding.

        Raises:
            DecodeError: it is none.
        """
        match cbor.decode(encoded, max_bytes=MAX_BYTES):
            case [bytes(der), bytes(store), bytes(roots)]:
                return cls(
                    public_key=PublicKey.decode(der),
                    store=BlessingStore.decode(store),
                    roots=BlessingRoots.decode(roots),
                )
            case _:
                raise DecodeError("the state of an agent is not [public key, store, roots]")
