"""Caveats: the conditions under which a certificate counts, as values. Checking them is the job of `validation`.

A caveat is `[id, parameter]` on the wire. An id that nobody registered a check for never validates.
"""

import hashlib
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Self

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError
from vanadium_node.security.pattern import Pattern

FIRST_APPLICATION_ID: Final = 1024
MAX_ID: Final = 2**32 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class CaveatId(IntEnum):
    """The caveats every party knows."""

    CONST = 0
    EXPIRY = 1
    METHOD = 2
    PEER_BLESSINGS = 3
    ACCESS_TAG = 4
    THIRD_PARTY = 5
    NOT_BEFORE = 6
    PEER_ADDRESS = 7


@dataclass(frozen=True, slots=True, eq=False)
class Caveat:
    """A condition. Its parameter is a bool, milliseconds since 1970, or texts, for the known ids; arrays are tuples.

    Caveats are equal when their encodings are: `1` and `true` are two parameters.
    """

    id: int
    parameter: cbor.Value

    @classmethod
    def of(cls, id_: int, parameter: cbor.Value) -> Self:
        """Make a caveat of any id; applications use ids from 1024 on.

        Raises:
            InputError: the id is out of range, or the parameter is not what a known id takes.
        """
        if not 0 <= id_ <= MAX_ID:
            raise InputError(f"{id_} is not the id of a caveat", hint=f"ids are 0 to {MAX_ID}")
        check = _TAKES.get(id_)
        if check is not None and not check(parameter):
            raise InputError(f"the parameter of a caveat with id {id_} is not what it takes")
        if check is None:
            cbor.encode(parameter)  # of an id of the future or an application: it must at least be CBOR
        return cls(int(id_), _frozen(parameter))

    @classmethod
    def decode(cls, value: cbor.Value) -> Self:
        """Read `[id, parameter]`.

        Raises:
            DecodeError: it is not that.
        """
        if not isinstance(value, list | tuple) or len(value) != 2 or type(value[0]) is not int:
            raise DecodeError("a caveat is not the array [id, parameter]")
        try:
            return cls.of(value[0], value[1])
        except InputError as error:
            raise DecodeError(f"a caveat cannot be read: {error}") from error

    @classmethod
    def const(cls, holds: bool) -> Self:
        """Always valid, or never."""
        return cls.of(CaveatId.CONST, holds)

    @classmethod
    def unconstrained(cls) -> Self:
        """No condition; whoever blesses without one must say so."""
        return cls.const(True)

    @classmethod
    def expiry(cls, time: datetime) -> Self:
        """Valid up to and including the time (to the millisecond)."""
        return cls.of(CaveatId.EXPIRY, _milliseconds(time))

    @classmethod
    def not_before(cls, time: datetime) -> Self:
        """Valid from the time on."""
        return cls.of(CaveatId.NOT_BEFORE, _milliseconds(time))

    @classmethod
    def method(cls, *names: str) -> Self:
        """Valid for calls of these methods; of none, if there are none."""
        return cls.of(CaveatId.METHOD, list(names))

    @classmethod
    def peer_blessings(cls, *patterns: Pattern | str) -> Self:
        """Valid where the accepting end has a name that matches one of the patterns."""
        return cls.of(CaveatId.PEER_BLESSINGS, [str(p) for p in patterns])

    @classmethod
    def access_tag(cls, *tags: str) -> Self:
        """Valid for calls of methods with one of the tags."""
        return cls.of(CaveatId.ACCESS_TAG, list(tags))

    @classmethod
    def peer_address(cls, *networks: str) -> Self:
        """Valid where the peer's address is in one of the networks (CIDR)."""
        return cls.of(CaveatId.PEER_ADDRESS, list(networks))

    @property
    def encoded_parameter(self) -> bytes:
        """The parameter as canonical CBOR."""
        return cbor.encode(self.parameter)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Caveat):
            return NotImplemented
        return self.id == other.id and self.encoded_parameter == other.encoded_parameter

    def __hash__(self) -> int:
        return hash((self.id, self.encoded_parameter))

    @property
    def time(self) -> datetime:
        """The time of an expiry or not-before caveat."""
        return _EPOCH + timedelta(milliseconds=self.parameter)

    def to_value(self) -> cbor.Value:
        """Return `[id, parameter]`, to be encoded."""
        return [self.id, self.parameter]

    def _describe_third_party(self) -> str:
        """Name the caveat as deny lists do, its discharger, what that is told, and what it checks."""
        _, _, location, caveats, wants = self.parameter
        fingerprint = hashlib.sha256(self.encoded_parameter).digest()[:16].hex(":")
        told = ", ".join(what for what, is_told in zip(_REPORTED, wants, strict=True) if is_told)
        checks = "; ".join(str(Caveat.decode(c)) for c in caveats)
        return (
            f"Requires a discharge of {fingerprint} from {location}"
            f"{f', which is told {told}' if told else ''}{f', and checks: {checks}' if checks else ''}"
        )

    def __str__(self) -> str:
        match self.id:
            case CaveatId.CONST:
                return "Never valid" if self.parameter is False else "Unconstrained"
            case CaveatId.EXPIRY:
                return f"Expires at {self.time:%Y-%m-%d %H:%M:%S} UTC"
            case CaveatId.NOT_BEFORE:
                return f"Not before {self.time:%Y-%m-%d %H:%M:%S} UTC"
            case CaveatId.METHOD:
                return f"Restricted to methods [{' '.join(self.parameter)}]"
            case CaveatId.PEER_BLESSINGS:
                return f"Restricted to peers with blessings [{' '.join(self.parameter)}]"
            case CaveatId.ACCESS_TAG:
                return f"Restricted to methods tagged [{' '.join(self.parameter)}]"
            case CaveatId.PEER_ADDRESS:
                return f"Restricted to peers at [{' '.join(self.parameter)}]"
            case CaveatId.THIRD_PARTY:
                return self._describe_third_party()
            case _:
                return f"Application caveat {self.id}"


_REPORTED: Final = ("the server's names", "the method", "the arguments")
_MAX_MILLISECONDS: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


def _milliseconds(time: datetime) -> int:
    if time.tzinfo is None:
        raise InputError("a caveat's time needs a time zone")
    return (time - _EPOCH) // timedelta(milliseconds=1)


def _frozen(value: cbor.Value) -> cbor.Value:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _is_flag(value: object) -> bool:
    return type(value) is bool


def _is_time(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_MILLISECONDS


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _is_patterns(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) and Pattern.parse(item) for item in value)


def _is_networks(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) and _is_network(item) for item in value)


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_third_party(value: object) -> bool:
    match value:
        case [bytes(nonce), bytes(_), str(_), list(caveats) | tuple(caveats), [bool(_), bool(_), bool(_)]] if (
            len(nonce) == 16
        ):
            return all(Caveat.decode(c) for c in caveats)
        case _:
            return False


_TAKES: Final[Mapping[int, Callable[[object], bool]]] = MappingProxyType(
    {
        CaveatId.CONST.value: _is_flag,
        CaveatId.EXPIRY.value: _is_time,
        CaveatId.NOT_BEFORE.value: _is_time,
        CaveatId.METHOD.value: _is_texts,
        CaveatId.ACCESS_TAG.value: _is_texts,
        CaveatId.PEER_BLESSINGS.value: _is_patterns,
        CaveatId.PEER_ADDRESS.value: _is_networks,
        CaveatId.THIRD_PARTY.value: _is_third_party,
    }
)
"""What each known id takes as its parameter. An id of the future takes anything, is kept as it is, and is never valid."""
