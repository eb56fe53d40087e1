"""Cores: what the system writes down of a process that crashes. Those of processes with keys would hold the keys.

Two things keep them from it. A limit of nothing has no core written; but where a program takes the cores (`core_pattern` begins with
`|`), the kernel ignores the limit. So a process that holds keys for long also has none of its memory put into a core.
"""

import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NOTHING: Final = b"0"


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """What a process may leave behind: up to how many bytes, and which parts of its memory (core(5))."""

    limit: int
    parts: bytes

    @classmethod
    def current(cls) -> "CoreSettings":
        """Return this process's settings."""
        try:
            parts = _parts_of("self").read_bytes().strip()
        except OSError:  # not Linux, or no /proc here
            parts = b""
        return cls(resource.getrlimit(resource.RLIMIT_CORE)[0], b"0x" + parts if parts else b"")

    def give(self, pid: int) -> None:
        """Give a child process these settings in place of those that it has from this one."""
        with suppress(OSError, AttributeError):  # it has ended; not Linux
            hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.prlimit(pid, resource.RLIMIT_CORE, (self.limit, hard))
        if self.parts:
            with suppress(OSError):
                _parts_of(str(pid)).write_bytes(self.parts)


def forbid_cores() -> CoreSettings:
    """Have this process write no core; return its settings before. Its children may allow themselves one: the hard limit stays."""
    before = CoreSettings.current()
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    return before


def leave_no_core() -> None:
    """Have this process, and the children that are not given other settings, leave nothing behind, wherever cores go."""
    forbid_cores()
    with suppress(OSError):
        _parts_of("self").write_bytes(_NOTHING)


def _parts_of(process: str) -> Path:
    return Path("/proc", process, "coredump_filter")
