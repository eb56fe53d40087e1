"""`vanadium-node secret`: make, list, use and forget secrets at a cluster agent."""

import base64
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click

from vanadium_node.agent import open_principal
from vanadium_node.cli.asking import ask_passphrase
from vanadium_node.cli.controller_options import Duration
from vanadium_node.cli.output import console, emit, emit_json, is_terminal, note, run_async
from vanadium_node.cli.secret_text import describe, order, table, to_json
from vanadium_node.controller.identity import own_blessings
from vanadium_node.errors import InputError
from vanadium_node.rpc import connect
from vanadium_node.secret_store import KnownSecret
from vanadium_node.secret_store.store import MAX_SECRET_CHARACTERS
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster agent is meant, and who asks it."""

    given: str | None
    credentials: Path | None

    @property
    def agent(self) -> str:
        """The agent's name. Only who asks it needs one: not who reads a command's help."""
        if not self.given:
            raise click.UsageError("Missing option '--agent'.")
        return self.given


@click.group()
@click.option(
    "--agent", envvar="AGENT_NAME", metavar="NAME", help="The cluster agent: /(PATTERN)@HOST:PORT.  [required]"
)
@click.option("--v23.credentials", "--credentials", "credentials", type=click.Path(path_type=Path), metavar="DIR")
@click.pass_context
def command(context: click.Context, agent: str | None, credentials: Path | None) -> None:
    """Make, list, use and forget secrets at a cluster agent.

    A SECRET stands for blessings that the cluster agent keeps; '-' reads it from standard input, so that it is in no
    argument list.
    """
    context.obj = Target(agent, credentials)


@command.command()
@click.argument("extension")
@click.option("--base64", "is_base64", is_flag=True, help="Print it as the data of a Kubernetes Secret.")
@click.option(
    "--ttl",
    type=Duration(),
    metavar="DURATION",
    help="How long what a replica gets is valid; else as long as the agent lets it.",
)
@click.pass_obj
@run_async
async def new(target: Target, extension: str, is_base64: bool, ttl: timedelta | None) -> None:
    """Make a secret for the caller's default blessings, extended by EXTENSION, and print it."""
    seconds = 0 if ttl is None else int(ttl.total_seconds())
    if ttl is not None and seconds < 1:
        raise click.UsageError("--ttl must be a second at least.")
    agent, credentials = target.agent, target.credentials
    async with (
        open_principal(credentials=credentials, passphrase=ask_passphrase) as principal,
        connect(agent, principal) as client,
    ):
        key = client.server.public_key
        if key is None:
            raise InputError(f"'{agent}' is no cluster agent: it showed no key", hint="name it like /HOST:PORT")
        granted = await principal.bless(key, own_blessings(principal), extension, [Caveat.unconstrained()])
        secret: str = await client.call("NewSecret", seconds, returns=str, granted=granted)
    emit(base64.b64encode(secret.encode()).decode() if is_base64 else secret)


@command.command()
@click.argument("secret", required=False)
@click.option("--name", metavar="NAME", help="Forget the secrets that stand for blessings of exactly this name.")
@click.option(
    "--older-than",
    type=Duration(),
    metavar="DURATION",
    help="Forget those neither made nor used for so long, such as 30d. Running replicas use theirs at each renewal.",
)
@click.option("--damaged", is_flag=True, help="Forget those whose record is damaged: they give nothing any more.")
@click.option("--dry-run", is_flag=True, help="Only say which they are.")
@click.pass_obj
@run_async
async def forget(
    target: Target,
    secret: str | None,
    name: str | None,
    older_than: timedelta | None,
    damaged: bool,
    dry_run: bool,
) -> None:
    """Make SECRET worthless, or those that meet all criteria given; replicas that have their blessings already keep them."""
    has_criteria = name is not None or older_than is not None or damaged
    if (secret is None) != has_criteria or (secret is not None and dry_run):
        raise click.UsageError("Give a SECRET, or at least one of --name, --older-than and --damaged.")
    agent, credentials = target.agent, target.credentials
    known = None if secret is None else _secret(secret)
    idle_seconds = None if older_than is None else int(older_than.total_seconds())
    async with (
        open_principal(credentials=credentials, passphrase=ask_passphrase) as principal,
        connect(agent, principal) as client,
    ):
        if known is not None:
            await client.call("ForgetSecret", known, returns=type(None))
            return
        criteria = (name, idle_seconds, damaged or None, dry_run)
        async with client.stream("ForgetSecrets", *criteria, returns=KnownSecret, result=None) as stream:
            found = [one async for one in stream]
    for one in sorted(found, key=order):
        emit(describe(one))
    note(f"{len(found)} {'found' if dry_run else 'forgotten'}.")


@command.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print all that is known, as JSON.")
@click.pass_obj
@run_async
async def list_secrets(target: Target, is_json: bool) -> None:
    """Print what each secret stands for, and who made it when; the secrets themselves nobody knows."""
    agent, credentials = target.agent, target.credentials
    async with (
        open_principal(credentials=credentials, passphrase=ask_passphrase) as principal,
        connect(agent, principal) as client,
        client.stream("ListSecrets", returns=KnownSecret, result=None) as stream,
    ):
        found = sorted([known async for known in stream], key=order)
    if is_json:
        emit_json([to_json(known) for known in found])
    elif is_terminal():
        console().print(table(found))
    else:
        for known in found:
            emit(describe(known))


@command.command()
@click.argument("secret")
@click.pass_obj
@run_async
async def seekblessings(target: Target, secret: str) -> None:
    """Print the blessings behind SECRET, extended to the caller's key."""
    agent, credentials = target.agent, target.credentials
    known = _secret(secret)
    async with (
        open_principal(credentials=credentials, passphrase=ask_passphrase) as principal,
        connect(agent, principal) as client,
    ):
        blessings: Blessings = await client.call("SeekBlessings", known, returns=Blessings)
    emit(blessings.text)


def _secret(given: str) -> str:
    """Return the secret, read from standard input for `-`."""
    secret = sys.stdin.read(MAX_SECRET_CHARACTERS + 2).strip() if given == "-" else given.strip()
    if not secret:
        raise InputError("the secret is empty", hint="give what 'secret new' printed")
    return secret
