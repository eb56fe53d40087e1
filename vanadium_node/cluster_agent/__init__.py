"""The cluster agent: keeps the blessings of applications, and gives each replica that knows the secret its own."""

from vanadium_node.cluster_agent.server import Settings, run

__all__ = ["Settings", "run"]
