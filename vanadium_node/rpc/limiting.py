"""The limits of a server as a daemon's settings say, and what each peer takes of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Final
from weakref import WeakValueDictionary

from vanadium_node.config.serving import DaemonSettings
from vanadium_node.wire.limits import DEFAULT_LIMITS, Limits


def limits_of(settings: DaemonSettings) -> Limits:
    """Return the limits that a daemon was given."""
    return replace(
        DEFAULT_LIMITS,
        max_frame_bytes=settings.max_frame_size,
        max_auth_bytes=min(DEFAULT_LIMITS.max_auth_bytes, settings.max_frame_size),
        max_streams=settings.max_calls_per_connection,
        max_calls_per_peer=settings.max_calls_per_peer,
        max_queued_bytes=settings.max_queued_size,
        handshake_timeout=settings.handshake_timeout,
        idle_timeout=settings.idle_timeout,
        max_connections=settings.max_connections,
        max_connections_per_peer=settings.max_connections_per_peer,
        max_unauthenticated=settings.max_unauthenticated,
        max_waiting=settings.max_waiting,
    )


MAX_AUTHS: Final = 8
AUTH_SECONDS: Final = 1.0
"""A peer may show itself so many times, and once more for each of these: verifying chains is the costliest thing to ask for."""


class AuthPace:
    """How often the peer of one connection has shown itself since `since`, by trio's clock."""

    __slots__ = ("_auths", "_since")

    def __init__(self, since: float) -> None:
        self._since = since
        self._auths = 0

    def is_too_often(self, now: float) -> bool:
        """Count once more, and tell whether that is too often."""
        self._auths += 1
        return self._auths > MAX_AUTHS + (now - self._since) / AUTH_SECONDS


class PeerLoad:
    """What one peer takes of a server: its open connections, and the calls that run on them."""

    __slots__ = ("__weakref__", "calls", "connections")

    def __init__(self) -> None:
        self.calls = 0
        self.connections = 0


class PeerLoads:
    """One counter for each peer that is connected or has a call running; others are forgotten."""

    def __init__(self) -> None:
        self._counters: WeakValueDictionary[Hashable, PeerLoad] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._counters)

    def of(self, peer: Hashable) -> PeerLoad:
        """Return the counter of a peer: its public key, or the system's number for its user."""
        counter = self._counters.get(peer)
        if counter is None:
            counter = self._counters[peer] = PeerLoad()
        return counter
