"""Prometheus metrics of servers and clients, in a registry that the caller owns.

    registry = CollectorRegistry()
    metrics = RpcMetrics(registry)
    async with serve(service, principal, observers=[metrics]) as server: ...
    generate_latest(registry)                    # what `GET /metrics` answers

One RpcMetrics serves any number of servers and connections of a program. Labels have values that this end chose: the names
of its own methods and error codes. A peer that makes names up is counted under the method `unknown`, and adds no label.
prometheus-client takes 1.5 MB of memory and 20 ms to import, so this module imports it only where metrics are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vanadium_node.rpc.observing import EndedCall, Handshake, Observer, RefusedCall

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

UNKNOWN: Final = "unknown"
LATENCY_BUCKETS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)
"""Upper bounds in seconds: a method that never waits takes 30 µs, and no caller waits more than 30 s by default."""


class RpcMetrics(Observer):
    """Counts what a server does.

    vanadium_rpc_calls_total{method, code}        calls that ran, by `ok` or error code
    vanadium_rpc_call_seconds{method}             how long they took (histogram)
    vanadium_rpc_refused_calls_total{method, code}    calls that did not run: no-access, bad-arg, unknown-method, overloaded …
    vanadium_rpc_connections                      open now, handshakes under way included
    vanadium_rpc_handshakes_total{outcome}        done, failed, left, timeout, overloaded
    vanadium_rpc_handshake_seconds                how long those took that were done (histogram)
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._calls = Counter(
            "vanadium_rpc_calls", "Calls that ran, by method and code.", ["method", "code"], registry=registry
        )
        self._seconds = Histogram(
            "vanadium_rpc_call_seconds",
            "Duration of calls, by method.",
            ["method"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._refused = Counter(
            "vanadium_rpc_refused_calls",
            "Calls that were refused before they ran, by method and code.",
            ["method", "code"],
            registry=registry,
        )
        self._connections = Gauge("vanadium_rpc_connections", "Open connections.", registry=registry)
        self._handshakes = Counter(
            "vanadium_rpc_handshakes", "Handshakes, by how they ended.", ["outcome"], registry=registry
        )
        self._handshake_seconds = Histogram(
            "vanadium_rpc_handshake_seconds",
            "Duration of handshakes that were done.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        for outcome in Handshake:
            self._handshakes.labels(outcome.value)

    def call_ended(self, ended: EndedCall) -> None:
        """Count a call that ran. Its method is one of this server's, which bounds the labels."""
        self._calls.labels(ended.call.method, ended.code).inc()
        self._seconds.labels(ended.call.method).observe(ended.seconds)

    def call_refused(self, refused: RefusedCall) -> None:
        """Count a call that did not run."""
        self._refused.labels(refused.method or UNKNOWN, refused.code.value).inc()

    def connection_opened(self) -> None:
        """Count a connection."""
        self._connections.inc()

    def connection_closed(self) -> None:
        """Count one less."""
        self._connections.dec()

    def handshake_ended(self, outcome: Handshake, seconds: float) -> None:
        """Count a handshake."""
        self._handshakes.labels(outcome.value).inc()
        if outcome is Handshake.DONE:
            self._handshake_seconds.observe(seconds)
