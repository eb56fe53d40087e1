"""Whether a server's memory stays flat: what it holds after many connections, beside what it held after the first."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import own
import trio
from identities import CLIENT, own_principal

CONNECTIONS = 10_000
AT_ONCE = 16
MAX_GROWTH = 1.05
TITLE = f"server memory, {CONNECTIONS:,} connections, {AT_ONCE} at once"


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Resident memory of a server, in KiB."""

    after_first: int
    after_all: int

    @property
    def factor(self) -> float:
        """How many times as much it holds in the end."""
        return self.after_all / self.after_first

    @property
    def is_kept(self) -> bool:
        """Whether that is within what is promised."""
        return self.factor <= MAX_GROWTH

    def __str__(self) -> str:
        """Return the row of the table."""
        promise = f"at most {MAX_GROWTH:g} times wanted: {'yes' if self.is_kept else 'NO'}"
        figures = f"{self.after_first} KiB after the first, {self.after_all} KiB after all"
        return f"\n{TITLE}\n  {figures}: {self.factor:.3f} times as much, {promise}"


def measure_growth(pid: int, port: int, folder: Path, connections: int = CONNECTIONS) -> Growth:
    """Open a connection, make a call, close it: once, then over and over."""

    async def main() -> Growth:
        principal = own_principal(folder, CLIENT)
        await own.call_once(principal, port)
        after_first = resident(pid)
        rest = iter(repeat(None, connections))

        async def work() -> None:
            for _ in rest:
                await own.call_once(principal, port)

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(work)
        return Growth(after_first=after_first, after_all=resident(pid))

    return trio.run(main)


def resident(pid: int) -> int:
    """Return the resident memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])
