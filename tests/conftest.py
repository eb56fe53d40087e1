"""Fixtures for all tests: the Kubernetes APIs, each started once for the whole session by the first test that needs it."""

from kubernetes_fixtures import client, embedded_kubeconfig, kubeconfig, real_kubeconfig

__all__ = ["client", "embedded_kubeconfig", "kubeconfig", "real_kubeconfig"]
