"""`vanadium-node secret`: make, use and forget secrets at a cluster agent."""

import base64
import sys
from pathlib import Path

import click

from vanadium_node.agent import open_principal
from vanadium_node.cli.output import emit, emit_json, run_async
from vanadium_node.controller.identity import own_blessings
from vanadium_node.errors import InputError
from vanadium_node.rpc import connect
from vanadium_node.secret_store import KnownSecret
from vanadium_node.secret_store.store import MAX_SECRET_CHARACTERS
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.caveat import Caveat


@click.group()
@click.option(
    "--agent", required=True, envvar="AGENT_NAME", metavar="NAME", help="The cluster agent: /(PATTERN)@HOST:PORT."
)
@click.option("--v23.credentials", "--credentials", "credentials", type=click.Path(path_type=Path), metavar="DIR")
@click.pass_context
def command(context: click.Context, agent: str, credentials: Path | None) -> None:
    """Make, use and forget secrets at a cluster agent.

    A SECRET stands for blessings that the cluster agent keeps; '-' reads it from standard input, so that it is in no
    argument list.
    """
    context.obj = (agent, credentials)


@command.command()
@click.argument("extension")
@click.option("--base64", "is_base64", is_flag=True, help="Print it as the data of a Kubernetes Secret.")
@click.pass_obj
@run_async
async def new(target: tuple[str, Path | None], extension: str, is_base64: bool) -> None:
    """Make a secret for the caller's default blessings, extended by EXTENSION, and print it."""
    agent, credentials = target
    async with open_principal(credentials=credentials) as principal, connect(agent, principal) as client:
        key = client.server.public_key
        if key is None:
            raise InputError(f"'{agent}' is no cluster agent: it showed no key", hint="name it like /HOST:PORT")
        granted = await principal.bless(key, own_blessings(principal), extension, [Caveat.unconstrained()])
        secret: str = await client.call("NewSecret", returns=str, granted=granted)
    emit(base64.b64encode(secret.encode()).decode() if is_base64 else secret)


@command.command()
@click.argument("secret")
@click.pass_obj
@run_async
async def forget(target: tuple[str, Path | None], secret: str) -> None:
    """Make SECRET worthless; replicas that have their blessings already keep them."""
    agent, credentials = target
    known = _secret(secret)
    async with open_principal(credentials=credentials) as principal, connect(agent, principal) as client:
        await client.call("ForgetSecret", known, returns=type(None))


@command.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print all that is known, as JSON.")
@click.pass_obj
@run_async
async def list_secrets(target: tuple[str, Path | None], is_json: bool) -> None:
    """Print what each secret stands for, and who made it when; the secrets themselves nobody knows."""
    agent, credentials = target
    async with (
        open_principal(credentials=credentials) as principal,
        connect(agent, principal) as client,
        client.stream("ListSecrets", returns=KnownSecret, result=None) as stream,
    ):
        found = [known async for known in stream]
    found.sort(key=lambda known: (known.names, known.created))
    if is_json:
        emit_json([to_json(known) for known in found])
        return
    for known in found:
        made = f"made {known.created:%Y-%m-%d %H:%M:%S} by {known.created_by}"
        used = (
            "never used"
            if known.last_used is None
            else f"used {known.uses} times, last {known.last_used:%Y-%m-%d %H:%M:%S}"
        )
        emit(f"{', '.join(known.names)}: {made}, {used}")


def to_json(known: KnownSecret) -> dict[str, object]:
    """Return a secret's record for machines; times are in ISO 8601."""
    values = {name: getattr(known, name) for name in ("created", "expires", "last_used", "replicas_until")}
    times = {name: None if time is None else time.isoformat() for name, time in values.items()}
    return {
        "key": known.key.hex(),
        "names": list(known.names),
        "createdBy": known.created_by,
        "created": times["created"],
        "expires": times["expires"],
        "uses": known.uses,
        "lastUsed": times["last_used"],
        "replicasUntil": times["replicas_until"],
    }


@command.command()
@click.argument("secret")
@click.pass_obj
@run_async
async def seekblessings(target: tuple[str, Path | None], secret: str) -> None:
    """Print the blessings behind SECRET, extended to the caller's key."""
    agent, credentials = target
    known = _secret(secret)
    async with open_principal(credentials=credentials) as principal, connect(agent, principal) as client:
        blessings: Blessings = await client.call("SeekBlessings", known, returns=Blessings)
    emit(blessings.text)


def _secret(given: str) -> str:
    """Return the secret, read from standard input for `-`."""
    secret = sys.stdin.read(MAX_SECRET_CHARACTERS + 2).strip() if given == "-" else given.strip()
    if not secret:
        raise InputError("the secret is empty", hint="give what 'secret new' printed")
    return secret
