"""The agent protocol: a principal served over a unix socket, and programs that act as it without ever seeing the key."""

from vanadium_node.agent.identity import open_principal
from vanadium_node.agent.service import AgentService

__all__ = ["AgentService", "open_principal"]
