"""`vanadium-node principal`: make principals, bless others, and look at what a principal holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vanadium_node.cli.output import emit, run_async
from vanadium_node.cli.principal_input import (
    CAVEATS,
    ask_new_passphrase,
    caveats_from,
    confirmed,
    default_name,
    own_principal,
    read_blessings,
    read_key,
)
from vanadium_node.cli.principal_text import blessings_text, names_text, principal_text
from vanadium_node.errors import InputError
from vanadium_node.security.blessing import Blessings, Chain
from vanadium_node.security.keys import KeyType, PrivateKey, PublicKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.security.principal import Principal
from vanadium_node.storage.credentials import CredentialsDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = "nil"
"""In place of a file: no blessings."""

with_key_type = click.option(
    "--key-type", type=click.Choice([t.value for t in KeyType]), default=KeyType.ECDSA_P256.value, show_default=True
)
with_passphrase = click.option(
    "--with-passphrase", type=bool, default=True, show_default=True, metavar="BOOL", help="Encrypt the private key."
)
with_overwrite = click.option("--overwrite", is_flag=True, help="Replace the principal that is there.")


def with_caveats(function: Callable[..., object]) -> Callable[..., object]:
    """Add the options that say under which caveats to bless."""
    for option in (
        click.option("--for", "lifetime", metavar="DURATION", help="Expire after this long: 90s, 10m, 24h, 7d."),
        click.option("--caveat", "words", multiple=True, metavar="CAVEAT", help=f"One of {CAVEATS}."),
    ):
        function = option(function)
    return function


with_source = click.option("--with", "source", metavar="FILE", help="Extend these blessings instead of the default.")
with_requirement = click.option(
    "--require-caveats", type=bool, default=True, metavar="BOOL", help="Ask before blessing without a caveat."
)


@click.group()
def command() -> None:
    """Create and inspect principals, blessings, roots and stores.

    The principal is the one in the directory that V23_CREDENTIALS names, or the one that the agent behind V23_AGENT_PATH
    serves. Blessings and keys are printed as one line of base64url; '-' stands for standard input.
    """


@command.command()
@with_key_type
@with_passphrase
@with_overwrite
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@run_async
async def create(directory: Path, name: str | None, key_type: str, with_passphrase: bool, overwrite: bool) -> None:
    """Create a principal in DIRECTORY that blesses itself as NAME."""
    passphrase = ask_new_passphrase() if with_passphrase else None
    key = PrivateKey.generate(KeyType(key_type))
    await CredentialsDirectory(directory).create(
        key, default_name() if name is None else name, passphrase=passphrase, overwrite=overwrite
    )


@command.command()
@with_key_type
@with_passphrase
@with_overwrite
@with_caveats
@with_source
@with_requirement
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("extension")
@run_async
async def fork(
    directory: Path,
    extension: str,
    key_type: str,
    with_passphrase: bool,
    overwrite: bool,
    lifetime: str | None,
    words: tuple[str, ...],
    source: str | None,
    require_caveats: bool,
) -> None:
    """Create a principal in DIRECTORY, blessed by the current one with EXTENSION."""
    caveats = confirmed(caveats_from(lifetime, words), require_caveats)
    passphrase = ask_new_passphrase() if with_passphrase else None
    key = PrivateKey.generate(KeyType(key_type))
    async with own_principal() as principal:
        blessings = await principal.bless(key.public_key, _to_extend(principal, source), extension, caveats)
        child = await Principal.create(key, "child")
        await child.adopt(blessings)
        await CredentialsDirectory(directory).keep(
            key, child.store, principal.roots.with_roots_of(blessings), passphrase=passphrase, overwrite=overwrite
        )


@command.command()
@with_caveats
@with_source
@with_requirement
@click.argument("who")
@click.argument("extension")
@run_async
async def bless(
    who: str, extension: str, lifetime: str | None, words: tuple[str, ...], source: str | None, require_caveats: bool
) -> None:
    """Bless WHO with EXTENSION and print the blessings.

    WHO is a credentials directory, or a file or '-' that holds a public key or blessings.
    """
    key = read_key(who)
    caveats = confirmed(caveats_from(lifetime, words), require_caveats)
    async with own_principal() as principal:
        blessings = await principal.bless(key, _to_extend(principal, source), extension, caveats)
    emit(blessings.text)


@command.command()
@with_caveats
@click.argument("name", required=False)
@run_async
async def blessself(name: str | None, lifetime: str | None, words: tuple[str, ...]) -> None:
    """Print blessings rooted at the principal itself."""
    async with own_principal() as principal:
        blessings = await principal.bless_self(name or default_name(), caveats_from(lifetime, words))
    emit(blessings.text)


@command.command()
@click.option("-s", "names_only", is_flag=True, help="Only the names of the default blessings.")
@run_async
async def dump(names_only: bool) -> None:
    """Print the principal: its key, its blessings, and the roots it recognizes."""
    async with own_principal() as principal:
        text = names_text(principal.store.default, datetime.now(UTC)) if names_only else principal_text(principal)
    emit(text)


@command.command()
@click.argument("file")
def dumpblessings(file: str) -> None:
    """Print the certificates and caveats of the blessings in FILE."""
    emit(blessings_text(read_blessings(file)))


@command.command()
@click.argument("file")
def dumproots(file: str) -> None:
    """Print the root of each chain in FILE as blessings, one line each: what others must recognize."""
    for root in read_blessings(file).roots:
        emit(root.text)


@command.group()
def get() -> None:
    """Print one thing that the principal holds."""


def with_views(function: Callable[..., object]) -> Callable[..., object]:
    """Add the options that choose what to print of blessings."""
    for option in (
        click.option("--names", is_flag=True, help="The names, one a line."),
        click.option("--rootkey", metavar="NAME", help="The root's public key of the chain with this name."),
        click.option("--caveats", "caveats_of", metavar="NAME", help="The caveats of the chain with this name."),
    ):
        function = option(function)
    return function


def emit_blessings(blessings: Blessings | None, names: bool, rootkey: str | None, caveats_of: str | None) -> None:
    """Print blessings, or the view of them that was asked for."""
    if blessings is None:
        raise InputError("there are no such blessings", hint="'vanadium-node principal dump' shows what there is")
    if names:
        emit("\n".join(blessings.names))
    elif rootkey is not None:
        emit(_chain(blessings, rootkey).root_key.text)
    elif caveats_of is not None:
        emit("\n".join(map(str, _chain(blessings, caveats_of).caveats)))
    else:
        emit(blessings.text)


@get.command("default")
@with_views
@run_async
async def get_default(names: bool, rootkey: str | None, caveats_of: str | None) -> None:
    """Print the blessings shown as a server."""
    async with own_principal() as principal:
        emit_blessings(principal.store.default, names, rootkey, caveats_of)


@get.command("forpeer")
@with_views
@click.argument("peers", nargs=-1, metavar="[PEER]...")
@run_async
async def get_forpeer(peers: tuple[str, ...], names: bool, rootkey: str | None, caveats_of: str | None) -> None:
    """Print the blessings shown to a server that has the names PEER."""
    async with own_principal() as principal:
        emit_blessings(principal.store.for_peer(peers), names, rootkey, caveats_of)


@get.command("publickey")
@click.option("--pretty", is_flag=True, help="The fingerprint instead of the key.")
@run_async
async def get_publickey(pretty: bool) -> None:
    """Print the public key."""
    async with own_principal() as principal:
        emit(principal.public_key.fingerprint if pretty else principal.public_key.text)


@get.command("recognizedroots")
@run_async
async def get_recognizedroots() -> None:
    """Print the roots that are recognized, one a line."""
    async with own_principal() as principal:
        emit(principal.roots.table())


@get.command("peermap")
@run_async
async def get_peermap() -> None:
    """Print which blessings are shown to which servers."""
    async with own_principal() as principal:
        emit("\n".join(principal.store.table().splitlines()[1:]))


@command.group("set")
def set_() -> None:
    """Choose which blessings the principal shows; 'nil' in place of FILE: none."""


with_roots = click.option(
    "--add-to-roots", type=bool, default=True, show_default=True, metavar="BOOL", help="Recognize their roots too."
)


@set_.command("default")
@with_roots
@click.argument("file")
@run_async
async def set_default(file: str, add_to_roots: bool) -> None:
    """Show the blessings in FILE as a server."""
    blessings = None if file == NOTHING else read_blessings(file)
    async with own_principal() as principal:
        await principal.set_default(blessings)
        if blessings is not None and add_to_roots:
            await principal.add_roots_of(blessings)


@set_.command("forpeer")
@with_roots
@click.argument("file")
@click.argument("pattern")
@run_async
async def set_forpeer(file: str, pattern: str, add_to_roots: bool) -> None:
    """Show the blessings in FILE to servers that match PATTERN."""
    peers = Pattern.parse(pattern)
    blessings = None if file == NOTHING else read_blessings(file)
    async with own_principal() as principal:
        await principal.set_for_peer(blessings, peers)
        if blessings is not None and add_to_roots:
            await principal.add_roots_of(blessings)


@command.command()
@click.argument("what", nargs=-1, required=True, metavar="PATTERN KEY | [PATTERN] FILE")
@run_async
async def recognize(what: tuple[str, ...]) -> None:
    """Recognize KEY as the root of names that match PATTERN, or the roots of the blessings in FILE."""
    *patterns, source = what
    if len(patterns) > 1:
        raise InputError("'recognize' takes a pattern and a key, or a file", hint="see 'principal recognize --help'")
    key = _key_or_none(source) if patterns else None
    async with own_principal() as principal:
        if key is not None:
            await principal.add_root(key, Pattern.parse(patterns[0]))
        elif patterns:
            for root in read_blessings(source).roots:
                await principal.add_root(root.public_key, Pattern.parse(patterns[0]))
        else:
            await principal.add_roots_of(read_blessings(source))


@command.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def union(files: tuple[str, ...]) -> None:
    """Print the blessings of all FILEs, which must be of one key, as one."""
    emit(Blessings.union(*map(read_blessings, files)).text)


def _to_extend(principal: Principal, source: str | None) -> Blessings:
    blessings = principal.store.default if source is None else read_blessings(source)
    if blessings is None:
        raise InputError(
            "the principal has no default blessings to extend", hint="name blessings of it with --with FILE"
        )
    return blessings


def _chain(blessings: Blessings, name: str) -> Chain:
    for chain in blessings.chains:
        if chain.name == name:
            return chain
    raise InputError(f"the blessings have no name '{name}'", hint=f"they have {', '.join(blessings.names)}")


def _key_or_none(text: str) -> PublicKey | None:
    try:
        return PublicKey.parse(text)
    except InputError:
        return None
