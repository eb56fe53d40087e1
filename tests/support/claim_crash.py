"""Make a claim over and over, each time in a process that dies before its N-th change of the file system.

`python claim_crash.py FOLDER` prints one JSON line per N: what the next process finds. N grows until a claim ends well.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from agent_parties import bless, new_root

from vanadium_node.claim import Ownership, open_ownership
from vanadium_node.security.access import Permissions

DIED = 77
CHANGES = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.chmod"})


async def claim(directory: Path) -> None:
    """Open the directory and claim it."""
    root = await new_root()
    ownership = await open_ownership(directory, [root.store.default] if root.store.default else [])
    await ownership.claim(await bless(root, ownership.principal, "agent"), Permissions.of(Admin=["root"]))


async def look(directory: Path) -> dict[str, object]:
    """Open the directory again, as the next start does; claim it if it is not."""
    found: Ownership = await open_ownership(directory, [])
    default = found.principal.store.default
    state = {"is_claimed": found.is_claimed, "names": default.names if default else (), "can_be_claimed": False}
    if not found.is_claimed:
        root = await new_root()
        await found.claim(await bless(root, found.principal, "agent"), Permissions.of(Admin=["root"]))
        state["can_be_claimed"] = (await open_ownership(directory, [])).is_claimed
    else:
        state["permissions"] = found.permissions.encode() if isinstance(found.permissions, Permissions) else ""
    return state


def die_at(number: int, directory: Path) -> None:
    """End this process just before its N-th change in the directory, and before its N-th flush."""
    left = [number]
    flush = os.fsync

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os._exit(DIED)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES and str(arguments[0]).startswith(str(directory)):
            count()

    def counted_flush(descriptor: Any) -> None:
        count()
        flush(descriptor)

    os.fsync = counted_flush  # type: ignore[assignment]
    sys.addaudithook(audit)


def in_child(work: Callable[[], None]) -> int:
    """Run something in a child process and return its exit status."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Try every N."""
    folder = Path(sys.argv[1])
    for number in range(1, 200):
        directory = folder / str(number)

        def work(number: int = number, directory: Path = directory) -> None:
            die_at(number, directory)
            trio.run(claim, directory)

        def tell(directory: Path = directory) -> None:
            print(json.dumps(trio.run(look, directory)), flush=True)

        status = in_child(work)
        if in_child(tell) != 0:
            sys.exit(f"after change {number} the directory cannot be opened")
        if status != DIED:
            return


if __name__ == "__main__":
    main()
