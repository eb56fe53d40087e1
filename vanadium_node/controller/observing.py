"""The state of applications again and again: followed on the cluster, and asked of the cluster agent now and then."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from vanadium_node.controller import survey
from vanadium_node.controller.agent_health import AgentHealth, health_of
from vanadium_node.controller.site import ClusterAgent, Site
from vanadium_node.controller.status import Application, applications
from vanadium_node.errors import InputError, KubernetesError, VanadiumError
from vanadium_node.kube.resources import Resource
from vanadium_node.kube.watch import Snapshot, following

SETTLE_SECONDS: Final = 0.3
"""Changes come in groups: how long to wait for more of them."""

LATEST_SECONDS: Final = 2.0
"""How long a group of changes may keep one from seeing any."""

AGENT_SECONDS: Final = 30.0
"""How often the cluster agent is asked: it tells nobody of changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen at one moment. `hidden`: plural names of what the caller may not list."""

    agent: AgentHealth
    applications: tuple[Application, ...]
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which applications: of a namespace (None: of all), and perhaps of one name, `NAME` or `KIND/NAME`."""

    namespace: str | None
    application: str | None = None

    def chosen(self, found: tuple[Application, ...]) -> tuple[Application, ...]:
        """Return those of the applications that are asked for.

        Raises:
            InputError: one was asked for and is not there.
        """
        if self.application is None:
            return found
        kind, _, name = self.application.rpartition("/")
        chosen = tuple(a for a in found if a.name == name and a.kind.lower().startswith(kind.lower().rstrip("s")))
        if not chosen:
            where = f"namespace '{self.namespace}'" if self.namespace else "any namespace"
            raise InputError(
                f"there is no application '{self.application}' in {where}",
                hint="'status' without a name lists them; '--namespace' names another namespace",
            )
        return chosen


async def observe(site: Site, agent: ClusterAgent, question: Question) -> Observation:
    """Look once; the cluster and its agent are asked at the same time.

    Raises:
        InputError: there is no such application.
        KubernetesError: the cluster cannot be reached, or shows nothing.
    """
    health: list[AgentHealth] = []
    found: list[survey.Survey | KubernetesError] = []

    async def ask_agent() -> None:
        health.append(await health_of(agent, site.settings.cluster_agent.blessing))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_agent)
        try:
            found.append(await survey.take(site.client, question.namespace))
        except KubernetesError as error:
            found.append(error)
            nursery.cancel_scope.cancel()
    if isinstance(found[0], KubernetesError):
        raise found[0]
    return _observation(found[0], health[0], question)


def _observation(found: survey.Survey, health: AgentHealth, question: Question) -> Observation:
    chosen = question.chosen(applications(found, health.secrets))
    return Observation(agent=health, applications=chosen, hidden=found.hidden)


async def keep_observing(
    site: Site, agent: ClusterAgent, question: Question, show: Callable[[Observation], None]
) -> None:
    """Show what is seen now, and again after each change, until cancelled or until there is no such application any more.

    Raises:
        InputError: there is no such application, or not any more.
        KubernetesError: the cluster cannot be reached, or refuses to show something.
    """
    server = await site.client.version()
    scopes = survey.scopes(server, question.namespace)
    view = _View(site=site, agent=agent, question=question, missing={scope.resource for scope in scopes})
    async with following(site.client, scopes) as changes:
        failure = await view.follow(changes, show)
    raise failure


@dataclass(slots=True, kw_only=True)
class _View:
    """What was seen last of each collection, and of the cluster agent."""

    site: Site
    agent: ClusterAgent
    question: Question
    missing: set[Resource]
    collections: survey.Collections = field(default_factory=survey.Collections)
    health: AgentHealth | None = None
    asked: float = -math.inf

    async def follow(
        self, changes: trio.MemoryReceiveChannel[Snapshot | KubernetesError], show: Callable[[Observation], None]
    ) -> VanadiumError:
        """Show what is seen after each group of changes; return what ended it."""
        shown, is_due = trio.current_time(), False
        while True:
            with trio.move_on_after(SETTLE_SECONDS if is_due else AGENT_SECONDS) as waiting:
                change = await changes.receive()
                if isinstance(change, KubernetesError):
                    return change
                self.collections.put(change.scope.resource, change.items)
                self.missing.discard(change.scope.resource)
            is_due = not self.missing
            is_late = trio.current_time() - shown >= LATEST_SECONDS
            if is_due and (waiting.cancelled_caught or is_late):
                try:
                    show(_observation(self.collections.survey(), await self._health(), self.question))
                except InputError as error:
                    return error
                shown, is_due = trio.current_time(), False

    async def _health(self) -> AgentHealth:
        if self.health is None or trio.current_time() - self.asked >= AGENT_SECONDS:
            self.health = await health_of(self.agent, self.site.settings.cluster_agent.blessing)
            self.asked = trio.current_time()
        return self.health
