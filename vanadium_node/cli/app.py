"""The command tree. It knows the commands' names and one line about each, and imports a command only when it is called.

That keeps `vanadium-node --help` and every probe fast: nothing but click is imported to show help.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click

from vanadium_node import __version__
from vanadium_node.cli.output import EXIT_STATUS

COMPLETION_VARIABLE: Final = "_VANADIUM_NODE_COMPLETE"
"""What a shell that wants something completed sets (click's form of it)."""

ROLES: Final[Mapping[str, str]] = {
    "cluster-agent": "Keep the applications' blessings and give each replica its own.",
    "pod-agent": "Get a replica's blessings and serve them to the pod's containers.",
    "controller": "Start, update and stop applications on Kubernetes.",
    "discharger": "Say whether third-party caveats hold, so that blessings can be revoked within seconds.",
}
TOOLS: Final[Mapping[str, str]] = {
    "principal": "Create and inspect principals, blessings, roots and stores.",
    "agent": "Keep a principal's key in one process for all of its owner's programs.",
    "run": "Run a command as a fresh principal that the current one blessed.",
    "rpc": "Identify, describe and call servers.",
    "secret": "Make, list, use and forget secrets at a cluster agent.",
    "audit": "Check the audit log of a cluster agent.",
    "local": "Run the embedded cluster: a Kubernetes API for this machine, pods as processes.",
    "demo": "Run the whole walkthrough on the embedded cluster.",
    "completion": "Print what makes a shell complete commands and options.",
    "healthcheck": "Tell whether a pod agent serves an identity (for probes).",
}


def load(name: str) -> click.Command:
    """Import the module behind the command `name` and return its `command`."""
    if name == "pod-agent":
        from vanadium_node.cli.one_openssl import avoid_second_openssl  # before anything imports hashlib or ssl

        avoid_second_openssl()
    module = import_module(f"vanadium_node.cli.{name.replace('-', '_')}")
    command = module.command
    if not isinstance(command, click.Command):
        raise TypeError(f"vanadium_node.cli.{name} has no click command")
    return command


class CommandTree(click.Group):
    """A group whose commands are imported when they are called, and listed in two sections."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of the help."""
        return [*ROLES, *TOOLS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, imported now."""
        return load(cmd_name) if cmd_name in ROLES or cmd_name in TOOLS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the two sections of commands without importing any of them."""
        for title, commands in (("Roles", ROLES), ("Tools", TOOLS)):
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one there is."""
        name = args[0]
        if name not in ROLES and name not in TOOLS and not name.startswith("-"):
            from difflib import get_close_matches  # only on the way to an error

            near = get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"did you mean '{near[0]}'?" if near else "'vanadium-node --help' lists the commands"
            raise click.UsageError(f"There is no command '{name}'; {hint}")
        return super().resolve_command(ctx, args)


def choose_role(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    """Run the role given by --role or VANADIUM_ROLE as if it were the first argument."""
    if value is None or ctx.resilient_parsing:
        return
    if value not in ROLES:
        raise click.UsageError(f"There is no role '{value}'; the roles are {', '.join(ROLES)}")
    ctx.meta["role"] = value


@click.group(
    cls=CommandTree,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    epilog=EXIT_STATUS,
)
@click.version_option(__version__, prog_name="vanadium-node")
@click.option("--role", metavar="ROLE", envvar="VANADIUM_ROLE", callback=choose_role, expose_value=False, hidden=True)
@click.pass_context
def app(ctx: click.Context) -> None:
    """Workload identity and delegated authority on Kubernetes.

    Every replica of an application gets its own key and a readable name, such as root:shop:cart:10.64.0.4:54945;
    every call is authenticated both ways, and authority is delegated offline, with caveats.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def with_role(arguments: list[str], role: str | None) -> list[str]:
    """Return `arguments` with the role as the first one, where it is given by --role or the environment.

    `vanadium-node --role R …`, `VANADIUM_ROLE=R vanadium-node …` and `vanadium-node R …` are the same command. A command
    given as the first argument wins over the environment, so that probes in a role's container work.
    """
    if arguments[:1] == ["--role"] and len(arguments) > 1:
        return arguments[1:]
    if arguments and arguments[0].startswith("--role="):
        return [arguments[0].removeprefix("--role="), *arguments[1:]]
    if role and not (arguments and (arguments[0] in ROLES or arguments[0] in TOOLS or arguments[0] in _APP_OPTIONS)):
        return [role, *arguments]
    return arguments


_APP_OPTIONS: Final = ("-h", "--help", "--version")
