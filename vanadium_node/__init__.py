"""Workload identity and delegated authority on Kubernetes: principals, blessings and authenticated RPC."""

__version__ = "0.1.0"
