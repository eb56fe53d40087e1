"""Probes: does a container still live, may it get work, has it come up.

Unlike a real kubelet, which waits a whole period, the first tries of startup and readiness probes follow each other quickly:
this cluster runs a handful of pods for people and tests who wait for them. Failures still count once per period.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import trio

EAGER_SECONDS: Final = 0.1
EAGER_GROWTH: Final = 1.3
FIRST_LIVENESS_SECONDS: Final = 1.0
"""A process that has only just begun gets this long before the first check on its life."""

MAX_OUTPUT_BYTES: Final = 10 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe's definition with the defaults of the API; times in seconds."""

    action: Mapping[str, Any]
    initial_delay: float
    period: float
    timeout: float
    failure_threshold: int
    success_threshold: int
    grace: int | None

    @classmethod
    def from_container(cls, container: Mapping[str, Any], kind: str) -> Probe | None:
        """Read `startupProbe`, `readinessProbe` or `livenessProbe` of a container."""
        given = container.get(kind)
        if not given:
            return None
        return cls(
            action=given,
            initial_delay=float(given.get("initialDelaySeconds") or 0),
            period=max(1.0, float(given.get("periodSeconds") or 10)),
            timeout=max(1.0, float(given.get("timeoutSeconds") or 1)),
            failure_threshold=int(given.get("failureThreshold") or 3),
            success_threshold=int(given.get("successThreshold") or 1),
            grace=given.get("terminationGracePeriodSeconds"),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try ended: whether it passed, and what to tell people if not."""

    passed: bool
    text: str = ""


Attempt: TypeAlias = Callable[[Probe], Awaitable[Outcome]]


async def until_passed(probe: Probe, attempt: Attempt, failed: Callable[[Outcome], None]) -> bool:
    """Try quickly until the probe passes; False when it has failed `failure_threshold` times, one failure per period counted."""
    await trio.sleep(probe.initial_delay)
    pause, failures, counted_at = EAGER_SECONDS, 0, trio.current_time()
    while True:
        outcome = await attempt(probe)
        if outcome.passed:
            return True
        if trio.current_time() >= counted_at + probe.period:
            counted_at, failures = trio.current_time(), failures + 1
            failed(outcome)
            if failures >= probe.failure_threshold:
                return False
        await trio.sleep(pause)
        pause = min(pause * EAGER_GROWTH, probe.period)


async def until_failed(probe: Probe, attempt: Attempt, failed: Callable[[Outcome], None]) -> None:
    """Try once per period until the probe has failed `failure_threshold` times in a row."""
    failures = 0
    while failures < probe.failure_threshold:
        outcome = await attempt(probe)
        failures = 0 if outcome.passed else failures + 1
        if not outcome.passed:
            failed(outcome)
        if failures < probe.failure_threshold:
            await trio.sleep(probe.period)


async def until_passed_in_a_row(probe: Probe, attempt: Attempt, failed: Callable[[Outcome], None]) -> None:
    """Try until the probe has passed `success_threshold` times in a row: quickly at first, then once per period."""
    pause, passes = EAGER_SECONDS, 0
    while passes < probe.success_threshold:
        outcome = await attempt(probe)
        passes = passes + 1 if outcome.passed else 0
        if not outcome.passed and pause >= min(probe.period, 1.0):
            failed(outcome)
        if passes < probe.success_threshold:
            await trio.sleep(pause)
            pause = min(pause * EAGER_GROWTH, probe.period)


async def tcp(host: str, port: int, timeout: float) -> Outcome:
    """Try to connect."""
    try:
        with trio.fail_after(timeout):
            stream = await trio.open_tcp_stream(host, port)
            await stream.aclose()
    except trio.TooSlowError:
        return Outcome(False, f"dial tcp {host}:{port}: i/o timeout")
    except (OSError, ValueError, OverflowError) as error:  # refused, or no host or port at all
        return Outcome(False, f"dial tcp {host}:{port}: {error}")
    return Outcome(True)


async def http(url: str, headers: Mapping[str, str], timeout: float) -> Outcome:
    """Try a GET; every status from 200 to 399 passes. Certificates are not checked, as a kubelet does not."""
    import httpx

    try:
        async with httpx.AsyncClient(verify=False, timeout=timeout, trust_env=False) as client:  # noqa: S501 - see above
            answer = await client.get(url, headers={"User-Agent": "kube-probe/1.33", **headers})
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return Outcome(False, f'Get "{url}": {str(error) or type(error).__name__}')
    if 200 <= answer.status_code < 400:
        return Outcome(True)
    return Outcome(False, f"HTTP probe failed with statuscode: {answer.status_code}")
