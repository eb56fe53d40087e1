"""Blessings: one or more certificate chains that bind names to one public key. An existing `Blessings` is verified."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Self

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError
from vanadium_node.security.caveat import Caveat, CaveatId
from vanadium_node.security.certificate import Certificate, chain_digest
from vanadium_node.security.cose import Signer
from vanadium_node.security.keys import PublicKey
from vanadium_node.security.pattern import MAX_NAME_BYTES, SEPARATOR

MAX_CHAINS: Final = 16
MAX_CERTIFICATES: Final = 32
MAX_ENCODED_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Chain:
    """A verified chain of certificates, the root's first. Equal chains have equal digests."""

    certificates: tuple[Certificate, ...] = field(compare=False)
    digest: bytes
    name: str = field(init=False, compare=False)
    """The name that the chain gives: its extensions joined by `:`."""
    caveats: tuple[Caveat, ...] = field(init=False, compare=False, repr=False)
    """The caveats of all certificates."""

    def __post_init__(self) -> None:
        # Looked at several times for every connection, so made once.
        object.__setattr__(self, "name", SEPARATOR.join(c.extension for c in self.certificates))
        object.__setattr__(self, "caveats", tuple(caveat for c in self.certificates for caveat in c.caveats))

    @property
    def root_key(self) -> PublicKey:
        """The key of the first, self-signed certificate."""
        return self.certificates[0].public_key

    @property
    def public_key(self) -> PublicKey:
        """The key that the name is bound to."""
        return self.certificates[-1].public_key

    @property
    def expiry(self) -> datetime | None:
        """The first time at which one of its certificates expires; None: never."""
        return min((c.time for c in self.caveats if c.id == CaveatId.EXPIRY), default=None)

    @classmethod
    def verify(cls, encoded: Sequence[bytes]) -> Self:
        """Read a chain and check every signature of it.

        Raises:
            DecodeError: a certificate is malformed, or not signed by the key of the one before it.
        """
        certificates = tuple(Certificate.decode(certificate) for certificate in encoded)
        signer, digest = certificates[0].public_key, b""
        for number, certificate in enumerate(certificates):
            if not certificate.signed.is_signed_by(signer, digest):
                whose = "the key of the one before it" if number else "its own key"
                raise DecodeError(f"certificate {number} of a chain is not signed by {whose}")
            signer, digest = certificate.public_key, chain_digest(digest, certificate.encoded)
        chain = cls(certificates, digest)
        if len(chain.name.encode()) > MAX_NAME_BYTES:
            raise DecodeError(f"a chain's name is longer than {MAX_NAME_BYTES} bytes")
        return chain

    async def extended(
        self, signer: Signer, extension: str, public_key: PublicKey, caveats: tuple[Caveat, ...]
    ) -> "Chain":
        """Return the chain with one more certificate, signed by the holder of this one."""
        certificate = await Certificate.sign(signer, extension, public_key, caveats, self.digest)
        return Chain((*self.certificates, certificate), chain_digest(self.digest, certificate.encoded))


class ChainCache:
    """Remembers verified chains by their whole encoding, for one owner; the least recently used ones are dropped.

    The key is every byte of the chain, so that nothing can stand in for a chain that was verified; the bound is in bytes, so that
    strangers with long chains cannot fill the memory. Whole blessings are remembered beside their chains, in as many bytes.
    """

    def __init__(self, max_bytes: int = 4 * 1024 * 1024) -> None:
        self._chains: OrderedDict[tuple[bytes, ...], Chain] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._blessings: OrderedDict[bytes, Blessings] = OrderedDict()
        self._blessings_bytes = 0

    def __len__(self) -> int:
        return len(self._chains)

    def verify(self, encoded: tuple[bytes, ...]) -> Chain:
        """Return the verified chain; a chain that does not verify is never remembered.

        Raises:
            DecodeError: as of `Chain.verify`.
        """
        chain = self._chains.get(encoded)
        if chain is None:
            chain = Chain.verify(encoded)
            self._chains[encoded] = chain
            self._bytes += _cost(encoded)
            while self._bytes > self._max_bytes:
                self._bytes -= _cost(self._chains.popitem(last=False)[0])
        else:
            self._chains.move_to_end(encoded)
        return chain

    def find(self, encoded: bytes) -> "Blessings | None":
        """Return the blessings with this encoding, if they were decoded before."""
        blessings = self._blessings.get(encoded)
        if blessings is not None:
            self._blessings.move_to_end(encoded)
        return blessings

    def keep(self, blessings: "Blessings") -> None:
        """Remember blessings that were decoded with this cache."""
        if blessings.encoded not in self._blessings:
            self._blessings[blessings.encoded] = blessings
            self._blessings_bytes += _cost((blessings.encoded,))
            while self._blessings_bytes > self._max_bytes:
                self._blessings_bytes -= _cost((self._blessings.popitem(last=False)[0],))


def _cost(encoded: tuple[bytes, ...]) -> int:
    return _CHAIN_OVERHEAD_BYTES + sum(map(len, encoded))


_CHAIN_OVERHEAD_BYTES: Final = 1024
"""About what the objects of a remembered chain take beside its bytes."""


@dataclass(frozen=True, slots=True)
class Blessings:
    """Names bound to one public key. Equal blessings have equal encodings."""

    encoded: bytes
    chains: tuple[Chain, ...] = field(compare=False, repr=False)
    has_third_parties: bool = field(init=False, compare=False, repr=False)
    """Whether a caveat of any chain is a third party's to discharge."""

    def __post_init__(self) -> None:
        has_some = any(caveat.id == CaveatId.THIRD_PARTY for chain in self.chains for caveat in chain.caveats)
        object.__setattr__(self, "has_third_parties", has_some)

    @classmethod
    def from_chains(cls, chains: Iterable[Chain]) -> Self:
        """Put verified chains together, each once.

        Raises:
            InputError: there is none, there are too many, or they are bound to different keys.
        """
        unique = tuple({chain.digest: chain for chain in chains}.values())
        if not unique:
            raise InputError("blessings need at least one chain of certificates")
        if len({chain.public_key for chain in unique}) > 1:
            raise InputError("blessings of different public keys cannot be put together")
        encoded = cbor.encode([[c.encoded for c in chain.certificates] for chain in unique])
        if len(unique) > MAX_CHAINS or len(encoded) > MAX_ENCODED_BYTES:
            raise InputError(
                f"blessings have at most {MAX_CHAINS} chains in {MAX_ENCODED_BYTES} bytes, not {len(unique)} in {len(encoded)}"
            )
        if max(len(chain.certificates) for chain in unique) > MAX_CERTIFICATES:
            raise InputError(
                f"a chain has at most {MAX_CERTIFICATES} certificates", hint="bless from nearer to the root"
            )
        return cls(encoded, unique)

    @classmethod
    def decode(cls, encoded: bytes, cache: ChainCache | None = None) -> "Blessings":
        """Read blessings and check every signature; sizes and counts are checked before.

        Raises:
            DecodeError: something about them is not right.
        """
        known = None if cache is None else cache.find(encoded)
        if known is not None:
            return known
        value = cbor.decode(encoded, max_bytes=MAX_ENCODED_BYTES)
        if not (isinstance(value, list) and 0 < len(value) <= MAX_CHAINS):
            raise DecodeError(f"blessings are not an array of 1 to {MAX_CHAINS} chains")
        for chain in value:
            if not (isinstance(chain, list) and 0 < len(chain) <= MAX_CERTIFICATES):
                raise DecodeError(f"a chain is not an array of 1 to {MAX_CERTIFICATES} certificates")
            if not all(isinstance(certificate, bytes) for certificate in chain):
                raise DecodeError("a chain is not an array of certificates")
        verify = Chain.verify if cache is None else cache.verify
        chains = tuple(verify(tuple(chain)) for chain in value)
        try:
            blessings = cls.from_chains(chains)
        except InputError as error:
            raise DecodeError(f"the blessings cannot be read: {error}") from error
        if blessings.encoded != encoded:
            raise DecodeError("blessings hold the same chain twice")
        if cache is not None:
            cache.keep(blessings)
        return blessings

    @classmethod
    def parse(cls, line: str) -> "Blessings":
        """Read the text form.

        Raises:
            DecodeError: it is none.
        """
        return cls.decode(cbor.from_text(line, max_bytes=MAX_ENCODED_BYTES))

    @classmethod
    def union(cls, *blessings: "Blessings") -> Self:
        """Put blessings of one key together.

        Raises:
            InputError: they are of different keys, or too many.
        """
        return cls.from_chains(chain for each in blessings for chain in each.chains)

    def encode(self) -> bytes:
        """Return the encoding: an array of chains, each an array of certificates."""
        return self.encoded

    @property
    def text(self) -> str:
        """The text form: base64url of the encoding, without padding."""
        return cbor.text(self.encoded)

    @property
    def roots(self) -> "tuple[Blessings, ...]":
        """The self-signed root of each chain as blessings of their own, each root once, in order."""
        firsts = [chain.certificates[0] for chain in self.chains]
        roots = (Chain((first,), chain_digest(b"", first.encoded)) for first in firsts)
        return tuple({root.digest: Blessings.from_chains([root]) for root in roots}.values())

    @property
    def public_key(self) -> PublicKey:
        """The key that all chains are bound to."""
        return self.chains[0].public_key

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each chain, in order, whether it is valid or not."""
        return tuple(chain.name for chain in self.chains)

    @property
    def expiry(self) -> datetime | None:
        """The time after which no chain is valid any more; None: never."""
        ends = [chain.expiry for chain in self.chains]
        return None if None in ends else max(end for end in ends if end is not None)

    @property
    def digest(self) -> bytes:
        """SHA-256 over the encoding."""
        return hashlib.sha256(self.encoded).digest()

    def __str__(self) -> str:
        return ",".join(self.names)
