"""This project's RPC beside grpcio's, in one run: `python tests/benchmarks/rpc/run.py`, with `pip install '.[benchmark]'`.

Servers of all variants run at once; clients take turns, one at a time, so that every round sees the same machine. Printed
are the medians of all rounds, and what each row promises: how many times the better grpcio variant the better own one
reaches. In the end a server's memory is looked at after many connections. Exit status 1 when a promise is not kept and `--check`
is given.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio
from cases import CASES, WARM_UP_SECONDS, Case, Kind, Measurement, middle, required_ratio
from identities import make_identities
from memory import CONNECTIONS, MAX_GROWTH, TITLE, Growth, measure_growth

HERE = Path(__file__).parent
OWN, GRPC = ("own-def", "own-async"), ("grpc-sync", "grpc-aio")
CLIENT_TIMEOUT_SECONDS = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
"""Unit of the CPU times in /proc."""


@dataclass(frozen=True, slots=True)
class RunningServer:
    """The server of one variant."""

    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """Return what it has used so far, all its threads together."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def running(variant: str, folder: Path) -> Iterator[RunningServer]:
    """Start the server of a variant, and end it."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "party.py"), "server", variant, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
        yield RunningServer(process.pid, int(line))
    finally:
        process.kill()
        process.communicate()


def measure(variant: str, server: RunningServer, folder: Path, case: Case, seconds: float) -> Measurement:
    """Run a client of a variant, and add what the server used."""
    arguments = ["client", variant, str(folder), str(server.port), json.dumps(asdict(case)), str(seconds)]
    before = server.cpu_seconds()
    done = subprocess.run(
        [sys.executable, str(HERE / "party.py"), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=CLIENT_TIMEOUT_SECONDS,
    )
    measured = Measurement(**json.loads(done.stdout))
    # The server also works for the client's warming up; the share of the measured time is what counts.
    operations = measured.rate * seconds if case.kind is not Kind.STREAM else measured.rate * seconds * 1e6 / case.size
    used = (server.cpu_seconds() - before) * seconds / (seconds + WARM_UP_SECONDS)
    return replace(measured, server_cpu_us=used / max(operations, 1) * 1e6)


def table(results: dict[Case, dict[str, Measurement]]) -> Iterator[str]:
    """Yield the lines of the table."""
    for case, by_variant in results.items():
        yield f"\n{case}"
        yield f"  {'variant':<11}{'rate':>11}{'p50 µs':>10}{'p99 µs':>10}{'client CPU µs':>15}{'server CPU µs':>15}"
        for variant, each in by_variant.items():
            cpu = f"{each.client_cpu_us:>15.1f}{each.server_cpu_us:>15.1f}"
            yield f"  {variant:<11}{each.rate:>11.0f}{each.p50_us:>10.0f}{each.p99_us:>10.0f}{cpu}"
        reached, wanted = ratio(by_variant), required_ratio(case)
        if reached is not None:
            promise = "" if wanted is None else f", at least {wanted:g} wanted: {'yes' if reached >= wanted else 'NO'}"
            yield f"  best own / best grpcio: {reached:.1f}{promise}; CPU of both ends: {cpu_ratio(by_variant):.1f} times less"


def rows(results: dict[Case, dict[str, Measurement]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table for programs."""
    for case, by_variant in results.items():
        yield {
            **asdict(case),
            "ratio": ratio(by_variant),
            "cpuRatio": cpu_ratio(by_variant),
            "wanted": required_ratio(case),
            "variants": {variant: asdict(each) for variant, each in by_variant.items()},
        }


def memory_row(growth: Growth) -> dict[str, Any]:
    """Return the row about memory for programs."""
    return {"kind": "memory", **asdict(growth), "ratio": growth.factor, "wanted": MAX_GROWTH}


def ratio(by_variant: dict[str, Measurement]) -> float | None:
    """Return how many times the best grpcio rate the best own one is; None without grpcio."""
    own = [each.rate for variant, each in by_variant.items() if variant in OWN]
    grpc = [each.rate for variant, each in by_variant.items() if variant in GRPC]
    return max(own) / max(grpc) if own and grpc else None


def cpu_ratio(by_variant: dict[str, Measurement]) -> float | None:
    """Return how many times less CPU the own variants need, each side by its thriftiest; it suffers less on a busy machine."""
    own = [each.client_cpu_us + each.server_cpu_us for variant, each in by_variant.items() if variant in OWN]
    grpc = [each.client_cpu_us + each.server_cpu_us for variant, each in by_variant.items() if variant in GRPC]
    return min(grpc) / min(own) if own and grpc else None


def kept(case: Case, by_variant: dict[str, Measurement]) -> bool:
    """Tell whether a row reaches what it promises."""
    reached, wanted = ratio(by_variant), required_ratio(case)
    return reached is None or wanted is None or reached >= wanted


def main() -> int:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description="Compare this project's RPC with grpcio's.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--only", default="", help="measure rows whose title matches this regular expression")
    parser.add_argument("--variants", default="", metavar="NAME,NAME", help=f"of {', '.join(OWN + GRPC)}; default all")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="for the row about memory")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a promised ratio is not reached")
    options = parser.parse_args()
    variants = OWN + (GRPC if find_spec("grpc") is not None else ())
    if options.variants:
        variants = tuple(name for name in variants if name in options.variants.split(","))
    elif len(variants) == len(OWN):
        print("grpcio is not installed: pip install '.[benchmark]'", file=sys.stderr)
    cases = [case for case in CASES if re.search(options.only, str(case))]
    runs: dict[Case, dict[str, list[Measurement]]] = {case: {name: [] for name in variants} for case in cases}
    with tempfile.TemporaryDirectory(prefix="rpc-benchmark-") as text, ExitStack() as stack:
        folder = Path(text)
        trio.run(make_identities, folder)
        servers = {variant: stack.enter_context(running(variant, folder)) for variant in variants}
        for number in range(options.rounds):
            for case in cases:
                for variant, server in servers.items():
                    runs[case][variant].append(measure(variant, server, folder, case, options.seconds))
            print(f"round {number + 1} of {options.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        growth = None
        if OWN[0] in servers and re.search(options.only, TITLE):
            fresh = stack.enter_context(running(OWN[0], folder))
            growth = measure_growth(fresh.pid, fresh.port, folder, options.connections)
    results = {case: {variant: middle(each) for variant, each in by.items()} for case, by in runs.items()}
    if options.json:
        print(json.dumps([*rows(results), *([] if growth is None else [memory_row(growth)])], indent=2))
    else:
        print("\n".join((*table(results), *([] if growth is None else [str(growth)]))))
    all_kept = all(kept(case, by) for case, by in results.items()) and (growth is None or growth.is_kept)
    return 1 if options.check and not all_kept else 0


if __name__ == "__main__":
    sys.exit(main())
