"""Whether everything is there that the controller's commands need: one check after another, each with its next step.

A check that cannot be made because an earlier one failed is left out, so that the first ✗ is the one to begin with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from vanadium_node.controller import permissions, survey
from vanadium_node.controller.agent_health import AgentHealth, health_of
from vanadium_node.controller.app_secrets import AppSecrets
from vanadium_node.controller.identity import named, own_blessings
from vanadium_node.controller.objects import application_of
from vanadium_node.controller.settings import Settings
from vanadium_node.controller.site import ClusterAgent, Site
from vanadium_node.controller.status import State, applications
from vanadium_node.errors import KubernetesError, VanadiumError
from vanadium_node.kube.client import ServerVersion
from vanadium_node.kube.resources import NAMESPACE, name_of
from vanadium_node.security.principal import Principal

OLDEST: Final = (1, 16)
"""The first release with nothing but `apps/v1`, which is what the controller writes."""

MAX_SKEW: Final = timedelta(seconds=10)
"""The server's date has no fractions, and blessings are made for hours: less says nothing, more will hurt some day."""

ENFORCE: Final = "pod-security.kubernetes.io/enforce"
LEVELS: Final = ("privileged", "baseline", "restricted")
GRACE: Final = timedelta(minutes=10)
"""Younger Secrets may belong to a command that is at work; as for `gc`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One precondition: whether it holds, what was seen, and what to do where it does not."""

    name: str
    is_good: bool
    seen: str
    next_step: str = ""

    @classmethod
    def failed(cls, name: str, error: VanadiumError) -> "Check":
        """Return a check that an error answers."""
        return cls(name=name, is_good=False, seen=error.message, next_step=error.hint or "see the message")


def check_principal(principal: Principal, settings: Settings, now: datetime) -> Check:
    """Whether the caller's blessings are those of the cluster agent's owner, and last."""
    name = "credentials"
    try:
        blessings = named(own_blessings(principal), settings.cluster_agent.granter)
    except VanadiumError as error:
        return Check.failed(name, error)
    until = blessings.expiry
    if until is not None and until <= now:
        hint = "have them renewed ('vanadium-node principal bless'), and set them as the default"
        return Check(
            name=name, is_good=False, seen=f"{blessings} expired at {until:%Y-%m-%d %H:%M} UTC", next_step=hint
        )
    return Check(
        name=name, is_good=True, seen=f"{blessings}" + (f", until {until:%Y-%m-%d %H:%M} UTC" if until else "")
    )


async def check_site(site: Site, agent: ClusterAgent, namespace: str, tell: Callable[[Check], None]) -> None:
    """Make the checks of a cluster and of what is on it, and tell each as it is made.

    Every check asks for itself, so that what one may not see does not hide the others.
    """
    try:
        version = await site.client.version()
    except KubernetesError as error:
        tell(Check.failed("API server", error))
        return
    tell(_check_version(version, site))
    tell(await _check_clock(site))
    for space in dict.fromkeys((namespace, site.settings.cluster_agent.namespace)):
        tell(await _check_permissions(site, space, is_agents=space != namespace))
        tell(await _check_pod_security(site, space))
    health = await health_of(agent, site.settings.cluster_agent.blessing)
    tell(_check_agent(health))
    tell(await _check_applications(site, health, namespace))
    tell(await _check_orphans(site, agent, namespace))


def _check_version(version: ServerVersion, site: Site) -> Check:
    server = f"{site.client.access.server} runs {version.text}"
    if (version.major, version.minor) < OLDEST:
        return Check(
            name="API server",
            is_good=False,
            seen=f"{server}, which is too old",
            next_step=f"upgrade the cluster to {OLDEST[0]}.{OLDEST[1]} or later",
        )
    form = "native sidecars" if version.has_native_sidecars else "plain containers (native sidecars need 1.29)"
    return Check(name="API server", is_good=True, seen=f"{server}; pod agents are {form}")


async def _check_clock(site: Site) -> Check:
    ahead = await site.client.clock_ahead()
    if ahead is None:
        return Check(name="clock", is_good=True, seen="the API server does not tell its time")
    seconds = round(ahead.total_seconds())
    way = "ahead of" if seconds > 0 else "behind"
    if abs(ahead) <= MAX_SKEW:
        return Check(name="clock", is_good=True, seen="this machine and the API server agree on the time")
    return Check(
        name="clock",
        is_good=False,
        seen=f"this machine is {abs(seconds)} s {way} the API server: blessings would begin or end at the wrong time",
        next_step="set this machine's clock (or the cluster's) by NTP",
    )


async def _check_permissions(site: Site, namespace: str, *, is_agents: bool) -> Check:
    name = f"permissions in namespace '{namespace}'"
    needed = [
        r
        for r in permissions.NEEDED
        if not is_agents or r.resource in {"deployments", "services", "pods", "replicasets"}
    ]
    try:
        missing = await permissions.missing(site.client, namespace, needed)
    except KubernetesError as error:
        return Check.failed(name, error)
    if missing:
        return Check(
            name=name,
            is_good=False,
            seen=f"you may not: {permissions.in_words(missing)}",
            next_step="have the Role in configs/kubernetes/controller bound to you there",
        )
    return Check(name=name, is_good=True, seen=f"all {len(needed)} are there")


async def _check_pod_security(site: Site, namespace: str) -> Check:
    name = f"Pod Security of namespace '{namespace}'"
    agent = site.settings.cluster_agent
    try:
        found = await site.client.find(NAMESPACE, None, namespace)
    except KubernetesError as error:
        if error.status == survey.FORBIDDEN:
            return Check(name=name, is_good=True, seen="you may not look at it; pod agents pass every level")
        return Check.failed(name, error)
    if found is None:
        return Check(
            name=name,
            is_good=False,
            seen="there is no such namespace",
            next_step=f"make it with 'kubectl create namespace {namespace}'",
        )
    level = str((found["metadata"].get("labels") or {}).get(ENFORCE, "privileged"))
    if level not in LEVELS:
        step = f"set the label {ENFORCE} to one of {', '.join(LEVELS)}"
        return Check(name=name, is_good=False, seen=f"the level '{level}' is none", next_step=step)
    if level == "restricted" and namespace == agent.namespace and agent.persistent_disk is not None:
        return Check(
            name=name,
            is_good=False,
            seen="the level is 'restricted', which does not admit the 'persistentDisk' of the cluster agent",
            next_step="use 'persistentVolumeClaim' in the configuration",
        )
    return Check(name=name, is_good=True, seen=f"the level is '{level}', which the pod agent passes")


def _check_agent(health: AgentHealth) -> Check:
    seen = f"{health.name}: {health.health}" + (f": {health.problem}" if health.problem else "")
    if health.is_good and health.secrets is not None:
        return Check(name="cluster agent", is_good=True, seen=f"{health.name}: reachable, claimed and trusted")
    step = health.next_step or "ask its administrator ('clusterAgent.admin' names them) to make you one"
    return Check(name="cluster agent", is_good=False, seen=seen, next_step=step)


async def _check_applications(site: Site, health: AgentHealth, namespace: str) -> Check:
    name = f"applications in namespace '{namespace}'"
    try:
        found = applications(await survey.take(site.client, namespace), health.secrets)
    except KubernetesError as error:
        return Check.failed(name, error)
    there = [a for a in found if a.state is not State.LEFT_OVER]
    bad = [(a, finding) for a in there for finding in a.findings]
    if not bad:
        return Check(name=name, is_good=True, seen=f"{len(there)}, and nothing is wrong with them")
    application, finding = bad[0]
    more = f" (and {len(bad) - 1} more: see 'status')" if len(bad) > 1 else ""
    seen = f"{application.title}: {finding.text}{more}"
    return Check(name=name, is_good=False, seen=seen, next_step=finding.next_step)


async def _check_orphans(site: Site, agent: ClusterAgent, namespace: str) -> Check:
    name = f"orphans in namespace '{namespace}'"
    try:
        unused = await AppSecrets(site=site, agent=agent).unused(namespace, older_than=GRACE)
    except KubernetesError as error:
        return Check.failed(name, error)
    if not unused:
        return Check(name=name, is_good=True, seen="no Secret is left over")
    names = ", ".join(f"{name_of(secret)} of {application_of(secret)}" for secret in unused[:3])
    more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
    return Check(
        name=name, is_good=False, seen=f"nothing uses {names}{more}", next_step="remove them with 'controller gc'"
    )
