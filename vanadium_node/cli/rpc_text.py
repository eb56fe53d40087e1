"""How interfaces look as text: comments, methods with their arguments and results, and the right each method needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vanadium_node.rpc.reserved import InterfaceSignature, MethodSignature

NOTHING = "nothing"
"""Kind of a result that is nothing."""


def interface_text(interface: InterfaceSignature) -> str:
    """Return an interface as `rpc signature` prints it."""
    lines = [*_comment(interface.comment), f'type "{interface.package}".{interface.name} interface {{']
    for method in interface.methods:
        lines += [f"  {line}" for line in method_text(method).splitlines()]
    return "\n".join([*lines, "}"])


def method_text(method: MethodSignature) -> str:
    """Return one method as `rpc signature` prints it."""
    arguments = ", ".join(f"{argument.name} {argument.type}" for argument in method.arguments)
    notes = [*method.tags, *_repeating(method)]
    tags = f" {{{', '.join(notes)}}}" if notes else ""
    return "\n".join(
        [*_comment(method.comment), f"{method.name}({arguments}) {_streams(method)}{_result(method)}{tags}"]
    )


def _repeating(method: MethodSignature) -> Iterable[str]:
    """Say whether the method may run twice, where its tags do not say so already: those that only read may."""
    if method.idempotent != (method.tags == ["Read"]):
        yield "idempotent" if method.idempotent else "not idempotent"


def _streams(method: MethodSignature) -> str:
    if method.items_in is None and method.items_out is None:
        return ""
    return f"stream<{method.items_in or '_'}, {method.items_out or '_'}> "


def _result(method: MethodSignature) -> str:
    if method.result.kind == NOTHING:
        return "error"
    name = f"{method.result_name} " if method.result_name else ""
    return f"({name}{method.result} | error)"


def _comment(text: str) -> Iterable[str]:
    return [f"// {line}".rstrip() for line in text.splitlines()]
