"""The pod agent: gets a replica's blessings with its secret, and serves the principal that has them to the pod's containers."""

from vanadium_node.pod_agent.server import run

__all__ = ["run"]
