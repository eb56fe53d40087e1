"""One container: start it, attend to it, start it again when it ends, stop it.

Everything that can go wrong on the way is a state of the container and an event of its pod, with the reasons and words of a kubelet.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final
from uuid import uuid4

import trio

from vanadium_node.local.api.objects import Object, timestamp
from vanadium_node.local.machine import images
from vanadium_node.local.machine.attendance import Attendance
from vanadium_node.local.machine.backoff import BackOff
from vanadium_node.local.machine.container_logs import ContainerLog
from vanadium_node.local.machine.pod_status import ContainerRecord
from vanadium_node.local.machine.processes import DRAIN_SECONDS, Command, Process, StartFailed
from vanadium_node.local.machine.surroundings import Surroundings
from vanadium_node.local.machine.variables import ConfigurationMissing

CONFIGURATION_RETRY_SECONDS: Final = 10.0
SHUTDOWN_SECONDS: Final = 2.0
"""What a process gets between SIGTERM and SIGKILL when the machine itself is shut down."""

START_ERROR_CODE: Final = 128
MAX_TERMINATION_BYTES: Final = 2048
MAX_TERMINATION_LINES: Final = 80


class Runner:
    """Runs one container of a pod."""

    def __init__(self, around: Surroundings, spec: Mapping[str, Any], record: ContainerRecord, number: int) -> None:
        self.spec = spec
        self.record = record
        self.started = trio.Event()
        self.ended = trio.Event()
        self.log: ContainerLog | None = None
        self.previous_log: ContainerLog | None = None
        self._around = around
        self._number = number
        self._attendance: Attendance | None = None
        self._stopping = trio.Event()
        self._grace = trio.CancelScope()

    async def run(self) -> None:
        """Run the container, again and again as its pod's restart policy says, until it is stopped or has ended for good."""
        back_off = BackOff()
        try:
            while not self._stopping.is_set():
                began = trio.current_time()
                await self._run_once()
                if self._stopping.is_set() or not self._is_to_run_again():
                    break
                await self._pause(back_off.after(trio.current_time() - began))
                self.record.restarts += 1
        finally:
            self.ended.set()

    async def stop(self, deadline: float) -> None:
        """Stop the container: hook, SIGTERM, and SIGKILL at the deadline (trio's clock)."""
        self._stopping.set()
        self.hasten(deadline)
        attendance = self._attendance
        if attendance is not None and not self.ended.is_set():
            self._event("Killing", f"Stopping container {self.record.name}")
            with self._grace:
                await attendance.stop()
                await self.ended.wait()
            attendance.process.signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await self.ended.wait()

    def hasten(self, deadline: float) -> None:
        """Bring the deadline of a stop forward."""
        self._grace.deadline = min(self._grace.deadline, deadline)

    def _is_to_run_again(self) -> bool:
        policy = self._around.pod()["spec"].get("restartPolicy", "Always")
        ended: Object = self.record.state.get("terminated") or self.record.last_state.get("terminated") or {}
        failed = int(ended.get("exitCode", 0)) != 0
        if self.record.is_sidecar:
            return True
        if self.record.is_init:
            return failed and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and failed)

    async def _run_once(self) -> None:
        if not await self._has_image():
            return
        command = await self._configured()
        if command is None:
            return
        self._event("Created", f"Created container: {self.record.name}")
        try:
            process = Process.start(command, self._around.watchdog)
        except StartFailed as error:
            self._start_failed(str(error))
            return
        began = timestamp(self._around.store.now())
        self._begin(began)
        code = await self._supervise(process, command)
        self._end(began, code)

    async def _has_image(self) -> bool:
        """Tell whether the image can be had; where it cannot, keep trying until the container is stopped."""
        image = self.record.image
        if not images.is_valid_name(image):
            text = f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": invalid reference format'
            self._wait_for("InvalidImageName", text)
            self._warn("InspectFailed", text)
            await self._stopping.wait()
            return False
        back_off = BackOff()
        back_off.after(0)
        while (why := images.refusal(image)) is not None:
            self._event("Pulling", f'Pulling image "{image}"')
            self._warn("Failed", f'Failed to pull image "{image}": {why}')
            self._warn("Failed", "Error: ErrImagePull")
            self._wait_for("ErrImagePull", why)
            with trio.move_on_after(1):
                await self._stopping.wait()
            self._event("BackOff", f'Back-off pulling image "{image}"')
            self._warn("Failed", "Error: ImagePullBackOff")
            self._wait_for("ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {why}')
            with trio.move_on_after(back_off.after(0)):
                await self._stopping.wait()
            if self._stopping.is_set():
                return False
        self._event("Pulled", f'Container image "{image}" already present on machine')
        return True

    async def _configured(self) -> Command | None:
        """Return the command to run, once everything that it refers to is there."""
        while not self._stopping.is_set():
            try:
                return self._around.command(self.spec, self._number)
            except ConfigurationMissing as error:
                self._wait_for("CreateContainerConfigError", str(error))
                self._warn("Failed", f"Error: {error}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_when_stopping, nursery.cancel_scope)
                await self._around.news.wait_at_most(CONFIGURATION_RETRY_SECONDS)
                nursery.cancel_scope.cancel()
        return None

    async def _cancel_when_stopping(self, scope: trio.CancelScope) -> None:
        await self._stopping.wait()
        scope.cancel()

    def _start_failed(self, text: str) -> None:
        message = f"failed to create containerd task: failed to create shim task: {text}"
        self._warn("Failed", f"Error: {message}")
        now = timestamp(self._around.store.now())
        ended = {"exitCode": START_ERROR_CODE, "reason": "StartError", "message": message, "finishedAt": now}
        self.record.last_state = {"terminated": {**ended, "startedAt": "1970-01-01T00:00:00Z"}}
        if self._is_to_run_again():
            self._wait_for("RunContainerError", message)
        else:
            self._change({"terminated": self.record.last_state["terminated"]})

    def _begin(self, began: str) -> None:
        record = self.record
        if "terminated" in record.state:
            record.last_state = {"terminated": record.state["terminated"]}
        record.identifier = f"process://{uuid4().hex}{uuid4().hex}"
        if self.previous_log is not None:
            self.previous_log.remove()
        self.previous_log = self.log
        path = self._around.log_path(self._number, record.restarts)
        self.log = ContainerLog(path, self._around.store.now)
        self._event("Started", f"Started container {record.name}")
        self._change({"running": {"startedAt": began}})

    async def _supervise(self, process: Process, command: Command) -> int:
        """Attend to a process until its end, and return its exit code. When cancelled, end it."""
        drained = trio.Event()
        attendance = Attendance(self._around, self.spec, self.record, process, command, self.started)
        self._attendance = attendance
        try:
            async with trio.open_nursery() as reading:
                reading.start_soon(self._copy_output, process, drained)
                async with trio.open_nursery() as attending:
                    attending.start_soon(attendance.attend)
                    code = await process.wait()
                    attending.cancel_scope.cancel()
                with trio.move_on_after(DRAIN_SECONDS):
                    await drained.wait()
                reading.cancel_scope.cancel()
        finally:
            self._attendance = None
            with trio.move_on_after(SHUTDOWN_SECONDS, shield=True):
                await process.terminate()
            process.kill()
            if self.log is not None:
                self.log.close()
        return code

    async def _copy_output(self, process: Process, drained: trio.Event) -> None:
        async with aclosing(process.output()) as pieces:
            async for data in pieces:
                if self.log is not None:
                    self.log.write(data)
                await trio.lowlevel.checkpoint()
        drained.set()

    def _end(self, began: str, code: int) -> None:
        ended: Object = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": began,
            "finishedAt": timestamp(self._around.store.now()),
            "containerID": self.record.identifier,
        }
        if code and self.log is not None and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            ended["message"] = self.log.last_lines(MAX_TERMINATION_LINES, MAX_TERMINATION_BYTES)
        self._change({"terminated": ended})

    async def _pause(self, seconds: float) -> None:
        """Wait before the next run, as long as the container keeps failing."""
        if seconds <= 0:
            return
        pod = self._around.pod()["metadata"]
        name = f"{self.record.name} pod={pod['name']}_{pod['namespace']}({pod['uid']})"
        self._warn(
            "BackOff", f"Back-off restarting failed container {self.record.name} in pod {name.partition('pod=')[2]}"
        )
        if "terminated" in self.record.state:
            self.record.last_state = {"terminated": self.record.state["terminated"]}
        length = f"{int(seconds) // 60}m{int(seconds) % 60}s" if seconds >= 60 else f"{int(seconds)}s"
        self._wait_for("CrashLoopBackOff", f"back-off {length} restarting failed container={name}")
        with trio.move_on_after(seconds):
            await self._stopping.wait()
        if self._stopping.is_set():
            self._change({"terminated": self.record.last_state["terminated"]})

    def _wait_for(self, reason: str, message: str) -> None:
        self._change({"waiting": {"reason": reason, "message": message}})

    def _change(self, state: Object) -> None:
        self.record.state = state
        self.record.is_started = self.record.is_ready = False
        self._around.publish()

    def _event(self, reason: str, message: str) -> None:
        self._around.events.normal(self._around.pod(), reason, message, path=self.record.field_path)

    def _warn(self, reason: str, message: str) -> None:
        self._around.events.warning(self._around.pod(), reason, message, path=self.record.field_path)
