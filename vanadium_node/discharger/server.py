"""Running a discharger: open its principal, serve, and drain when asked to stop."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime
from functools import partial
from typing import Final

import trio

from vanadium_node.config import DischargerSettings
from vanadium_node.discharger.policy import MAX_TEXT_BYTES, DenyList, Policy
from vanadium_node.discharger.service import Discharger, utc_now
from vanadium_node.errors import ConfigurationError, InputError, VanadiumError
from vanadium_node.health import health_endpoint, once_sound
from vanadium_node.rpc import serve
from vanadium_node.rpc.limiting import limits_of
from vanadium_node.security.authorization import everyone
from vanadium_node.security.principal import Principal
from vanadium_node.storage.watched import WatchedFile

_log: Final = logging.getLogger(__name__)


async def run(
    settings: DischargerSettings,
    open_principal: Callable[[], AbstractAsyncContextManager[Principal]],
    *,
    stop: trio.Event | None = None,
    now: Callable[[], datetime] = utc_now,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set, then let running calls end; or until cancelled. Report how to call it once it serves:
    `/(PATTERN)@HOST:PORT`.

    Raises:
        ConfigurationError: the deny list has a line that is no rule, or it cannot listen where it should.
        StorageError: the deny list cannot be read, or there is no principal. One that is damaged is waited for, alive and not ready.
    """
    policy = _policy(settings)
    policy()  # what is wrong at the start ends it at the start
    stop = trio.Event() if stop is None else stop
    async with health_endpoint(settings.health_listen) as health, AsyncExitStack() as stack:
        principal = await once_sound(lambda: stack.enter_async_context(open_principal()), health, stop)
        if principal is None:
            return
        server = await stack.enter_async_context(
            serve(
                Discharger(principal, policy, ttl=settings.discharge_ttl, now=now),
                principal,
                listen=[settings.listen],
                authorizer=everyone,
                limits=limits_of(settings),
                now=now,
                drain_timeout=settings.drain_timeout,
                observers=health.observers,
            )
        )
        health.not_ready = partial(_not_ready, policy)
        _log.info("serving at %s with the key %s", server.addresses[0], principal.public_key.fingerprint)
        task_status.started(_name(principal, server.addresses[0]))
        await stop.wait()
        health.not_ready = lambda: ("it is stopping",)
        _log.info("stopping: running calls have %g s", settings.drain_timeout.total_seconds())


def _name(principal: Principal, address: str) -> str:
    shown = principal.store.default
    pattern = "" if shown is None else f"({shown.names[0]})@"
    return f"/{pattern}{address}"


def _not_ready(policy: Callable[[], Policy]) -> tuple[str, ...]:
    try:
        policy()
    except VanadiumError as error:
        return (str(error),)
    return ()


def _policy(settings: DischargerSettings) -> Callable[[], Policy]:
    path = settings.deny_file
    if path is None:
        fixed = Policy(allowed=settings.allow, denied=DenyList())
        return lambda: fixed
    watched = WatchedFile(path, DenyList.parse, max_bytes=MAX_TEXT_BYTES)

    def policy() -> Policy:
        try:
            return Policy(allowed=settings.allow, denied=watched.value())
        except InputError as error:
            raise ConfigurationError(f"the deny list '{path}': {error.message}", hint=error.hint) from error

    return policy
