"""Services as their authors write them: what becomes of annotations, and which mistakes are told at the start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vanadium_node import cbor
from vanadium_node.errors import DecodeError, InputError
from vanadium_node.rpc import Call, Service, Tag, method
from vanadium_node.rpc.reserved import InterfaceSignature, objects_of, signature_of
from vanadium_node.rpc.service import interfaces_of, wire_name
from vanadium_node.rpc.types import Codec, Shape, codec_of, from_wire, to_wire


class Colour(StrEnum):
    """An enum of texts."""

    RED = "red"


class Level(IntEnum):
    """An enum of numbers."""

    LOW = 1


class Mark(Enum):
    """An enum of neither, which goes by name."""

    HERE = object()


@dataclass(frozen=True)
class Inner:
    """A part."""

    words: list[str]


@dataclass(frozen=True)
class Outer:
    """A whole, with a field that came later."""

    inner: Inner
    when: datetime | None = None


WHEN = datetime(2026, 11, 23, 10, 0, 0, 1, tzinfo=UTC)
GOOD: list[tuple[Any, object, object, str]] = [
    (int, 3, 3, "int64"),
    (float, 1.5, 1.5, "float64"),
    (str, "ä", "ä", "string"),
    (bytes, b"\x00", b"\x00", "bytes"),
    (bool, True, True, "bool"),
    (None, None, None, "nothing"),
    (list[int], [1, 2], [1, 2], "[]int64"),
    (tuple[int, ...], (1, 2), [1, 2], "[]int64"),
    (tuple[int, str], (1, "a"), [1, "a"], "(int64, string)"),
    (dict[str, list[bool]], {"a": [True]}, {"a": [True]}, "map[string][]bool"),
    (dict[int, str], {1: "a"}, {1: "a"}, "map[int64]string"),
    (datetime, WHEN, 1795428000000001, "time"),
    (Colour, Colour.RED, "red", "Colour"),
    (Level, Level.LOW, 1, "Level"),
    (Mark, Mark.HERE, "HERE", "Mark"),
    (Outer, Outer(Inner(["a"]), WHEN), [[["a"]], 1795428000000001], "Outer"),
    (int | None, 3, 3, "?int64"),
]


@pytest.mark.parametrize(("annotation", "value", "wire", "name"), GOOD, ids=[row[3] for row in GOOD])
def test_values_there_and_back(annotation: Any, value: object, wire: object, name: str) -> None:
    """Each type has one form on the wire and a name; a client needs no annotation to send it."""
    codec = codec_of(annotation)
    assert codec.to_wire(value) == wire
    assert codec.from_wire(wire) == value
    assert type(codec.from_wire(wire)) is type(value)
    assert str(codec.shape) == name
    assert to_wire(value) == wire
    assert Shape.from_wire(codec.shape.to_wire()) == codec.shape


@pytest.mark.parametrize(
    ("annotation", "wire"),
    [
        (int, True), (int, 1.0), (int, "1"), (bool, 1), (str, b"a"), (bytes, "a"), (float, "1"), (float, True), (None, 0),
        (list[int], ["a"]), (list[int], {}), (tuple[int, str], [1]), (tuple[int, str], [1, "a", 2]), (dict[str, int], {"a": "b"}),
        (dict[str, int], [["a", 1]]), (datetime, "now"), (datetime, 2**70), (Colour, "green"), (Colour, []), (Level, "1"),
        (Outer, []), (Outer, [[["a"]], None, 3]), (Outer, {"inner": 1}), (Outer, [[[1]]]), (int | None, "a"),
    ],
)  # fmt: skip
def test_what_a_peer_may_not_send(annotation: Any, wire: object) -> None:
    """Anything else than a value of the type is a DecodeError that says what was expected."""
    with pytest.raises(DecodeError, match="the thing is wrong"):
        from_wire(codec_of(annotation), wire, "the thing")


ODD_KEYS: list[object] = [WHEN, 2**64, (1, 2), UUID(int=1), Decimal(1), IPv4Address(1), frozenset({1}), b"x", 1.5, None]


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, [2**70], {"a": -(2**70)}, "\ud800", *({key: 1} for key in ODD_KEYS)], ids=repr)  # fmt: skip
def test_values_that_no_peer_would_take(value: object) -> None:
    """What would end the connection at the other end is refused at this one: it may only cost the call that it is for."""
    with pytest.raises(InputError):
        cbor.encode_frame(to_wire(value))


@pytest.mark.parametrize("annotation", [int, list[int], dict[int, int], int | None])
def test_integers_end_at_64_bits_and_a_sign(annotation: Any) -> None:
    """As CBOR carries them without a tag; at both ends, whatever they are a part of."""
    codec = codec_of(annotation)
    for number, is_good in ((2**64 - 1, True), (-(2**64), True), (2**64, False), (-(2**64) - 1, False)):
        value: Any = {list[int]: [number], dict[int, int]: {1: number}}.get(annotation, number)
        for convert in (codec.to_wire, codec.from_wire):
            with nullcontext() if is_good else pytest.raises(InputError, match="64 bits"):
                assert convert(value) == value


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | st.text() | st.binary() | st.sampled_from(ODD_KEYS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers() | st.sampled_from(ODD_KEYS), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(anything)
def test_what_can_be_sent_can_be_received(value: object) -> None:
    """A value has a form on the wire that every peer accepts, or none."""
    try:
        encoded = cbor.encode_frame(to_wire(value))
    except InputError:
        return
    cbor.decode_frame(encoded, max_bytes=1 << 20)


def test_fields_with_defaults_may_be_left_out() -> None:
    """An older peer knows fewer fields."""
    assert codec_of(Outer).from_wire([[["a"]]]) == Outer(Inner(["a"]))


@pytest.mark.parametrize(
    "annotation", [object(), set, list, dict[bytes, int], int | str, Callable[[], int], complex, list[complex]]
)
def test_annotations_without_a_form(annotation: Any) -> None:
    """They are the author's mistake, and told with what there is instead."""
    with pytest.raises(TypeError, match=r"no form on the wire|unhashable"):
        codec_of(annotation)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([codec_of(row[0]) for row in GOOD]), values)
def test_no_value_of_a_peer_raises_anything_but_an_input_error(codec: Codec, wire: object) -> None:
    """Whatever comes, it is a value of the type or an error of the caller's."""
    try:
        decoded = codec.from_wire(wire)
    except InputError:
        return
    codec.to_wire(decoded)


@given(values)
def test_no_shape_of_a_peer_raises_anything_but_an_input_error(wire: object) -> None:
    """A type's description is as strict, and prints whatever it is."""
    try:
        str(Shape.from_wire(wire))
    except InputError:
        return


def test_names_on_the_wire() -> None:
    """CamelCase of the function's name."""
    assert [wire_name(n) for n in ("get", "new_secret", "seek_blessings")] == ["Get", "NewSecret", "SeekBlessings"]


class Good(Service):
    """Good is described.

    In several lines.
    """

    @method(tag=Tag.READ)
    async def one_thing(self, call: Call, first: str, second: int = 2) -> list[Outer]:
        """Returns something."""
        return []

    @method(tags=("a", "b"), name="Other")
    async def talk(self, call: Call, items: AsyncIterator[int]) -> AsyncIterator[str]:
        """Talks."""
        async for item in items:
            yield str(item)

    async def private(self) -> None:
        """Cannot be called from outside."""


def test_a_service_is_described_by_its_definition() -> None:
    """Interface, comments, arguments with types, results, streams and tags; and that survives the wire."""
    (interface,) = interfaces_of(Good())
    signature = signature_of(interface)
    codec = codec_of(InterfaceSignature)
    assert codec.from_wire(codec.to_wire(signature)) == signature
    assert (signature.name, signature.comment) == ("Good", "Good is described.\n\nIn several lines.")
    one, other = signature.methods
    assert (one.name, one.comment, one.required, one.tags) == ("OneThing", "Returns something.", 1, ["Read"])
    assert [(a.name, str(a.type)) for a in one.arguments] == [("first", "string"), ("second", "int64")]
    assert str(one.result) == "[]Outer"
    assert (other.name, str(other.items_in), str(other.items_out), other.tags) == (
        "Other",
        "int64",
        "string",
        ["a", "b"],
    )


def test_reserved_methods_are_on_every_object() -> None:
    """Besides the service's own."""
    assert set(objects_of({"": Good()})[""]) == {"OneThing", "Other", "__signature", "__identify"}


class NoCall(Service):
    """Its method does not take the call."""

    @method(tag=Tag.READ)
    async def get(self, name: str) -> str:
        """Is wrong."""
        return name


class NoResult(Service):
    """Its method does not say what it returns."""

    @method(tag=Tag.READ)
    async def get(self, call: Call):  # type: ignore[no-untyped-def]
        """Is wrong."""


class NoArgumentType(Service):
    """Its argument has no type."""

    @method(tag=Tag.READ)
    async def get(self, call: Call, name) -> None:  # type: ignore[no-untyped-def]
        """Is wrong."""


class NoForm(Service):
    """Its result has no form on the wire."""

    @method(tag=Tag.READ)
    async def get(self, call: Call) -> set[int]:
        """Is wrong."""
        return set()


class NoGenerator(Service):
    """Its method returns an iterator and does not yield."""

    @method(tag=Tag.READ)
    async def get(self, call: Call) -> AsyncIterator[int]:
        """Is wrong."""
        raise NotImplementedError


class ItemsFirst(Service):
    """Its items are not the last argument."""

    @method(tag=Tag.READ)
    async def get(self, call: Call, items: AsyncIterator[int], name: str) -> None:
        """Is wrong."""


class BoundAuthorizer(Service):
    """Its authorizer takes too much."""

    @method(tag=Tag.READ)
    async def get(self, call: Call) -> None:
        """Is right."""

    def authorizer(self) -> None:
        """Is wrong."""


@pytest.mark.parametrize(
    "service",
    [NoCall, NoResult, NoArgumentType, NoForm, NoGenerator, ItemsFirst, BoundAuthorizer],
    ids=lambda s: s.__name__,
)
def test_mistakes_of_a_services_author(service: type[Service]) -> None:
    """They are told when serving begins, by the method's name, and not at the first call."""
    with pytest.raises(TypeError, match=service.__name__):
        interfaces_of(service())
