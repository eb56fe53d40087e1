"""Changes a credentials directory many times, and says so after each time: `roots_writer.py DIRECTORY WRITER TIMES`."""

import sys
from pathlib import Path

import trio

from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.pattern import Pattern
from vanadium_node.storage.credentials import CredentialsDirectory


async def main(directory: Path, writer: str, times: int) -> None:
    """Recognize one root after the other."""
    principal = CredentialsDirectory(directory).open()
    for number in range(times):
        await principal.add_root(PrivateKey.generate().public_key, Pattern.parse(f"w{writer}-{number}"))
        print(number, flush=True)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
