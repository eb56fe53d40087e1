"""`fortuned`, the example application: tells fortunes to whoever shares a name with it.

It takes its identity from the environment (a pod agent's socket, or a credentials directory) and holds no key itself.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import click

from vanadium_node.cli.output import emit
from vanadium_node.cli.running import run
from vanadium_node.rpc import Call, Service, Tag, method

if TYPE_CHECKING:
    import trio

MAX_FORTUNES: Final = 10_000
MAX_FORTUNE_CHARACTERS: Final = 1000

FORTUNES: Final = (
    "You will reach the height of success in whatever you do.",
    "You have remarkable power which you are not using.",
    "Everything will now come your way.",
)


class Fortune(Service):
    """Fortune is the interface to a fortune-telling service."""

    def __init__(self, fortunes: tuple[str, ...] = FORTUNES, choose: random.Random | None = None) -> None:
        self._fortunes = dict.fromkeys(fortunes)
        self._choose = choose or random.Random()  # noqa: S311 - fortunes are no secrets

    @method(tag=Tag.WRITE)
    def add(self, call: Call, fortune: str) -> None:
        """Adds a fortune to the set used by Get()."""
        from vanadium_node.errors import CallError, ErrorCode

        if not 0 < len(fortune) <= MAX_FORTUNE_CHARACTERS:
            raise CallError(ErrorCode.BAD_ARG, f"a fortune has 1 to {MAX_FORTUNE_CHARACTERS} characters")
        if fortune not in self._fortunes and len(self._fortunes) >= MAX_FORTUNES:
            raise CallError(ErrorCode.OVERLOADED, f"there are {MAX_FORTUNES} fortunes already, which is enough")
        self._fortunes[fortune] = None

    @method(tag=Tag.READ)
    def get(self, call: Call) -> Annotated[str, "fortune"]:
        """Returns a random fortune."""
        return self._choose.choice(tuple(self._fortunes))

    @method(tag=Tag.READ)
    def has(self, call: Call, fortune: str) -> bool:
        """Returns whether or not a fortune exists."""
        return fortune in self._fortunes


@click.command()
@click.option("--v23.tcp.address", "--listen", "listen", default=":0", show_default=True, metavar="HOST:PORT")
@click.option("--v23.credentials", "--credentials", "credentials", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--v23.permissions.literal", "literal", metavar="JSON", help="Who may do what, by the methods' tags.")
@click.option(
    "--v23.permissions.file", "--permissions", "file", type=click.Path(path_type=Path), help="The same, in a file."
)
def command(listen: str, credentials: Path | None, literal: str | None, file: Path | None) -> None:
    """Tell fortunes, to callers of whom one name extends one of this program's, or the other way round."""
    from vanadium_node.cli.daemon import run_daemon

    run_daemon(lambda stop: serve_fortunes(listen, credentials, literal, file, stop))


async def serve_fortunes(
    listen: str, credentials: Path | None, literal: str | None, file: Path | None, stop: trio.Event
) -> None:
    """Serve until `stop` is set, and let running calls finish then."""
    import trio

    from vanadium_node.agent import open_principal
    from vanadium_node.rpc import serve
    from vanadium_node.security.access import Permissions
    from vanadium_node.security.authorization import default_authorizer, permissions_authorizer
    from vanadium_node.storage.permission_files import PermissionsFile

    if file is not None:
        authorizer = permissions_authorizer(PermissionsFile(file).checked())
    else:
        authorizer = default_authorizer if literal is None else permissions_authorizer(Permissions.parse(literal))
    serving = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_give_up_when_stopped, stop, serving, nursery.cancel_scope)
        async with (
            open_principal(credentials=credentials) as principal,
            serve(Fortune(), principal, listen=[listen], authorizer=authorizer) as server,
        ):
            emit(f"NAME=/{server.addresses[0]}")
            serving.set()
            await stop.wait()


async def _give_up_when_stopped(stop: trio.Event, serving: trio.Event, scope: trio.CancelScope) -> None:
    """End a program that is stopped while it still waits for its agent; one that serves ends by itself."""
    await stop.wait()
    if not serving.is_set():
        scope.cancel()


def main() -> None:
    """Run `fortuned` as a program."""
    sys.exit(run(command, sys.argv[1:], "fortuned"))
