"""The agent protocol: a principal served over a unix socket, and programs that act as it without ever seeing the key.

The server's side is `vanadium_node.agent.service`; it is not imported here, since most programs are clients.
"""

from vanadium_node.agent.identity import open_principal

__all__ = ["open_principal"]
