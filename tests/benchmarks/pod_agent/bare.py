"""What a pod agent is compared with: a process that has imported what it cannot do without, and listens on a unix socket."""

import socket
import sys

import trio
from cbor2 import loads as _loads  # noqa: F401 - it is the import that counts
from cryptography.hazmat.primitives.asymmetric import ec as _ec  # noqa: F401
from OpenSSL import SSL as _SSL  # noqa: F401


async def main(path: str) -> None:
    """Hold the socket until killed."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        await trio.sleep_forever()


trio.run(main, sys.argv[1])
