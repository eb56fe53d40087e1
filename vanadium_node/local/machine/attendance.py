"""What a kubelet does for a container while its process runs: hooks, probes, and the way it is ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Final

import trio

from vanadium_node.local.machine import probes
from vanadium_node.local.machine.pod_status import ContainerRecord, grace_seconds
from vanadium_node.local.machine.probes import Outcome, Probe
from vanadium_node.local.machine.processes import Command, Process, StartFailed
from vanadium_node.local.machine.surroundings import Surroundings

HOOK_SECONDS: Final = 300.0
"""A start hook that takes longer has failed."""


class Attendance:
    """Attends to one process of a container."""

    def __init__(
        self,
        around: Surroundings,
        spec: Mapping[str, Any],
        record: ContainerRecord,
        process: Process,
        command: Command,
        started: trio.Event,
    ) -> None:
        self.process = process
        self._around = around
        self._spec = spec
        self._record = record
        self._command = command
        self._started = started

    async def attend(self) -> None:
        """Run the start hook and the probes, for as long as the process runs."""
        if not await self._hook_passes():
            return
        startup = Probe.from_container(self._spec, "startupProbe")
        if startup is not None and not await probes.until_passed(startup, self._try, self._unhealthy("Startup")):
            await self._restart("startup", startup)
            return
        self._record.is_started = True
        readiness = Probe.from_container(self._spec, "readinessProbe")
        self._record.is_ready = readiness is None
        self._started.set()
        self._around.publish()
        async with trio.open_nursery() as nursery:
            if readiness is not None:
                nursery.start_soon(self._keep_ready, readiness)
            liveness = Probe.from_container(self._spec, "livenessProbe")
            if liveness is not None:
                nursery.start_soon(self._keep_alive, liveness)

    async def stop(self) -> None:
        """Run the stop hook, then ask the process to end."""
        hook = (self._spec.get("lifecycle") or {}).get("preStop")
        if hook and self._record.is_running:
            outcome = await self._run_hook(hook)
            if not outcome.passed:
                self._warn("FailedPreStopHook", f"PreStopHook failed: {outcome.text}")
        self.process.ask_to_end()

    async def _hook_passes(self) -> bool:
        hook = (self._spec.get("lifecycle") or {}).get("postStart")
        if not hook:
            return True
        outcome = await self._run_hook(hook)
        if not outcome.passed:
            self._warn("FailedPostStartHook", f"PostStartHook failed: {outcome.text}")
            await self._end(f"FailedPostStartHook: container {self._record.name}, will be restarted", None)
        return outcome.passed

    async def _run_hook(self, hook: Mapping[str, Any]) -> Outcome:
        if "sleep" in hook:
            await trio.sleep(float(hook["sleep"].get("seconds") or 0))
            return Outcome(True)
        return await self._act(hook, HOOK_SECONDS)

    async def _keep_ready(self, probe: Probe) -> None:
        """Keep the record's readiness true to what the probe says."""
        await trio.sleep(probe.initial_delay)
        while True:
            await probes.until_passed_in_a_row(probe, self._try, self._unhealthy("Readiness"))
            self._become_ready(True)
            await trio.sleep(probe.period)
            await probes.until_failed(probe, self._try, self._unhealthy("Readiness"))
            self._become_ready(False)

    def _become_ready(self, is_ready: bool) -> None:
        self._record.is_ready = is_ready
        self._around.publish()

    async def _keep_alive(self, probe: Probe) -> None:
        await trio.sleep(max(probe.initial_delay, probes.FIRST_LIVENESS_SECONDS))
        await probes.until_failed(probe, self._try, self._unhealthy("Liveness"))
        await self._restart("liveness", probe)

    async def _restart(self, kind: str, probe: Probe) -> None:
        await self._end(f"Container {self._record.name} failed {kind} probe, will be restarted", probe.grace)

    async def _end(self, message: str, grace: int | None) -> None:
        """End the process because something is wrong with it."""
        self._around.events.normal(self._around.pod(), "Killing", message, path=self._record.field_path)
        if grace is None:
            grace = grace_seconds(self._around.pod())
        with trio.move_on_after(grace):
            await self.stop()
            await trio.sleep_forever()  # the end of the process cancels this
        self.process.signal(signal.SIGKILL)

    async def _try(self, probe: Probe) -> Outcome:
        return await self._act(probe.action, probe.timeout)

    async def _act(self, action: Mapping[str, Any], seconds: float) -> Outcome:
        """Do what a probe or hook asks for: run a command, get a page, or connect."""
        if "exec" in action:
            return await self._run(tuple(map(str, action["exec"].get("command") or ())), seconds)
        if "httpGet" in action:
            given = action["httpGet"]
            host = str(given.get("host") or self._around.address)
            scheme = str(given.get("scheme") or "HTTP").lower()
            path = "/" + str(given.get("path") or "/").lstrip("/")
            headers = {str(h["name"]): str(h.get("value") or "") for h in given.get("httpHeaders") or ()}
            return await probes.http(f"{scheme}://{host}:{self._port(given)}{path}", headers, seconds)
        if "tcpSocket" in action:
            given = action["tcpSocket"]
            return await probes.tcp(str(given.get("host") or self._around.address), self._port(given), seconds)
        return Outcome(False, "the embedded cluster knows the actions exec, httpGet and tcpSocket")

    def _port(self, given: Mapping[str, Any]) -> int:
        port = given.get("port")
        if isinstance(port, str) and not port.isdecimal():
            named = {p.get("name"): p["containerPort"] for p in self._spec.get("ports") or ()}
            return int(named.get(port, 0))
        return int(port or 0)

    async def _run(self, argv: tuple[str, ...], seconds: float) -> Outcome:
        """Run a command beside the container's process; its first kilobytes of output tell why it failed."""
        try:
            process = Process.start(self._around.exec_command(self._command, argv), self._around.watchdog)
        except StartFailed as error:
            return Outcome(False, str(error))
        output = bytearray()
        code: int | None = None
        try:
            with trio.move_on_after(seconds):
                async with aclosing(process.output()) as pieces:
                    async for data in pieces:
                        output += data[: probes.MAX_OUTPUT_BYTES - len(output)]
                code = await process.wait()
        finally:
            process.kill()
        if code is None:
            return Outcome(False, f'command timed out: "{" ".join(argv)}" timed out after {seconds:g}s')
        return Outcome(code == 0, output.decode(errors="replace").strip() or f"exit status {code}")

    def _unhealthy(self, kind: str) -> Callable[[Outcome], None]:
        def failed(outcome: Outcome) -> None:
            self._warn("Unhealthy", f"{kind} probe failed: {outcome.text}")

        return failed

    def _warn(self, reason: str, message: str) -> None:
        self._around.events.warning(self._around.pod(), reason, message, path=self._record.field_path)
