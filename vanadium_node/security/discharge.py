"""Third-party caveats and their discharges: somebody else's word, fetched by the client and sent with the call.

The caveat names the discharger's key; only a discharge signed by it, for this very caveat, satisfies it, and it can carry
caveats of its own. So a blessing can be revoked within seconds without anything being issued again.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError
from vanadium_node.security.caveat import Caveat, CaveatId
from vanadium_node.security.certificate import MAX_CAVEATS
from vanadium_node.security.cose import Sign1, SignatureType, Signer
from vanadium_node.security.keys import PublicKey

NONCE_BYTES: Final = 16
MAX_ENCODED_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What the discharger wants to be told about the call: the server's names, the method, the arguments."""

    server: bool = False
    method: bool = False
    arguments: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ThirdParty:
    """The parameter of a third-party caveat."""

    nonce: bytes
    discharger_key: PublicKey
    location: str
    caveats: tuple[Caveat, ...]
    requirements: Requirements = Requirements()

    @property
    def id(self) -> bytes:
        """What a discharge is bound to: SHA-256 over the caveat's parameter, its nonce included."""
        return hashlib.sha256(self.to_caveat().encoded_parameter).digest()

    @property
    def fingerprint(self) -> str:
        """The first 16 bytes of its id as `aa:bb:…`: how people name this one caveat."""
        return self.id[:16].hex(":")

    def to_caveat(self) -> Caveat:
        """Return the caveat.

        Raises:
            InputError: the nonce has not 16 bytes.
        """
        wants = self.requirements
        return Caveat.of(
            CaveatId.THIRD_PARTY,
            [
                self.nonce,
                self.discharger_key.der,
                self.location,
                [c.to_value() for c in self.caveats],
                [wants.server, wants.method, wants.arguments],
            ],
        )

    @classmethod
    def from_caveat(cls, caveat: Caveat) -> Self:
        """Read a third-party caveat.

        Raises:
            InputError: it is of another kind.
            DecodeError: it names no usable key.
        """
        if caveat.id != CaveatId.THIRD_PARTY:
            raise InputError(f"'{caveat}' is not a third-party caveat")
        nonce, der, location, caveats, (server, method, arguments) = caveat.parameter
        return cls(
            nonce=nonce,
            discharger_key=PublicKey.decode(der),
            location=location,
            caveats=tuple(Caveat.decode(c) for c in caveats),
            requirements=Requirements(server=server, method=method, arguments=arguments),
        )


def third_parties(caveats: Iterable[Caveat]) -> tuple[ThirdParty, ...]:
    """Return the third-party caveats among caveats.

    Raises:
        DecodeError: one names no usable key.
    """
    return tuple(ThirdParty.from_caveat(c) for c in caveats if c.id == CaveatId.THIRD_PARTY)


@dataclass(frozen=True, slots=True)
class Discharge:
    """A discharger's word that a third-party caveat holds, under caveats of its own. Its signature is not checked yet."""

    caveat_id: bytes
    caveats: tuple[Caveat, ...]
    signed: Sign1

    @property
    def encoded(self) -> bytes:
        """The discharge as signed: a COSE_Sign1."""
        return self.signed.encoded

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Read a discharge.

        Raises:
            DecodeError: it is none.
        """
        signed = Sign1.decode(SignatureType.DISCHARGE, encoded, max_bytes=MAX_ENCODED_BYTES)
        match cbor.decode(signed.payload, max_bytes=MAX_ENCODED_BYTES):
            case [bytes(caveat_id), list(caveats)] if len(caveats) <= MAX_CAVEATS:
                return cls(caveat_id, tuple(Caveat.decode(c) for c in caveats), signed)
            case _:
                raise DecodeError("a discharge is not [caveat, caveats]")

    @classmethod
    async def mint(cls, signer: Signer, caveat: Caveat, caveats: tuple[Caveat, ...]) -> Self:
        """Sign a discharge of a third-party caveat; the caller has checked the caveats in it.

        Raises:
            InputError: it is no third-party caveat, or names another key than the signer's.
        """
        third_party = ThirdParty.from_caveat(caveat)
        if third_party.discharger_key != signer.public_key:
            raise InputError(
                f"the caveat wants a discharge by the key {third_party.discharger_key}, not by {signer.public_key}"
            )
        payload = cbor.encode([third_party.id, [c.to_value() for c in caveats]])
        return cls.decode(await signer.sign(SignatureType.DISCHARGE, payload))

    @property
    def expires(self) -> datetime | None:
        """When it stops being good; None where nothing in it says so."""
        return min((c.time for c in self.caveats if c.id == CaveatId.EXPIRY), default=None)

    @property
    def third_parties(self) -> tuple[ThirdParty, ...]:
        """The third-party caveats that it carries itself.

        Raises:
            DecodeError: one names no usable key.
        """
        return third_parties(self.caveats)

    def is_for(self, third_party: ThirdParty) -> bool:
        """Tell whether this is a discharge of that caveat, signed by its discharger."""
        return self.caveat_id == third_party.id and self.signed.is_signed_by(third_party.discharger_key)
