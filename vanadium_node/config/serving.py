"""The settings that all daemons have: what they log, and how much of a server their peers may take."""
# ruff: noqa: RUF009 - setting() is dataclasses.field() with more to say

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from vanadium_node.config import values
from vanadium_node.config.duration import format_duration
from vanadium_node.config.loading import setting


class LogFormat(StrEnum):
    """What a log line looks like."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """What is logged: this and what is worse."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """Settings of every daemon. The limits' defaults are those of `wire.limits`, where the attacks behind them are named."""

    log_format: LogFormat = setting(
        values.one_of(LogFormat),
        flags=["--log-format"],
        environment="LOG_FORMAT",
        default=LogFormat.TEXT,
        help="Log lines for people (text) or one JSON object a line (json).",
    )
    log_level: LogLevel = setting(
        values.one_of(LogLevel),
        flags=["--log-level"],
        environment="LOG_LEVEL",
        default=LogLevel.INFO,
        help="What is logged: debug (a line for each call), info (refusals too), warning or error.",
    )
    health_listen: str | None = setting(
        values.address_or_socket,
        flags=["--health-listen"],
        environment="HEALTH_LISTEN",
        default=None,
        help="Where to answer GET /livez, /readyz and /metrics over HTTP: HOST:PORT, :PORT or unix:/PATH; by default nowhere.",
    )
    handshake_timeout: timedelta = setting(
        values.positive_duration,
        flags=["--handshake-timeout"],
        environment="HANDSHAKE_TIMEOUT",
        default=timedelta(seconds=10),
        render=format_duration,
        help="How long a new connection may take to show who it is; then it is closed.",
    )
    idle_timeout: timedelta = setting(
        values.positive_duration,
        flags=["--idle-timeout"],
        environment="IDLE_TIMEOUT",
        default=timedelta(minutes=5),
        render=format_duration,
        help="How long a peer may be silent before it is pinged; after as long again it is cut off.",
    )
    max_connections: int = setting(
        values.positive,
        flags=["--max-connections"],
        environment="MAX_CONNECTIONS",
        default=4096,
        help="How many connections there are at most; the idlest one of the peer with the most makes room for a new one.",
    )
    max_connections_per_peer: int = setting(
        values.positive,
        flags=["--max-connections-per-peer"],
        environment="MAX_CONNECTIONS_PER_PEER",
        default=1024,
        help="How many connections one key or local user may have, and never more than three quarters of all; its idle ones make room.",
    )
    max_unauthenticated: int = setting(
        values.positive,
        flags=["--max-unauthenticated"],
        environment="MAX_UNAUTHENTICATED",
        default=512,
        help="How many connections may be in their handshake at once; others wait, and silent ones make room for them.",
    )
    max_waiting: int = setting(
        values.positive,
        flags=["--max-waiting"],
        environment="MAX_WAITING",
        default=16384,
        help="How many connections may wait for that; of more, the one that has been silent longest is closed.",
    )
    max_calls_per_connection: int = setting(
        values.positive,
        flags=["--max-calls-per-connection"],
        environment="MAX_CALLS_PER_CONNECTION",
        default=1024,
        help="How many calls one connection may have running; others are told to come again.",
    )
    max_calls_per_peer: int = setting(
        values.positive,
        flags=["--max-calls-per-peer"],
        environment="MAX_CALLS_PER_PEER",
        default=4096,
        help="How many calls one key or local user may have running, on all its connections together.",
    )
    max_frame_size: int = setting(
        values.frame_size,
        flags=["--max-frame-size"],
        environment="MAX_FRAME_SIZE",
        default=1 << 20,
        render=values.render_size,
        help="How large one message of a peer may be, from 64KiB; a larger one ends its connection.",
    )
    max_queued_size: int = setting(
        values.positive_size,
        flags=["--max-queued-size"],
        environment="MAX_QUEUED_SIZE",
        default=4 << 20,
        render=values.render_size,
        help="How many bytes may wait for a peer that does not read; until it does, nothing more is read from it.",
    )
