"""How a command line program runs one command: what went wrong in one sentence, and an exit status.

Exit status: 0 done; 1 failed, with the reason on standard error; 2 wrong usage; 130 interrupted with Ctrl-C.
"""

import sys

import click

from vanadium_node.cli.cores import forbid_cores
from vanadium_node.cli.output import INTERRUPTED, Interrupted, drop_output, single_error
from vanadium_node.errors import UsageError, VanadiumError


def run(command: click.Command, arguments: list[str], program: str) -> int:
    """Run `command` and return the exit status, with the reason of a failure on standard error.

    Most commands open a principal, so none leaves a core with a key in it. What it could have left is the context's object.
    """
    cores = forbid_cores()
    try:
        with single_error():
            result = command.main(arguments, prog_name=program, standalone_mode=False, obj=cores)
    except UsageError as error:
        return _failed(program, str(error), 2)
    except VanadiumError as error:
        return _failed(program, str(error), 1)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else program
        return _failed(program, f"{error.format_message().rstrip('.')}; '{where} --help' shows how it is used", 2)
    except click.ClickException as error:
        return _failed(program, error.format_message(), 1)
    except (click.Abort, Interrupted, KeyboardInterrupt):
        return _failed(program, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        drop_output()  # the reader left
        return 1
    return result if isinstance(result, int) else 0


def _failed(program: str, sentence: str, status: int) -> int:
    print(f"{program}: {sentence}", file=sys.stderr)  # noqa: T201 - the one place where failures are printed
    return status
