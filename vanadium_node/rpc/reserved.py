"""What every server answers besides its own methods: what it offers, and who it takes the caller for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vanadium_node.rpc.call import Call
from vanadium_node.rpc.service import Interface, Method, Service, interfaces_of, method, methods_of
from vanadium_node.rpc.types import Shape
from vanadium_node.security.access import Tag
from vanadium_node.security.authorization import everyone


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who the server takes its caller for."""

    names: list[str]
    """Names that count here."""
    rejected: list[tuple[str, str]]
    """Names that do not count here, each with the reason."""
    public_key: str
    """Fingerprint of its key; empty on unix sockets."""
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentSignature:
    """An argument's name and type."""

    name: str
    type: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSignature:
    """A method as others see it."""

    name: str
    comment: str
    arguments: list[ArgumentSignature]
    required: int
    """How many arguments must be given; the others have defaults."""
    result: Shape
    items_in: Shape | None
    items_out: Shape | None
    tags: list[str]
    result_name: str = ""
    idempotent: bool = False
    """Whether it may run twice: clients may repeat a call whose connection broke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceSignature:
    """An interface as others see it."""

    name: str
    package: str
    comment: str
    methods: list[MethodSignature]


class Reserved(Service):
    """Methods that every object has."""

    def __init__(self, interfaces: tuple[Interface, ...]) -> None:
        self._signature = [signature_of(each) for each in (*interfaces, *interfaces_of_reserved(self))]

    @method(tag=Tag.DEBUG, name="__signature")
    def signature(self, call: Call) -> list[InterfaceSignature]:
        """Returns the interfaces of the object."""
        return self._signature


class Identifying(Service):
    """Methods that every object has, for everybody."""

    authorizer = staticmethod(everyone)

    @method(tag=Tag.DEBUG, name="__identify")
    def identify(self, call: Call) -> Caller:
        """Returns who the server takes the caller for."""
        return Caller(
            names=list(call.peer.names),
            rejected=[(each.name, each.reason) for each in call.peer.rejected],
            public_key="" if call.peer.public_key is None else call.peer.public_key.fingerprint,
            address=call.peer.address,
        )


def interfaces_of_reserved(reserved: Reserved) -> tuple[Interface, ...]:
    """Return the interfaces behind the reserved methods."""
    return (*interfaces_of(reserved), *interfaces_of(Identifying()))


def objects_of(services: Mapping[str, Service]) -> Mapping[str, Mapping[str, Method]]:
    """Return the methods of each object, reserved ones included, by suffix and name."""
    objects = {}
    for suffix, service in services.items():
        interfaces = interfaces_of(service)
        reserved = interfaces_of_reserved(Reserved(interfaces))
        objects[suffix] = MappingProxyType(dict(methods_of((*reserved, *interfaces))))
    return MappingProxyType(objects)


def signature_of(interface: Interface) -> InterfaceSignature:
    """Return an interface as it is sent."""
    return InterfaceSignature(
        name=interface.name,
        package=interface.package,
        comment=interface.comment,
        methods=[
            MethodSignature(
                name=each.name,
                comment=each.comment,
                arguments=[ArgumentSignature(name=a.name, type=a.codec.shape) for a in each.arguments],
                required=each.required,
                result=each.result.shape,
                items_in=None if each.items_in is None else each.items_in.shape,
                items_out=None if each.items_out is None else each.items_out.shape,
                tags=sorted(each.tags),
                result_name=each.result_name,
                idempotent=each.idempotent,
            )
            for each in interface.methods
        ],
    )
