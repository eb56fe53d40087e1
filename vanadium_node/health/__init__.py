"""Health and metrics over HTTP, for kubelets, load balancers and Prometheus; on an address of its own, only where one is given."""

from vanadium_node.health.endpoint import Health, health_endpoint
from vanadium_node.health.patience import once_sound

__all__ = ["Health", "health_endpoint", "once_sound"]
