"""Starting, updating and stopping the cluster agent: a Deployment of one replica, and the Service in front of it."""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from vanadium_node.controller.changing import delete_own, replace_workload, roll_back
from vanadium_node.controller.marks import marked
from vanadium_node.controller.objects import (
    CLUSTER_AGENT_DEPLOYMENT,
    CLUSTER_AGENT_SERVICE,
    cluster_agent_deployment,
    cluster_agent_service,
    namespace,
)
from vanadium_node.controller.site import Site
from vanadium_node.controller.undo import undone_on_failure
from vanadium_node.errors import InputError, KubernetesError
from vanadium_node.kube.following import follow_rollout
from vanadium_node.kube.injection import roots_in_use
from vanadium_node.kube.resources import DEPLOYMENT, NAMESPACE, SERVICE, Manifest

CONTAINER: Final = "cluster-agent"
FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True, kw_only=True)
class Administration:
    """The cluster agent of a site. `wait`: follow its rollout, and fail when it makes no progress for so long."""

    site: Site
    wait: timedelta | None = None

    @property
    def _namespace(self) -> str:
        return self.site.settings.cluster_agent.namespace

    async def start(self, *, root_blessings: str, claimer: str) -> None:
        """Create the cluster agent, its Service, and its namespace where that is missing.

        Raises:
            InputError: it is already running.
            VanadiumError: the cluster refused, or the rollout failed; what was made is deleted then.
        """
        client, settings, space = self.site.client, self.site.settings.cluster_agent, self._namespace
        if await client.find(DEPLOYMENT, self._namespace, CLUSTER_AGENT_DEPLOYMENT) is not None:
            raise InputError(
                f"the cluster agent is already running in namespace '{self._namespace}'",
                hint="use 'update-cluster-agent' to change it, or 'stop-cluster-agent' to end it before",
            )
        if settings.persistent_disk is None and settings.persistent_volume_claim is None:
            self.site.warn(
                "the cluster agent has no disk: its secrets are lost when its pod goes; "
                "set 'persistentVolumeClaim' or 'persistentDisk' in the configuration to keep them"
            )
        operation = secrets.token_hex(16)
        deployment = cluster_agent_deployment(settings, root_blessings=root_blessings, claimer=claimer)
        async with undone_on_failure(self.site.warn) as undo:
            await self._make_namespace()
            undo.push(
                "delete the cluster agent's Service",
                lambda: delete_own(client, SERVICE, space, CLUSTER_AGENT_SERVICE, operation),
            )
            await self._make_service(marked(cluster_agent_service(settings), operation))
            undo.push(
                "delete the cluster agent's Deployment",
                lambda: delete_own(client, DEPLOYMENT, space, CLUSTER_AGENT_DEPLOYMENT, operation),
            )
            stored = await client.create(DEPLOYMENT, self._namespace, marked(deployment, operation))
            await self._follow(stored)

    async def update(self) -> None:
        """Replace the cluster agent by one with the settings of now. The roots and the claimer it was given stay.

        Raises:
            InputError: it is not running.
            VanadiumError: the cluster refused, or the rollout failed; it is as before then.
        """
        client = self.site.client
        live = await client.find(DEPLOYMENT, self._namespace, CLUSTER_AGENT_DEPLOYMENT)
        if live is None:
            raise self._not_running()
        roots = roots_in_use(live, CONTAINER) or ""
        claimer = roots_in_use(live, CONTAINER, "CLAIMER") or ""
        operation = secrets.token_hex(16)
        wanted = cluster_agent_deployment(self.site.settings.cluster_agent, root_blessings=roots, claimer=claimer)
        async with undone_on_failure(self.site.warn) as undo:
            undo.push("roll the cluster agent back", lambda: self._roll_back(live, operation))
            stored = await replace_workload(client, DEPLOYMENT, self._namespace, live, marked(wanted, operation))
            await self._follow(stored)

    async def stop(self) -> None:
        """Delete the cluster agent and its Service. Its disk, if it has one, keeps the secrets.

        Raises:
            InputError: neither is there.
        """
        client, space = self.site.client, self._namespace
        had_deployment = await client.delete(DEPLOYMENT, space, CLUSTER_AGENT_DEPLOYMENT)
        had_service = await client.delete(SERVICE, space, CLUSTER_AGENT_SERVICE)
        if not had_deployment and not had_service:
            raise self._not_running()

    def _not_running(self) -> InputError:
        return InputError(
            f"the cluster agent is not running in namespace '{self._namespace}'",
            hint="start it with 'start-cluster-agent'",
        )

    async def _follow(self, stored: Manifest) -> None:
        if self.wait is not None:
            await follow_rollout(
                self.site.client, self._namespace, stored, timeout=self.wait, display=self.site.display
            )

    async def _make_namespace(self) -> None:
        """Make the namespace if it is missing. It is not taken back: deleting one deletes what others put there meanwhile."""
        try:
            is_there = await self.site.client.find(NAMESPACE, None, self._namespace) is not None
        except KubernetesError as error:
            if error.status != FORBIDDEN:
                raise
            is_there = True  # who may not look may still have rights in it; if it is missing, the next request says so
        if not is_there:
            await self.site.client.create(NAMESPACE, None, namespace(self._namespace))

    async def _make_service(self, wanted: Manifest) -> None:
        """Create the Service, or bring one that an interrupted command left up to date."""
        client = self.site.client
        if await client.find(SERVICE, self._namespace, CLUSTER_AGENT_SERVICE) is None:
            await client.create(SERVICE, self._namespace, wanted)
        else:
            await client.patch(SERVICE, self._namespace, CLUSTER_AGENT_SERVICE, wanted)

    async def _roll_back(self, previous: Manifest, operation: str) -> None:
        if await roll_back(self.site.client, DEPLOYMENT, self._namespace, previous, operation):
            self.site.report("the cluster agent: rolled back to the revision before")
