"""The inspecting commands of `principal`: exact lines when piped, trees on a terminal, JSON with --json."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import click

from vanadium_node.cli.output import console, emit, emit_json, is_terminal, run_async
from vanadium_node.cli.principal_explain import explain_blessings, explanation_json, explanation_lines
from vanadium_node.cli.principal_input import own_principal, read_blessings
from vanadium_node.cli.principal_text import (
    blessings_json,
    blessings_text,
    names_text,
    peers_json,
    principal_json,
    principal_text,
    roots_json,
)
from vanadium_node.errors import InputError
from vanadium_node.security.blessing import Blessings, Chain
from vanadium_node.security.validation import CallContext

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.option("-s", "names_only", is_flag=True, help="Only the names of the default blessings.")
@as_json
@run_async
async def dump(names_only: bool, as_json: bool) -> None:
    """Print the principal: its key, its blessings, and the roots it recognizes."""
    now = datetime.now(UTC)
    async with own_principal() as principal:
        if as_json:
            emit_json(principal_json(principal, now))
        elif names_only:
            emit(names_text(principal.store.default, now))
        elif is_terminal():
            from vanadium_node.cli.principal_tree import principal_tree  # rich, which piped commands do not need

            console().print(principal_tree(principal, now))
        else:
            emit(principal_text(principal))


@click.command()
@as_json
@click.argument("file")
def dumpblessings(file: str, as_json: bool) -> None:
    """Print the certificates and caveats of the blessings in FILE."""
    blessings = read_blessings(file)
    now = datetime.now(UTC)
    if as_json:
        emit_json(blessings_json(blessings, now))
    elif is_terminal():
        from vanadium_node.cli.principal_tree import blessings_tree  # rich, which piped commands do not need

        console().print(blessings_tree(blessings, now))
    else:
        emit(blessings_text(blessings))


@click.command()
@as_json
@click.argument("file")
def dumproots(file: str, as_json: bool) -> None:
    """Print the root of each chain in FILE as blessings, one line each: what others must recognize."""
    roots = read_blessings(file).roots
    if as_json:
        emit_json([{"name": str(r), "publicKey": r.public_key.fingerprint, "blessings": r.text} for r in roots])
        return
    for root in roots:
        emit(root.text)


@click.command()
@click.option("--peer", "peers", multiple=True, metavar="NAME", help="Judge as an end with this name does.")
@click.option("--method", default="", metavar="M", help="For a call of this method.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="The method's tag.")
@click.option("--address", metavar="IP", help="From this address.")
@click.option("--at", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]), metavar="TIME", help="At this time instead of now.")
@as_json
@click.argument("file")
@run_async
async def explain(
    file: str,
    peers: tuple[str, ...],
    method: str,
    tags: tuple[str, ...],
    address: str | None,
    at: datetime | None,
    as_json: bool,
) -> None:
    """Print why the blessings in FILE would be accepted or not, certificate by certificate, caveat by caveat.

    They are judged with the roots that the current principal recognizes, as if shown to an end with the names --peer (its
    own, if there are none). What depends on something that is not given says so.
    """
    blessings = read_blessings(file)
    async with own_principal() as principal:
        own = principal.store.default
        context = CallContext(
            now=datetime.now(UTC) if at is None else at.replace(tzinfo=UTC),
            method=method,
            tags=frozenset(tags),
            local_names=peers or (own.names if own is not None else ()),
            peer_address=address,
        )
        judged = explain_blessings(blessings, principal.roots, context)
    if as_json:
        emit_json(explanation_json(judged, context))
    else:
        emit("\n".join(explanation_lines(judged, context)))


@click.group()
def get() -> None:
    """Print one thing that the principal holds."""


def with_views(function: Callable[..., object]) -> Callable[..., object]:
    """Add the options that choose what to print of blessings."""
    for option in (
        click.option("--names", is_flag=True, help="The names, one a line."),
        click.option("--rootkey", metavar="NAME", help="The root's public key of the chain with this name."),
        click.option("--caveats", "caveats_of", metavar="NAME", help="The caveats of the chain with this name."),
        as_json,
    ):
        function = option(function)
    return function


def emit_blessings(
    blessings: Blessings | None, names: bool, rootkey: str | None, caveats_of: str | None, as_json: bool
) -> None:
    """Print blessings, or the view of them that was asked for."""
    if blessings is None:
        raise InputError("there are no such blessings", hint="'vanadium-node principal dump' shows what there is")
    if names:
        emit_json(list(blessings.names)) if as_json else emit("\n".join(blessings.names))
    elif rootkey is not None:
        key = _chain(blessings, rootkey).root_key.text
        emit_json(key) if as_json else emit(key)
    elif caveats_of is not None:
        caveats = list(map(str, _chain(blessings, caveats_of).caveats))
        emit_json(caveats) if as_json else emit("\n".join(caveats))
    elif as_json:
        emit_json(blessings_json(blessings, datetime.now(UTC)))
    else:
        emit(blessings.text)


@get.command("default")
@with_views
@run_async
async def get_default(names: bool, rootkey: str | None, caveats_of: str | None, as_json: bool) -> None:
    """Print the blessings shown as a server."""
    async with own_principal() as principal:
        emit_blessings(principal.store.default, names, rootkey, caveats_of, as_json)


@get.command("forpeer")
@with_views
@click.argument("peers", nargs=-1, metavar="[PEER]...")
@run_async
async def get_forpeer(
    peers: tuple[str, ...], names: bool, rootkey: str | None, caveats_of: str | None, as_json: bool
) -> None:
    """Print the blessings shown to a server that has the names PEER."""
    async with own_principal() as principal:
        emit_blessings(principal.store.for_peer(peers), names, rootkey, caveats_of, as_json)


@get.command("publickey")
@click.option("--pretty", is_flag=True, help="The fingerprint instead of the key.")
@as_json
@run_async
async def get_publickey(pretty: bool, as_json: bool) -> None:
    """Print the public key."""
    async with own_principal() as principal:
        key = principal.public_key
    if as_json:
        emit_json({"publicKey": key.text, "fingerprint": key.fingerprint})
    else:
        emit(key.fingerprint if pretty else key.text)


@get.command("recognizedroots")
@as_json
@run_async
async def get_recognizedroots(as_json: bool) -> None:
    """Print the roots that are recognized, one a line."""
    async with own_principal() as principal:
        emit_json(roots_json(principal.roots)) if as_json else emit(principal.roots.table())


@get.command("peermap")
@as_json
@run_async
async def get_peermap(as_json: bool) -> None:
    """Print which blessings are shown to which servers."""
    async with own_principal() as principal:
        if as_json:
            emit_json(peers_json(principal.store))
        else:
            emit("\n".join(principal.store.table().splitlines()[1:]))


def _chain(blessings: Blessings, name: str) -> Chain:
    for chain in blessings.chains:
        if chain.name == name:
            return chain
    raise InputError(f"the blessings have no name '{name}'", hint=f"they have {', '.join(blessings.names)}")
