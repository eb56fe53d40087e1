"""Frozen settings of the daemons: flags over environment over file over defaults; unknown keys are refused.

Nothing here opens a socket, reads a key or knows a command line library: text goes in, typed values come out.
"""

from vanadium_node.config.duration import format_duration, parse_duration
from vanadium_node.config.loading import Setting, load, load_with_sources, settings_of, to_toml
from vanadium_node.config.roles import ClusterAgentSettings, DischargerSettings, PodAgentSettings
from vanadium_node.config.serving import DaemonSettings, LogFormat, LogLevel

__all__ = [
    "ClusterAgentSettings",
    "DaemonSettings",
    "DischargerSettings",
    "LogFormat",
    "LogLevel",
    "PodAgentSettings",
    "Setting",
    "format_duration",
    "load",
    "load_with_sources",
    "parse_duration",
    "settings_of",
    "to_toml",
]
