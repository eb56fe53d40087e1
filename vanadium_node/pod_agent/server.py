"""Running a pod agent: a fresh key in memory, blessings for it, and the agent protocol on a socket."""

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import trio

from vanadium_node.agent.service import AgentService
from vanadium_node.agent.users import UserRules, Users
from vanadium_node.config import PodAgentSettings
from vanadium_node.health import Health, health_endpoint
from vanadium_node.pod_agent.clock import ClusterClock
from vanadium_node.pod_agent.identity import ReplicaIdentity
from vanadium_node.pod_agent.seeking import seek_blessings
from vanadium_node.pod_agent.socket import PodSocket
from vanadium_node.rpc import serve
from vanadium_node.rpc.limiting import limits_of
from vanadium_node.security.blessing import Blessings
from vanadium_node.security.cose import LocalSigner
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.security.roots import BlessingRoots

LOOK_SECONDS: Final = 5.0
"""How often the agent looks whether its socket is still there."""

_log: Final = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def run(
    settings: PodAgentSettings,
    *,
    stop: trio.Event | None = None,
    now: Callable[[], datetime] = _utc_now,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Get an identity and serve it until `stop` is set, then let running calls end; or until cancelled.

    Reports the socket's path when it is there for the first time. That the cluster agent is away, not claimed or does not
    know the secret is no error: the agent tries on, since an exit would help nobody.

    Raises:
        ConfigurationError, StorageError: the socket cannot be made, or was removed: whoever starts the agent again has a new one.
    """
    principal = fresh_principal(settings)
    service = AgentService(principal, immutable=True, authorize=user_rules(settings), now=now)
    clock = ClusterClock(now)
    socket = PodSocket(settings.socket_path)
    socket.clear()
    async with (
        health_endpoint(settings.health_listen) as health,
        serve(
            service,
            None,
            listen=[f"unix:{socket.hidden}"],
            unix_mode=settings.socket_mode,
            limits=limits_of(settings),
            drain_timeout=settings.drain_timeout,
            observers=health.observers,
        ),
    ):
        socket.clear()  # another agent may have shown its own since the first look; from here on none can
        is_first = True

        def change(is_valid: bool) -> None:
            nonlocal is_first
            service.notify()
            if is_valid:
                socket.show()
            else:
                socket.hide()
            if is_valid and is_first:
                is_first = False
                task_status.started(socket.path)

        async def seek() -> Blessings:
            return await seek_blessings(settings.agent, settings.secret_key_file, principal, now, clock)

        _log.info("key %s; asking %s for blessings", principal.public_key, settings.agent)
        identity = ReplicaIdentity(principal, seek, on_change=change, now=now, behind=clock.behind)
        service.not_ready = identity.not_ready
        _tell(health, identity, clock)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(identity.keep)
                nursery.start_soon(_watch, socket)
                await (trio.Event() if stop is None else stop).wait()
                nursery.cancel_scope.cancel()
        finally:
            health.not_ready = lambda: ("it is stopping",)
            socket.hide()
            service.end()
        _log.info("stopping: running calls have %g s", settings.drain_timeout.total_seconds())


def _tell(health: Health, identity: ReplicaIdentity, clock: ClusterClock) -> None:
    """Let the health say how the identity is."""
    health.not_ready, health.worries = identity.not_ready, identity.worries
    left = ("How long the identity is valid still.", identity.seconds_left)
    skew = "How far this node's clock is ahead of the cluster agent's, as of the last renewal; negative: behind."
    health.gauges["vanadium_identity_seconds_left"] = left
    health.gauges["vanadium_clock_skew_seconds"] = (skew, clock.ahead_seconds)


async def _watch(socket: PodSocket) -> None:
    """Look after the socket until cancelled. Raises StorageError: it is gone."""
    while True:
        await trio.sleep(LOOK_SECONDS)
        socket.check()


def user_rules(settings: PodAgentSettings) -> UserRules:
    """Return who may have the agent do what. Probes run as its own user, and always may."""
    return UserRules(
        owner=os.geteuid(),
        use=Users.of(settings.allow_uid, settings.allow_gid),
        sign=Users.of(settings.sign_uid, settings.sign_gid),
        bless=Users.of(settings.bless_uid, settings.bless_gid),
    )


def fresh_principal(settings: PodAgentSettings) -> Principal:
    """Return a principal with a key of its own, which is nowhere but in this process, and the roots it was told."""
    roots = BlessingRoots()
    for root in settings.root_blessings:
        roots = roots.with_roots_of(root)
    return Principal(LocalSigner(PrivateKey.generate()), roots=roots)
