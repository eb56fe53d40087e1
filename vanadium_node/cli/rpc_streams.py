"""Streams on the command line: items are lines of JSON, in on standard input and out on standard output, each as it comes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import trio

from vanadium_node.cli.output import emit, note
from vanadium_node.cli.rpc_values import to_json, value_for
from vanadium_node.errors import InputError

if TYPE_CHECKING:
    from vanadium_node.rpc import CallStream, Client
    from vanadium_node.rpc.reserved import MethodSignature
    from vanadium_node.rpc.types import Shape

MAX_LINE_BYTES: Final = 4 << 20
_READ_BYTES: Final = 1 << 16


async def converse(client: Client, method: MethodSignature, arguments: list[Any]) -> Any:
    """Call a method that streams: send it the lines of standard input, print its items, and return its result.

    Raises:
        InputError: a line is no item for the method; the call is cancelled then.
    """
    takes = method.items_in
    async with (
        client.stream(method.name, *arguments, has_items=takes is not None) as items,
        trio.open_nursery() as nursery,
    ):
        if takes is not None:
            nursery.start_soon(_send_lines, method, takes, items)
        if method.items_out is not None:
            async for item in items:
                emit(json.dumps(to_json(method.items_out, item), ensure_ascii=False))
            result = None
        else:
            result = await items.outcome()
        nursery.cancel_scope.cancel()
    return result


async def _send_lines(method: MethodSignature, shape: Shape, items: CallStream[Any]) -> None:
    if sys.stdin.isatty():
        note(f"{method.name} takes a stream of {shape}: one a line, as JSON; Ctrl-D ends it")
    number = 0
    async for line in _lines():
        number += 1
        if line.strip():
            await items.send(value_for(f"line {number}, an item for {method.name},", shape, line))
    items.end()


async def _lines() -> AsyncIterator[str]:
    """Return the lines of standard input as they come. It is read without Python's buffer, which no task could let go of."""
    descriptor, rest = sys.stdin.fileno(), b""
    while True:
        try:
            await trio.lowlevel.wait_readable(descriptor)
        except PermissionError:  # a file, which is always readable
            await trio.lowlevel.checkpoint()
        data = os.read(descriptor, _READ_BYTES)
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
        if len(rest) > MAX_LINE_BYTES:
            raise InputError(f"a line of standard input is longer than {MAX_LINE_BYTES} bytes")
        if not data:
            if rest:
                yield rest.decode(errors="replace")
            return
