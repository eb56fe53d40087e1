"""Completing the name of a method in a shell: the server itself is asked, quickly, and nothing is said where it does not answer.

Whoever presses Tab waits, so that all of it has 1.5 s, no passphrase is asked for, and an error is no candidate. The server
must be trusted as for a call. What it says is written to a terminal, and so only names and one line of plain text are taken.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from vanadium_node.rpc.reserved import InterfaceSignature, MethodSignature

SECONDS: Final = 1.5
MAX_HELP: Final = 80
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}", re.ASCII)
_RESERVED: Final = "__"


def complete_methods(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:  # shell_complete= of an argument
    """Return the methods of the server NAME that begin so; reserved ones where that was begun with."""
    name = ctx.params.get("name")
    if not isinstance(name, str):
        return []
    logging.disable(logging.CRITICAL)  # nothing belongs into the line that is being written
    try:
        interfaces = _ask(name, is_insecure=bool(ctx.params.get("insecure")))
    except (Exception, BaseExceptionGroup, KeyboardInterrupt):  # noqa: BLE001 - nobody wants to read it now
        return []
    finally:
        logging.disable(logging.NOTSET)
    methods = (method for interface in interfaces for method in interface.methods)
    return [
        CompletionItem(method.name, help=_described(method))
        for method in methods
        if method.name.startswith(incomplete)
        and _NAME.fullmatch(method.name)
        and (not method.name.startswith(_RESERVED) or incomplete.startswith("_"))
    ]


def _ask(name: str, *, is_insecure: bool) -> list[InterfaceSignature]:
    """Ask a server what it has; nothing where that takes too long."""
    import trio

    from vanadium_node.agent import open_principal
    from vanadium_node.rpc import Name, connect
    from vanadium_node.rpc.reserved import InterfaceSignature

    target = Name.parse(name)

    async def ask() -> list[InterfaceSignature]:
        found: Any = []
        with trio.move_on_after(SECONDS):
            async with (
                open_principal(timeout=SECONDS) as principal,
                connect(target, principal, insecure=is_insecure, timeout=SECONDS) as client,
            ):
                found = await client.call("__signature", returns=list[InterfaceSignature], timeout=SECONDS)
        return list(found)

    return trio.run(ask)


def _described(method: MethodSignature) -> str:
    """Return arguments and comment on one line of plain text."""
    arguments = ", ".join(f"{argument.name} {argument.type}" for argument in method.arguments)
    line = " ".join(f"({arguments}) {method.comment}".split())
    plain = "".join(letter for letter in line if letter.isprintable())
    return plain if len(plain) <= MAX_HELP else f"{plain[: MAX_HELP - 1]}…"
