"""The pages of the health endpoint: pure functions of how the daemon is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vanadium_node.rpc.metrics import RpcMetrics

if TYPE_CHECKING:
    from vanadium_node.health.endpoint import Health

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: HTTP status, content type and content."""

    status: int
    content_type: str
    content: bytes


class Pages:
    """Answers by path."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._registry = CollectorRegistry()
        self.rpc = RpcMetrics(self._registry)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(_Gauges(health))

    def page(self, path: str) -> Page:
        """Return the page at a path, its query left out."""
        match path.partition("?")[0]:
            case "/livez":
                return Page(200, TEXT, b"ok\n")
            case "/readyz":
                reasons = self._health.not_ready()
                lines = reasons or ("ok", *self._health.worries())
                return Page(503 if reasons else 200, TEXT, "".join(f"{line}\n" for line in lines).encode())
            case "/metrics":
                return Page(200, CONTENT_TYPE_LATEST, generate_latest(self._registry))
            case _:
                return Page(404, TEXT, b"there are /livez, /readyz and /metrics\n")


class _Gauges(Collector):
    """Asks for the values when they are wanted."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[GaugeMetricFamily]:
        is_ready = 0 if self._health.not_ready() else 1
        yield GaugeMetricFamily("vanadium_ready", "1 while the daemon is ready.", value=is_ready)
        for name, (what, value) in self._health.gauges.items():
            yield GaugeMetricFamily(name, what, value=value())
