"""Getting blessings for a key from the cluster agent: one attempt, all of it checked."""

import stat
from collections.abc import Callable
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Final

from vanadium_node.agent.validity import validate_own
from vanadium_node.errors import NotTrustedError, StorageError
from vanadium_node.pod_agent.clock import ClusterClock, explained
from vanadium_node.rpc import connect
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.principal import Principal
from vanadium_node.storage.files import explained as failing_as
from vanadium_node.storage.files import read_limited

MAX_SECRET_FILE_BYTES: Final = 4096


async def seek_blessings(
    agent: str,
    secret_file: Path,
    principal: Principal,
    now: Callable[[], datetime],
    clock: ClusterClock | None = None,
) -> Blessings:
    """Return blessings for the principal's key from the cluster agent of that name.

    Until it has some, the principal shows none; its key is proved by the connection all the same. What comes back is taken
    only if it is bound to this key and has at least one name that is good under the principal's roots now. The secret counts, not
    what the principal shows: no discharger is asked, so that none keeps a replica from its blessings. What `clock` knows of
    the cluster agent's time is made new on the way, and named in errors that come of it.

    Raises:
        StorageError: the secret's file cannot be read, or is empty.
        NotTrustedError: the cluster agent is not who it should be, or what it gave is of no use.
        VanadiumError: it is not there, or refused.
    """
    secret = read_secret(secret_file)
    clock = ClusterClock(now) if clock is None else clock
    try:
        async with connect(agent, principal, now=now, timeout=inf, with_discharges=False) as client:
            blessings: Blessings = await client.call("SeekBlessings", secret, returns=Blessings, timeout=None)
            offset = await clock.ask(client)
    except NotTrustedError as error:
        raise explained(error, await clock.ask_distrusted(agent, principal.roots)) from error.__cause__
    if blessings.public_key != principal.public_key:
        raise NotTrustedError(
            f"the cluster agent gave {blessings}, bound to another key than asked for", hint="is it a cluster agent?"
        )
    found = validate_own(blessings, principal.roots, now())
    if not found.accepted:
        useless = NotTrustedError(
            f"the blessings that the cluster agent gave are of no use here: {'; '.join(map(str, found.rejected))}",
            hint="check ROOT_BLESSINGS, the expiry of the blessings the application was started with, and the clocks",
        )
        raise explained(useless, offset)
    return blessings


def read_secret(file: Path) -> str:
    """Return the secret kept in a file.

    Raises:
        StorageError: it cannot be read, is empty, or is no text; or it is a pipe, which would be waited for.
    """
    with failing_as("read", file):
        is_pipe = stat.S_ISFIFO(file.stat().st_mode)
    if is_pipe:
        raise StorageError(
            f"'{file}' is a pipe, and the secret is read again at each renewal", hint="name a file that holds it"
        )
    data = read_limited(file, max_bytes=MAX_SECRET_FILE_BYTES)
    try:
        secret = data.decode("ascii").strip()
    except UnicodeDecodeError:
        secret = ""
    if not secret:
        raise StorageError(f"the file '{file}' holds no secret", hint="is the application's Secret mounted there?")
    return secret
