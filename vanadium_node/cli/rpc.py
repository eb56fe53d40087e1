"""`vanadium-node rpc`: look at servers and call them, as the principal that the environment names."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import click

from vanadium_node.cli.output import emit, emit_json, note, run_async
from vanadium_node.errors import UnreachableError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from vanadium_node.rpc import Client
    from vanadium_node.rpc.reserved import InterfaceSignature, MethodSignature

RESERVED: Final = "__"
"""How the names of reserved methods begin."""

RETRY_SECONDS: Final = 5.0
RETRY_INTERVAL_SECONDS: Final = 0.1

insecure_option = click.option(
    "--insecure", is_flag=True, help="Talk to any server, and show this principal's blessings to it."
)
timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=15.0, show_default=True, metavar="SECONDS"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _complete_methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from vanadium_node.cli.method_names import complete_methods

    return complete_methods(ctx, param, incomplete)


@click.group()
def command() -> None:
    """Identify, describe and call servers.

    NAME is like /host:2345, /(root:shop)@host:2345/suffix, /[::1]:2345 or unix:/path. Without --insecure a server must
    present a name that is recognized, and that matches the pattern if there is one, before it sees who is calling.
    """


@asynccontextmanager
async def connected(name: str, insecure: bool, timeout: float) -> AsyncIterator[Client]:
    """Connect to a server as the current principal."""
    from vanadium_node.cli.principal_input import own_principal
    from vanadium_node.rpc import Name, connect

    target = Name.parse(name)
    async with own_principal() as principal, AsyncExitStack() as stack:
        patience = Patience(min(timeout, RETRY_SECONDS))
        while True:
            try:
                client = await stack.enter_async_context(connect(target, principal, insecure=insecure, timeout=timeout))
            except UnreachableError as error:
                await patience.wait_or_raise(error)
            else:
                break
        yield client


class Patience:
    """Trying again for a while where nobody answers: a server that was just started may not listen yet."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end: float | None = None

    async def wait_or_raise(self, error: UnreachableError) -> None:
        """Wait a moment, having said so once; or raise the error when the time is over."""
        import trio

        now = trio.current_time()
        if self._end is None:
            self._end = now + self._seconds
            note(f"{error.message}; trying for {self._seconds:g} s")
        elif now > self._end:
            raise error
        await trio.sleep(RETRY_INTERVAL_SECONDS)


@command.command()
@insecure_option
@timeout_option
@json_option
@click.argument("name")
@run_async
async def identify(name: str, insecure: bool, timeout: float, as_json: bool) -> None:
    """Print which names a server presents, which of them are valid here, and its key."""
    async with connected(name, insecure, timeout) as client:
        server = client.server
    key = "" if server.public_key is None else server.public_key.fingerprint
    if as_json:
        rejected = [{"name": each.name, "reason": each.reason} for each in server.rejected]
        emit_json(
            {"presented": list(server.presented), "valid": list(server.names), "rejected": rejected, "publicKey": key}
        )
        return
    emit(f"PRESENTED: {','.join(server.presented)}")
    emit(f"VALID: [{' '.join(server.names)}]")
    emit(f"PUBLICKEY: {key}")


@command.command()
@insecure_option
@timeout_option
@click.option("--show-reserved", is_flag=True, help="Also what every server answers.")
@click.argument("name")
@click.argument("method", required=False, shell_complete=_complete_methods)
@run_async
async def signature(name: str, method: str | None, insecure: bool, timeout: float, show_reserved: bool) -> None:
    """Print the interfaces of a server, or one METHOD of it."""
    from vanadium_node.cli.rpc_text import interface_text, method_text

    async with connected(name, insecure, timeout) as client:
        interfaces = await interfaces_of(client, timeout)
    if method is not None:
        emit(method_text(find(interfaces, method)))
        return
    shown = [each for each in interfaces if show_reserved or not _is_reserved(each)]
    emit("\n\n".join(map(interface_text, shown)) or "// This server has no methods of its own.")


@command.command()
@insecure_option
@timeout_option
@click.argument("name")
@click.argument("method", metavar="METHOD", shell_complete=_complete_methods)
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
@run_async
async def call(name: str, method: str, arguments: tuple[str, ...], insecure: bool, timeout: float) -> None:
    """Call METHOD with ARGUMENTs, each JSON or a plain word, and print the result as JSON.

    A stream's items are printed one per line, until it ends or Ctrl-C. A method that takes a stream gets the lines of standard
    input, each JSON or a plain word, as they come.
    """
    from vanadium_node.cli.rpc_streams import converse
    from vanadium_node.cli.rpc_values import arguments_for, to_json

    async with connected(name, insecure, timeout) as client:
        found = find(await interfaces_of(client, timeout), method)
        given = arguments_for(found, arguments)
        if found.items_out is not None or found.items_in is not None:
            result = await converse(client, found, given)
        else:
            result = await client.call(found.name, *given, timeout=timeout)
    if found.result.kind != "nothing":
        emit(json.dumps(to_json(found.result, result), ensure_ascii=False))


async def interfaces_of(client: Client, timeout: float) -> list[InterfaceSignature]:
    """Ask a server for its interfaces."""
    from vanadium_node.rpc.reserved import InterfaceSignature as Signature

    found: list[InterfaceSignature] = await client.call("__signature", returns=list[Signature], timeout=timeout)
    return found


def find(interfaces: list[InterfaceSignature], name: str) -> MethodSignature:
    """Return the signature of a method, or name the ones there are."""
    from vanadium_node.errors import InputError

    methods = {method.name: method for interface in interfaces for method in interface.methods}
    if name not in methods:
        own = ", ".join(each for each in methods if not each.startswith(RESERVED)) or "none"
        raise InputError(f"the server has no method '{name}'", hint=f"it has {own}")
    return methods[name]


def _is_reserved(interface: InterfaceSignature) -> bool:
    return all(method.name.startswith(RESERVED) for method in interface.methods)
