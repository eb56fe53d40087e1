"""The embedded cluster in this process: an API, a machine that runs its pods, and the kubeconfig that leads to both."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from vanadium_node.errors import UnreachableError
from vanadium_node.local.api.bootstrap import new_store
from vanadium_node.local.api.expiry import expire_events
from vanadium_node.local.api.identity import ServerIdentity
from vanadium_node.local.api.logs import PodLogs
from vanadium_node.local.api.objects import ObjectStore, timestamp
from vanadium_node.local.api.rest import Rest
from vanadium_node.local.api.server import listening_socket, serving
from vanadium_node.local.directory import ClusterDirectory, State
from vanadium_node.local.machine import run_machine
from vanadium_node.storage.files import write_private

MACHINE_END_SECONDS: Final = 6.0
"""How long pods may take to end with the machine, which kills them after two seconds."""


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """A cluster that runs in this process."""

    directory: Path
    store: ObjectStore
    port: int

    @property
    def kubeconfig(self) -> Path:
        """Return the path of the kubeconfig that leads to it."""
        return ClusterDirectory(self.directory).kubeconfig


@asynccontextmanager
async def running_cluster(directory: Path, *, port: int | None = None) -> AsyncIterator[RunningCluster]:
    """Run a cluster with its files in `directory` for as long as the block lasts.

    Without a port it takes the one that the last cluster in this directory had, or any free one.

    Raises:
        StorageError: the directory cannot be used.
        UnreachableError: the port is in use.
    """
    files = ClusterDirectory(directory)
    files.make()
    store = new_store()
    identity = ServerIdentity.create(files.path, store.now())
    listener = _preferred_socket(files.read_state()) if port is None else listening_socket(port)
    with listener:
        port = int(listener.getsockname()[1])
        async with trio.open_nursery() as nursery:
            machine = _Machine()
            logs: PodLogs = await nursery.start(machine.run, store, files.run)
            nursery.start_soon(expire_events, store)
            async with serving(Rest(store, logs), identity, listener):
                write_private(files.kubeconfig, identity.kubeconfig(port))
                files.write_state(State(os.getpid(), port, timestamp(store.now())))
                try:
                    yield RunningCluster(files.path, store, port)
                finally:
                    await machine.end()
            nursery.cancel_scope.cancel()


class _Machine:
    """The machine as a task that can be ended, with all its pods, while the API still answers."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self, store: ObjectStore, root: Path, *, task_status: trio.TaskStatus[PodLogs]) -> None:
        """Run the machine until it is ended or cancelled."""
        try:
            with self._scope:
                await run_machine(store, root, task_status=task_status)
        finally:
            self._ended.set()

    async def end(self) -> None:
        """End the machine and wait until its pods have ended."""
        self._scope.cancel()
        with trio.move_on_after(MACHINE_END_SECONDS, shield=True):
            await self._ended.wait()


def _preferred_socket(last: State | None) -> socket.socket:
    """Return a socket on the port that the last cluster here had, so that copies of its address stay good, or on any."""
    if last is not None:
        with suppress(UnreachableError):
            return listening_socket(last.port)
    return listening_socket()
