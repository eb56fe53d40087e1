"""Interceptors: an application's own code around every call, at either end.

An interceptor is a function from the call to an asynchronous context manager that surrounds it:

    @asynccontextmanager
    async def guarded(call: Call) -> AsyncIterator[None]:
        if call.method in frozen:
            raise CallError(ErrorCode.OVERLOADED, "the shop is closed for the night")
        yield

    serve(service, principal, interceptors=[guarded])

What it raises before `yield` answers the call, which then does not run; what the method raises comes out of `yield`, to be
looked at, raised on, or turned into something else. The first of several is the outermost. Streams are surrounded until
their last item. At a client it gets an `OutgoingCall` instead, and surrounds the wait for the answer.

Where neither interceptors nor observers are given, methods are as they were: a call then costs nothing more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import trio

from vanadium_node.errors import ErrorCode
from vanadium_node.rpc.call import Call, PeerIdentity
from vanadium_node.rpc.failures import error_of
from vanadium_node.rpc.naming import Name
from vanadium_node.rpc.observing import OK, EndedCall, Observer
from vanadium_node.rpc.service import Method


class Interceptor(Protocol):
    """Surrounds each call that a server runs, after it was authorized and its arguments were checked."""

    def __call__(self, call: Call, /) -> AbstractAsyncContextManager[object]:
        """Return what surrounds the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingCall:
    """A call about to be made."""

    name: Name
    server: PeerIdentity
    method: str
    is_stream: bool


class ClientInterceptor(Protocol):
    """Surrounds each call that a client makes."""

    def __call__(self, call: OutgoingCall, /) -> AbstractAsyncContextManager[object]:
        """Return what surrounds the call."""


@asynccontextmanager
async def surrounded(
    interceptors: Sequence[Callable[[Any], AbstractAsyncContextManager[object]]], call: object
) -> AsyncIterator[None]:
    """Enter what each interceptor puts around the call, the first one outermost."""
    async with AsyncExitStack() as stack:
        for each in interceptors:
            await stack.enter_async_context(each(call))
        yield


def intercepted(
    objects: Mapping[str, Mapping[str, Method]], interceptors: Sequence[Interceptor], observer: Observer | None
) -> Mapping[str, Mapping[str, Method]]:
    """Return the methods of each object with interceptors around them, and `observer` told of every end."""
    if not interceptors and observer is None:
        return objects
    found = {}
    for suffix, methods in objects.items():
        wrapped = {name: _observed(_intercepted(each, interceptors), observer) for name, each in methods.items()}
        found[suffix] = MappingProxyType(wrapped)
    return MappingProxyType(found)


def _intercepted(method: Method, interceptors: Sequence[Interceptor]) -> Method:
    if not interceptors:
        return method
    function = method.function

    async def run(call: Call, *values: Any) -> Any:
        async with surrounded(interceptors, call):
            result = function(call, *values)
            return await result if method.may_block else result

    async def stream(call: Call, *values: Any) -> AsyncIterator[Any]:
        async with surrounded(interceptors, call), aclosing(function(call, *values)) as items:
            async for item in items:
                yield item

    return dataclasses.replace(method, function=run if method.items_out is None else stream, may_block=True)


def _observed(method: Method, observer: Observer | None) -> Method:
    if observer is None:
        return method
    function, told = method.function, observer

    def ended(call: Call, since: float, code: str) -> None:
        told.call_ended(EndedCall(call=call, code=code, seconds=trio.current_time() - since))

    def at_once(call: Call, *values: Any) -> Any:
        since = trio.current_time()
        try:
            result = function(call, *values)
        except BaseException as error:
            ended(call, since, _code(call, error))
            raise
        ended(call, since, OK)
        return result

    async def run(call: Call, *values: Any) -> Any:
        since = trio.current_time()
        try:
            result = await function(call, *values)
        except BaseException as error:
            ended(call, since, _code(call, error))
            raise
        ended(call, since, OK)
        return result

    async def stream(call: Call, *values: Any) -> AsyncIterator[Any]:
        since = trio.current_time()
        try:
            async with aclosing(function(call, *values)) as items:
                async for item in items:
                    yield item
        except BaseException as error:
            ended(call, since, _code(call, error))
            raise
        ended(call, since, OK)

    if method.items_out is not None:
        return dataclasses.replace(method, function=stream)
    return dataclasses.replace(method, function=run if method.may_block else at_once)


def _code(call: Call, error: BaseException) -> str:
    """Return the code for how a method ended; a cancelled one is late, or nobody wants its answer any more."""
    if isinstance(error, Exception):
        return error_of(error).code.value
    return (ErrorCode.TIMEOUT if trio.current_time() >= call.deadline else ErrorCode.CANCELLED).value
