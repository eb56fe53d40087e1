"""The agent of a credentials directory: its principal on a socket in it, for the owner's programs, while they use it.

    DIR/agent/lock   held by the agent as long as it lives: there is one at most
    DIR/agent/sock   the agent protocol; only the directory's owner is answered

The key leaves neither the process nor the file. What others change in the directory meanwhile is taken over; when the key itself
is replaced or removed, the agent ends.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import trio

from vanadium_node.agent.service import AgentService
from vanadium_node.errors import StorageError
from vanadium_node.rpc import Call, Server, Tag, method, serve
from vanadium_node.security.authorization import user_authorizer
from vanadium_node.security.principal import Principal
from vanadium_node.storage.credentials import CredentialsDirectory

SOCKET_MODE: Final = 0o600
LOOK_SECONDS: Final = 1.0
DRAIN_TIMEOUT: Final = timedelta(milliseconds=500)

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """How an agent is doing."""

    pid: int
    names: list[str]
    public_key: str
    since: datetime
    programs: int
    """How many are connected, but for the one that asks."""
    idle_seconds: int
    """After how long without use it ends; 0: never."""


class DirectoryAgent(AgentService):
    """DirectoryAgent serves the principal of a credentials directory to its owner."""

    def __init__(self, principal: Principal, idle_timeout: timedelta) -> None:
        super().__init__(principal, immutable=False, authorize=user_authorizer(os.geteuid()))
        self._served = principal
        self._since = datetime.now(UTC)
        self._idle_seconds = idle_timeout.total_seconds()
        self._last_use = trio.current_time()
        self._stopping = trio.Event()
        self.server: Server | None = None

    @method(tag=Tag.READ)
    def state(self, call: Call) -> bytes:
        """Returns public key, blessing store and roots in one piece."""
        self._last_use = trio.current_time()
        return super().state(call)

    @method(tag=Tag.DEBUG)
    def status(self, call: Call) -> AgentStatus:
        """Returns how the agent is doing."""
        default = self._served.store.default
        return AgentStatus(
            pid=os.getpid(),
            names=[] if default is None else list(default.names),
            public_key=self._served.public_key.fingerprint,
            since=self._since,
            programs=self._connections - 1,
            idle_seconds=int(self._idle_seconds),
        )

    @method(tag=Tag.ADMIN)
    def stop(self, call: Call) -> None:
        """Ends the agent. Programs that use it can sign nothing until there is another one."""
        self._stopping.set()

    async def until_unused(self) -> None:
        """Wait until somebody stops the agent, or nobody has used it for the idle timeout."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_when_unused, scope)
                await self._stopping.wait()
                scope.cancel()

    async def _end_when_unused(self, scope: trio.CancelScope) -> None:
        while True:
            await trio.sleep(min(LOOK_SECONDS, self._idle_seconds / 4) or LOOK_SECONDS)
            if self._connections:
                self._last_use = trio.current_time()
            elif 0 < self._idle_seconds <= trio.current_time() - self._last_use:
                _log.info("ending: nobody has used it for %g s", self._idle_seconds)
                scope.cancel()

    @property
    def _connections(self) -> int:
        return 0 if self.server is None else self.server.connections


async def serve_directory(
    directory: CredentialsDirectory,
    principal: Principal,
    *,
    idle_timeout: timedelta,
    stop: trio.Event | None = None,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the principal of a directory until nobody uses it, it is stopped, or its key is not there any more.

    The caller holds the directory's agent lock. Reports the socket's path.

    Raises:
        StorageError: the socket cannot be made.
    """
    service = DirectoryAgent(principal, idle_timeout)
    path, stopped = directory.agent_socket, trio.Event() if stop is None else stop
    async with serve(
        service, None, listen=[f"unix:{path}"], unix_mode=SOCKET_MODE, drain_timeout=DRAIN_TIMEOUT
    ) as server:
        service.server = server
        task_status.started(path)
        async with trio.open_nursery() as nursery:
            for ends in (service.until_unused, stopped.wait, _Watch(directory, principal, service).run):
                nursery.start_soon(_cancel_after, ends, nursery.cancel_scope)


async def _cancel_after(wait: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()


class _Watch:
    """Looks whether others have changed the directory."""

    def __init__(self, directory: CredentialsDirectory, principal: Principal, service: DirectoryAgent) -> None:
        self._files = (directory.key_file, directory.state_file(principal.public_key))
        self._principal = principal
        self._service = service
        self._seen = self._look()

    async def run(self) -> None:
        """Take over changes, until the key is another one or gone."""
        self._reread()  # what changed before there was anything to compare with
        while True:
            await trio.sleep(LOOK_SECONDS)
            key, state = self._look()
            if key != self._seen[0]:
                _log.warning("ending: '%s' is not what it was", self._files[0])
                return
            if state != self._seen[1]:
                self._reread()
            self._seen = (key, state)

    def _reread(self) -> None:
        before = self._principal.store, self._principal.roots
        try:
            self._principal.reread()
        except StorageError as error:
            _log.warning("serving what there was before: %s", error)
        if (self._principal.store, self._principal.roots) != before:
            self._service.notify()

    def _look(self) -> tuple[tuple[int, ...], ...]:
        return tuple(map(_stamp, self._files))


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced; empty: there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
