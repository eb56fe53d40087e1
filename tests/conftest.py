"""Fixtures for all tests: the Kubernetes APIs, each started once for the whole session by the first test that needs it."""

from hypothesis import HealthCheck, settings
from kubernetes_fixtures import client, embedded_kubeconfig, kubeconfig, real_kubeconfig

pytest_plugins = ["taint_plugin"]

__all__ = ["client", "embedded_kubeconfig", "kubeconfig", "real_kubeconfig"]

# How fast a machine is says nothing about the code: neither an example's time nor its making may fail a test.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")
