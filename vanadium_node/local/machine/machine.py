"""The machine: everything that acts on the objects of an embedded cluster, as one task.

It needs no privileges, and it isolates nothing: pods are processes of the user who runs it, with the user's rights, files and network.
It is for trying out, developing and testing, not a container runtime.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import trio

from vanadium_node.local.api.kinds import NODE
from vanadium_node.local.api.logs import PodLogs
from vanadium_node.local.api.objects import ObjectStore
from vanadium_node.local.machine import private_names
from vanadium_node.local.machine.addresses import LOOPBACK, Addresses
from vanadium_node.local.machine.bell import Bell
from vanadium_node.local.machine.claims import Claims
from vanadium_node.local.machine.controllers import run_controller
from vanadium_node.local.machine.cron_jobs import CronJobs
from vanadium_node.local.machine.daemon_sets import DaemonSets
from vanadium_node.local.machine.deployments import Deployments
from vanadium_node.local.machine.endpoints import EndpointsController
from vanadium_node.local.machine.jobs import Jobs
from vanadium_node.local.machine.journal import Journal
from vanadium_node.local.machine.kubelet import Kubelet
from vanadium_node.local.machine.load_balancers import LoadBalancers
from vanadium_node.local.machine.names import Names
from vanadium_node.local.machine.node import register_node
from vanadium_node.local.machine.pod import Node
from vanadium_node.local.machine.processes import Watchdog
from vanadium_node.local.machine.proxies import Proxies
from vanadium_node.local.machine.recorder import Recorder
from vanadium_node.local.machine.replica_sets import ReplicaSets
from vanadium_node.local.machine.scheduler import SCHEDULER, Scheduler
from vanadium_node.local.machine.stateful_sets import StatefulSets

PODS: Final = "p"
"""Directory of the pods' files, which begin and end with them. Short, for the sake of unix sockets in it."""

DISKS: Final = "disks"
"""Directory of what outlives pods."""


async def run_machine(
    store: ObjectStore, root: Path, *, task_status: trio.TaskStatus[PodLogs] = trio.TASK_STATUS_IGNORED
) -> None:
    """Bring what is in the store to life until cancelled; all files are under `root`.

    Reports its logs when it is ready. When cancelled, it ends every process: SIGTERM, two seconds, SIGKILL; when it is killed
    itself, a watchdog kills them at once.
    """
    _prepare(root)
    journal = Journal(root / "machine.log", store.now)
    with Watchdog.running() as watchdog, Addresses.claimed() as addresses:
        name = register_node(store, LOOPBACK)
        if not addresses.has_own:
            _warn_of_shared_address(store, name)
        names = Names(store, root / "hosts")
        names.write()
        node = Node(
            store=store,
            events=Recorder(store, "kubelet", name),
            journal=journal,
            watchdog=watchdog,
            addresses=addresses,
            news=Bell(),
            disks=root / DISKS,
            hosts_file=names.file,
            has_private_names=await trio.to_thread.run_sync(private_names.is_possible, names.file("default")),
            node_address=LOOPBACK,
        )
        kubelet = Kubelet(node, name, root / PODS)
        async with trio.open_nursery() as nursery:
            events = Recorder(store, "kube-proxy", name)
            for controller in (
                names.controller(),
                Proxies(store, events, nursery).controller(),
                Scheduler(store, Recorder(store, SCHEDULER), name).controller(),
                Claims(store, Recorder(store, "persistentvolume-controller"), root / DISKS).controller(),
                Deployments(store, Recorder(store, "deployment-controller")).controller(),
                ReplicaSets(store, Recorder(store, "replicaset-controller")).controller(),
                StatefulSets(store, Recorder(store, "statefulset-controller")).controller(),
                DaemonSets(store, Recorder(store, "daemonset-controller")).controller(),
                Jobs(store, Recorder(store, "job-controller")).controller(),
                CronJobs(store, Recorder(store, "cronjob-controller")).controller(),
                EndpointsController(store).controller(),
                LoadBalancers(store, Recorder(store, "service-controller"), addresses).controller(),
            ):
                nursery.start_soon(run_controller, store, journal, controller)
            nursery.start_soon(kubelet.run)
            task_status.started(kubelet)


def _prepare(root: Path) -> None:
    """Make the directory, without what the pods of a machine that was killed left in it."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.rmtree(root / PODS, ignore_errors=True)


def _warn_of_shared_address(store: ObjectStore, node: str) -> None:
    text = "this system has no addresses in 127/8 but 127.0.0.1: all pods share it, and no two can use the same port"
    Recorder(store, "kubelet", node).warning(store.get(NODE, None, node), "NoPodAddresses", text)
