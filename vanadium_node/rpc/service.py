"""Services as classes: a method is an `async def` with a decorator, its annotations are the types on the wire.

    class Fortune(Service):
        '''Fortune is the interface to a fortune-telling service.'''

        @method(tag=Tag.READ)
        async def get(self, call: Call) -> str:
            '''Returns a random fortune.'''

The first argument is the `Call`. A method that yields (`-> AsyncIterator[T]`) streams items out; a last argument
`items: AsyncIterator[T]` receives the caller's. A plain `def` cannot block, and runs without a task of its own: fastest.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from vanadium_node.rpc.call import Call
from vanadium_node.rpc.types import NONE, Codec, codec_of
from vanadium_node.security.access import Tag
from vanadium_node.security.authorization import Authorizer

F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS: Final = "__vanadium_method__"
_ITEM_STREAMS: Final = (
    AsyncIterator,
    typing.get_origin(typing.AsyncGenerator[int, None]),
    typing.get_origin(typing.AsyncIterable[int]),
)


@dataclass(frozen=True, slots=True)
class _Options:
    tags: frozenset[str]
    name: str
    idempotent: bool


def method(
    *, tag: str | None = None, tags: tuple[str, ...] = (), name: str = "", idempotent: bool | None = None
) -> Callable[[F], F]:
    """Make a function of a Service a method that can be called, needing the right `tag`.

    Permissions want exactly one tag; `tags` is for those who write authorizers of their own. `name` replaces the wire name,
    which is otherwise the function's in CamelCase: `new_secret` is called as `NewSecret`. An `idempotent` method does the same
    when it runs twice, so that pooled clients may repeat a call whose connection broke; without a word, those that only
    read (`Tag.READ`) are.
    """

    def mark(function: F) -> F:
        given = frozenset(str(each) for each in (*tags, *(() if tag is None else (tag,))))
        may_repeat = given == {Tag.READ.value} if idempotent is None else idempotent
        setattr(function, _OPTIONS, _Options(given, name or wire_name(function.__name__), may_repeat))
        return function

    return mark


def wire_name(name: str) -> str:
    """Return a function's name as it is called: `new_secret` → `NewSecret`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


class Service:
    """An object whose decorated methods others can call. Several interfaces combine by inheriting from several services.

    A class may have an `authorizer` that decides about the methods it defines, in place of the server's: a method
    `def authorizer(self, request: AuthorizationRequest) -> Refusal | None`, or `authorizer = staticmethod(everyone)`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument of a method."""

    name: str
    codec: Codec
    is_required: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Method:
    """One method as its definition says, bound to its object."""

    name: str
    comment: str
    tags: frozenset[str]
    arguments: tuple[Argument, ...]
    required: int
    result: Codec
    result_name: str
    """What the result is called, where its annotation says so: `-> Annotated[str, "fortune"]`."""
    items_in: Codec | None
    """The type of the items that the caller streams, if it does."""
    items_out: Codec | None
    """The type of the items that the method yields, if it does."""
    may_block: bool
    function: Callable[..., Any]
    authorizer: Authorizer | None
    idempotent: bool = False
    """Whether it may run twice for one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One service class of an object: what it is called and the methods that it defines."""

    name: str
    package: str
    comment: str
    methods: tuple[Method, ...]


def interfaces_of(service: Service) -> tuple[Interface, ...]:
    """Return what an object offers, one interface for each service class it inherits from that defines methods.

    Raises TypeError for a method whose annotations are missing or have no form on the wire: that is its author's mistake.
    """
    found, taken = [], set()
    for kind in type(service).__mro__:
        if not issubclass(kind, Service):
            continue
        methods = []
        for attribute, function in vars(kind).items():
            options = getattr(function, _OPTIONS, None)
            if isinstance(options, _Options) and options.name not in taken:
                taken.add(options.name)
                methods.append(_method(kind, service, attribute, options))
        if methods:
            found.append(
                Interface(
                    name=kind.__name__,
                    package=kind.__module__.replace(".", "/"),
                    comment=_comment(kind),
                    methods=tuple(sorted(methods, key=lambda each: each.name)),
                )
            )
    return tuple(found)


def methods_of(interfaces: tuple[Interface, ...]) -> Mapping[str, Method]:
    """Return the methods of all interfaces by their names on the wire."""
    return {each.name: each for interface in interfaces for each in interface.methods}


def _method(kind: type[Service], service: Service, attribute: str, options: _Options) -> Method:
    function = getattr(service, attribute)
    where = f"{kind.__qualname__}.{attribute}"
    hints = typing.get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or hints.get(parameters[0].name) is not Call:
        raise TypeError(f"the first argument of {where} must be annotated as Call")
    if "return" not in hints:
        raise TypeError(f"{where} must say what it returns")
    arguments: list[Argument] = []
    items_in = None
    for parameter in parameters[1:]:
        if parameter.name not in hints or items_in is not None or parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise TypeError(
                f"argument '{parameter.name}' of {where} must be positional, annotated, and before the items"
            )
        items_in = _items(hints[parameter.name], where)
        if items_in is None:
            is_required = parameter.default is parameter.empty
            arguments.append(
                Argument(name=parameter.name, codec=_codec(hints[parameter.name], where), is_required=is_required)
            )
    items_out = _items(hints["return"], where)
    if items_out is not None and not inspect.isasyncgenfunction(function):
        raise TypeError(f"{where} returns AsyncIterator and must be an async generator")
    return Method(
        name=options.name,
        comment=_comment(function),
        tags=options.tags,
        arguments=tuple(arguments),
        required=sum(argument.is_required for argument in arguments),
        result=NONE if items_out is not None else _codec(hints["return"], where),
        result_name=_result_name(function),
        items_in=items_in,
        items_out=items_out,
        may_block=items_out is not None or inspect.iscoroutinefunction(function),
        function=function,
        authorizer=_authorizer(kind, service),
        idempotent=options.idempotent,
    )


def _result_name(function: Callable[..., Any]) -> str:
    annotation = typing.get_type_hints(function, include_extras=True)["return"]
    notes = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is typing.Annotated else ()
    return next((note for note in notes if isinstance(note, str)), "")


def _items(annotation: Any, where: str) -> Codec | None:
    if typing.get_origin(annotation) not in _ITEM_STREAMS:
        return None
    return _codec(typing.get_args(annotation)[0], where)


def _codec(annotation: Any, where: str) -> Codec:
    try:
        return codec_of(annotation)
    except TypeError as error:
        raise TypeError(f"{where}: {error}") from error


def _authorizer(kind: type[Service], service: Service) -> Authorizer | None:
    """Return the authorizer that a class has for the methods it defines; a subclass's is for the subclass's own."""
    for each in kind.__mro__:
        found = vars(each).get("authorizer")
        if found is not None:
            authorizer = found.__get__(service, type(service))
            if len(inspect.signature(authorizer).parameters) != 1:
                raise TypeError(
                    f"{each.__qualname__}.authorizer must take one request; write staticmethod(…) around a function"
                )
            return typing.cast("Authorizer", authorizer)
    return None


def _comment(documented: Any) -> str:
    return inspect.cleandoc(documented.__doc__ or "")
