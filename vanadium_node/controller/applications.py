"""Starting, updating and stopping applications: a Deployment and its secret move together.

A secret lives in two places, as a key at the cluster agent and in a Kubernetes Secret. Either is made before the Deployment
needs it and removed after the Deployment stopped needing it; a key is forgotten before its Secret is deleted, so that a command
run again finds what is left. Each command first undoes itself when it fails or is cancelled.
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta

from vanadium_node.controller.app_secrets import AppSecrets
from vanadium_node.controller.deployments import CONFLICT, delete_own, replace_deployment, roll_back
from vanadium_node.controller.objects import marked
from vanadium_node.controller.site import ClusterAgent, Site
from vanadium_node.controller.undo import undone_on_failure
from vanadium_node.errors import InputError, KubernetesError, VanadiumError
from vanadium_node.kube.following import follow_rollout
from vanadium_node.kube.injection import PodAgent, inject, roots_in_use, secret_in_use
from vanadium_node.kube.resources import DEPLOYMENT, SECRET, Manifest, name_of, uid_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The identity that an application is to have: the extension of the caller's blessings, and the roots it trusts."""

    extension: str
    root_blessings: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Applications:
    """The applications of a site. `wait`: follow each rollout, and fail when it makes no progress for so long."""

    site: Site
    agent: ClusterAgent
    wait: timedelta | None = None

    @property
    def _secrets(self) -> AppSecrets:
        return AppSecrets(site=self.site, agent=self.agent)

    async def start(self, namespace: str, manifest: Manifest, identity: Identity | None) -> None:
        """Create the Deployment, with a pod agent and a secret of its own if it is to have an identity.

        Raises:
            InputError: it is already running.
            VanadiumError: the cluster or the cluster agent refused, or the rollout failed; nothing is left then.
        """
        name, client = name_of(manifest), self.site.client
        if await client.find(DEPLOYMENT, namespace, name) is not None:
            raise _already_running(namespace, name)
        operation = secrets.token_hex(16)
        async with undone_on_failure(self.site.warn) as undo:
            workload = manifest
            if identity is not None:
                secret_name = await self._secrets.make(undo, namespace, name, identity.extension)
                workload = await self._injected(manifest, secret_name, identity.root_blessings)
            undo.push(
                f"delete Deployment {namespace}/{name}",
                lambda: delete_own(client, DEPLOYMENT, namespace, name, operation),
            )
            try:
                stored = await client.create(DEPLOYMENT, namespace, marked(workload, operation))
            except KubernetesError as error:
                if error.status == CONFLICT and error.reason == "AlreadyExists":
                    raise _already_running(namespace, name) from error
                raise
            await self._follow(namespace, stored)
        try:
            await self._collect_leftovers(namespace, name, keep=secret_in_use(stored))
        except VanadiumError as error:
            self.site.warn(f"a Secret that an earlier start of {namespace}/{name} left could not be removed: {error}")

    async def update(self, namespace: str, manifest: Manifest, identity: Identity | None) -> None:
        """Replace the Deployment, one replica after another. Without an identity the one in use is kept, or its absence.

        Raises:
            InputError: there is no such Deployment, or it has no identity to replace.
            VanadiumError: the cluster or the cluster agent refused, or the rollout failed; it is as before then.
        """
        name, client = name_of(manifest), self.site.client
        live = await client.find(DEPLOYMENT, namespace, name)
        if live is None:
            raise _not_there(namespace, name)
        in_use = secret_in_use(live)
        if identity is not None and in_use is None:
            raise InputError(
                f"Deployment {namespace}/{name} was started with --noblessings and stays so",
                hint="leave the extension out, or stop it and start it with one",
            )
        operation = secrets.token_hex(16)
        async with undone_on_failure(self.site.warn) as undo:
            workload = manifest
            if identity is not None:
                secret_name = await self._secrets.make(undo, namespace, name, identity.extension)
                workload = await self._injected(manifest, secret_name, identity.root_blessings)
            elif in_use is not None:
                workload = await self._injected(manifest, in_use, _roots_of(live))
            wanted = marked(workload, operation)
            undo.push(f"roll Deployment {namespace}/{name} back", lambda: self._roll_back(namespace, live, operation))
            stored = await replace_deployment(client, namespace, live, wanted)
            await self._follow(namespace, stored)
        try:
            await self._collect_leftovers(namespace, name, keep=secret_in_use(stored))
        except VanadiumError as error:
            raise VanadiumError(
                f"Deployment {namespace}/{name} is updated, but its old secret is still good: {error.message}",
                hint=error.hint or "run the command again",
            ) from error

    async def stop(self, namespace: str, name: str) -> None:
        """Delete the Deployment, make its key worthless, and delete its Secret; or finish a stop that was interrupted.

        Raises:
            InputError: there is no such Deployment.
            VanadiumError: the cluster refused; or the cluster agent cannot be reached, and nothing was changed.
        """
        client = self.site.client
        live = await client.find(DEPLOYMENT, namespace, name)
        leftovers = await self._secrets.of(namespace, name)
        in_use = None if live is None else secret_in_use(live)
        if live is None and not leftovers:
            raise _not_there(namespace, name)
        if leftovers or in_use is not None:
            await self.agent.check()
        if live is not None:
            await client.delete(DEPLOYMENT, namespace, name, uid=uid_of(live))
        if in_use is not None and all(name_of(s) != in_use for s in leftovers):
            stored = await client.find(SECRET, namespace, in_use)  # one that lost its annotation
            leftovers += [] if stored is None else [stored]
        for stored in leftovers:
            await self._secrets.forget(namespace, stored)

    async def _injected(self, manifest: Manifest, secret_name: str, root_blessings: str) -> Manifest:
        settings = self.site.settings
        version = await self.site.client.version()
        return inject(
            manifest,
            PodAgent(
                image=settings.pod_agent.image,
                secret_name=secret_name,
                agent_name=settings.cluster_agent.in_cluster_name,
                root_blessings=root_blessings,
                native_sidecar=version.has_native_sidecars,
            ),
        )

    async def _follow(self, namespace: str, stored: Manifest) -> None:
        if self.wait is not None:
            await follow_rollout(self.site.client, namespace, stored, timeout=self.wait, report=self.site.report)

    async def _roll_back(self, namespace: str, previous: Manifest, operation: str) -> None:
        if await roll_back(self.site.client, namespace, previous, operation):
            self.site.report(f"Deployment {name_of(previous)}: rolled back to the revision before")

    async def _collect_leftovers(self, namespace: str, name: str, *, keep: str | None) -> None:
        """Remove the application's Secrets that are no longer used, with their keys."""
        for stored in await self._secrets.of(namespace, name, keep=keep):
            await self._secrets.forget(namespace, stored)


def _roots_of(live: Manifest) -> str:
    roots = roots_in_use(live)
    if roots is None:
        raise InputError(
            f"the pod agent of Deployment {name_of(live)} is told no root blessings",
            hint="give an extension, so that it gets a new secret and the roots with it",
        )
    return roots


def _already_running(namespace: str, name: str) -> InputError:
    return InputError(
        f"Deployment {namespace}/{name} is already running",
        hint="use 'update' to change it, or 'stop' to end it before",
    )


def _not_there(namespace: str, name: str) -> InputError:
    return InputError(
        f"there is no Deployment {namespace}/{name}", hint="'start' starts it; '--namespace' names another namespace"
    )
