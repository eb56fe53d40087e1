"""The cluster agent: keeps the blessings of applications, and gives each replica that knows the secret its own."""

from vanadium_node.cluster_agent.server import Serving, run

__all__ = ["Serving", "run"]
