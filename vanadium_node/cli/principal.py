"""`vanadium-node principal`: make principals, bless others, and look at what a principal holds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vanadium_node.cli.asking import ask_new_passphrase
from vanadium_node.cli.output import emit, note, run_async
from vanadium_node.cli.principal_caveats import CAVEATS, TEMPLATES, caveats_from, confirmed
from vanadium_node.cli.principal_input import (
    default_name,
    own_principal,
    read_blessings,
    read_key,
)
from vanadium_node.cli.principal_views import dump, dumpblessings, dumproots, explain, get
from vanadium_node.errors import InputError, UsageError
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat
from vanadium_node.security.keys import KeyType, PrivateKey, PublicKey
from vanadium_node.security.pattern import ALL, Pattern
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
    """Add the options that say under which caveats to bless; the command gets them as `caveats`."""

    @functools.wraps(function)
    def command(
        *args: object, lifetime: str | None, texts: tuple[str, ...], templates: tuple[str, ...], **kwargs: object
    ) -> object:
        return function(*args, caveats=caveats_from(lifetime, texts, templates), **kwargs)

    wrapped: Callable[..., object] = command
    for option in (
        click.option("--for", "lifetime", metavar="DURATION", help="Expire after this long: 90s, 10m, 24h, 7d."),
        click.option("--template", "templates", multiple=True, metavar="TEMPLATE", help=f"One of {TEMPLATES}."),
        click.option("--caveat", "texts", multiple=True, metavar="CAVEAT", help=f"One of {CAVEATS}."),
    ):
        wrapped = option(wrapped)
    return wrapped


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


def _free(directory: Path, *, overwrite: bool) -> CredentialsDirectory:
    """Return a directory where a principal may be made, before anybody is asked for a passphrase."""
    place = CredentialsDirectory(directory)
    place.refuse_to_replace(overwrite=overwrite)
    return place


@command.command()
@with_key_type
@with_passphrase
@with_overwrite
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@run_async
async def create(directory: Path, name: str | None, key_type: str, with_passphrase: bool, overwrite: bool) -> None:
    """Create a principal in DIRECTORY that blesses itself as NAME."""
    place = _free(directory, overwrite=overwrite)
    passphrase = ask_new_passphrase() if with_passphrase else None
    key = PrivateKey.generate(KeyType(key_type))
    await place.create(key, default_name() if name is None else name, passphrase=passphrase, overwrite=overwrite)


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
    caveats: list[Caveat],
    source: str | None,
    require_caveats: bool,
) -> None:
    """Create a principal in DIRECTORY, blessed by the current one with EXTENSION."""
    place = _free(directory, overwrite=overwrite)
    caveats = confirmed(caveats, require_caveats)
    passphrase = ask_new_passphrase() if with_passphrase else None
    key = PrivateKey.generate(KeyType(key_type))
    async with own_principal() as principal:
        blessings = await principal.bless(key.public_key, to_extend(principal, source), extension, caveats)
        child = await Principal.create(key, "child")
        await child.adopt(blessings)
        await place.keep(
            key, child.store, principal.roots.with_roots_of(blessings), passphrase=passphrase, overwrite=overwrite
        )


@command.command()
@with_caveats
@with_source
@with_requirement
@click.option("--remote-key", metavar="KEY", help="The receiver's key, as 'recvblessings' printed it.")
@click.option("--remote-token", metavar="TOKEN", help="The token that 'recvblessings' printed.")
@click.option("--remote-arg-file", type=click.Path(path_type=Path), metavar="FILE", help="What it wrote instead.")
@click.argument("words", nargs=-1, required=True, metavar="[WHO] EXTENSION")
@run_async
async def bless(
    words: tuple[str, ...],
    caveats: list[Caveat],
    source: str | None,
    require_caveats: bool,
    remote_key: str | None,
    remote_token: str | None,
    remote_arg_file: Path | None,
) -> None:
    """Bless WHO with EXTENSION and print the blessings, or send them to whoever runs 'recvblessings'.

    WHO is a credentials directory, a file or '-' that holds a public key or blessings, or with --remote-key the name that
    'recvblessings' printed.
    """
    who, extension = _who_and_extension(words)
    if remote_key is not None or remote_token is not None or remote_arg_file is not None:
        from vanadium_node.cli.principal_remote import receiver_from, send  # the whole RPC

        receiver = receiver_from(who, remote_key, remote_token, remote_arg_file)
        caveats = confirmed(caveats, require_caveats)
        async with own_principal() as principal:
            sent = await send(principal, receiver, to_extend(principal, source), extension, caveats)
        note(f"Sent to {receiver.name}: {sent}")
        return
    if who is None:
        raise UsageError("there is nobody to bless", hint="'vanadium-node principal bless WHO EXTENSION'")
    key = read_key(who)
    caveats = confirmed(caveats, require_caveats)
    async with own_principal() as principal:
        blessings = await principal.bless(key, to_extend(principal, source), extension, caveats)
    emit(blessings.text)


@command.command()
@click.option("--for-peer", metavar="PATTERN", default=ALL, show_default=True, help="Show them to these servers.")
@click.option(
    "--set-default", type=bool, default=True, show_default=True, metavar="BOOL", help="Show them as a server."
)
@click.option(
    "--remote-arg-file", type=click.Path(path_type=Path), metavar="FILE", help="Write key, token and name there."
)
@click.option("--v23.tcp.address", "--listen", "listen", default=":0", show_default=True, metavar="HOST:PORT")
@run_async
async def recvblessings(for_peer: str, set_default: bool, remote_arg_file: Path | None, listen: str) -> None:
    """Listen for blessings, print the command that sends them, and keep what comes.

    The roots of what is received are recognized from then on. --for-peer '' shows them to no server.
    """
    from vanadium_node.cli.principal_remote import receive  # the whole RPC

    await receive(for_peer, set_default, remote_arg_file, listen)


@command.command()
@with_caveats
@click.argument("name", required=False)
@run_async
async def blessself(name: str | None, caveats: list[Caveat]) -> None:
    """Print blessings rooted at the principal itself."""
    async with own_principal() as principal:
        blessings = await principal.bless_self(name or default_name(), caveats)
    emit(blessings.text)


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
        if blessings is not None and add_to_roots:
            await principal.adopt(blessings, peers=None)
        else:
            await principal.set_default(blessings)


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
        if blessings is not None and add_to_roots:
            await principal.adopt(blessings, peers=peers, is_default=False)
        else:
            await principal.set_for_peer(blessings, peers)


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


for each in (dump, dumpblessings, dumproots, explain, get):
    command.add_command(each)


def _who_and_extension(words: tuple[str, ...]) -> tuple[str | None, str]:
    match words:
        case [extension]:
            return None, extension
        case [who, extension]:
            return who, extension
        case _:
            raise UsageError("'bless' takes WHO and EXTENSION", hint="see 'vanadium-node principal bless --help'")


def to_extend(principal: Principal, source: str | None) -> Blessings:
    """Return the blessings that `--with` names, or the principal's default ones."""
    blessings = principal.store.default if source is None else read_blessings(source)
    if blessings is None:
        raise InputError(
            "the principal has no default blessings to extend", hint="name blessings of it with --with FILE"
        )
    return blessings


def _key_or_none(text: str) -> PublicKey | None:
    try:
        return PublicKey.parse(text)
    except InputError:
        return None
