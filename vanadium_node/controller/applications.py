"""Starting, updating and stopping applications: their workloads and secrets move together.

A secret lives in two places, as a key at the cluster agent and in a Kubernetes Secret. Either is made before the workload
needs it and removed after the workload stopped needing it; a key is forgotten before its Secret is deleted, so that a command
run again finds what is left. Each command first undoes itself when it fails or is cancelled. Several workloads of one command
are one change: all of them, or none.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from vanadium_node.controller.app_secrets import AppSecrets
from vanadium_node.controller.changing import CONFLICT, delete_own, replace_workload, roll_back
from vanadium_node.controller.marks import (
    WITHOUT_STARTING,
    marked,
    operation_of,
)
from vanadium_node.controller.site import ClusterAgent, Site
from vanadium_node.controller.targets import (
    Identity,
    Target,
    already_running,
    find_targets,
    not_there,
    refuse_start,
    refuse_update,
    roots_of,
    start_digest,
)
from vanadium_node.controller.undo import Undo, undone_on_failure
from vanadium_node.errors import KubernetesError, VanadiumError
from vanadium_node.kube.client import ServerVersion
from vanadium_node.kube.following import follow_rollout
from vanadium_node.kube.injection import PodAgent, inject, secret_in_use
from vanadium_node.kube.resources import SECRET, Manifest, name_of, uid_of
from vanadium_node.kube.workloads import keeps_old_pods


@dataclass(frozen=True, slots=True, kw_only=True)
class Applications:
    """The applications of a site. `wait`: follow each rollout, and fail when it makes no progress for so long.

    Workloads are as `kube.manifest` reads them; `namespace` is that of those that name none.
    """

    site: Site
    agent: ClusterAgent
    wait: timedelta | None = None

    @property
    def _secrets(self) -> AppSecrets:
        return AppSecrets(site=self.site, agent=self.agent)

    async def start(self, namespace: str, workloads: Sequence[Manifest], identity: Identity | None) -> None:
        """Create the workloads, each with a pod agent and a secret of its own if they are to have an identity.

        One that the same command began before, and did not live to finish, is finished.

        Raises:
            InputError: one is already running.
            VanadiumError: the cluster or the cluster agent refused, or a rollout failed; nothing is left then.
        """
        server, targets = await find_targets(self.site.client, namespace, workloads)
        for target in targets:
            refuse_start(target, identity)
        operation = secrets.token_hex(16)
        async with undone_on_failure(self.site.warn) as undo:
            stored = [await self._create(undo, target, identity, server, operation) for target in targets]
            await self._follow(targets, stored)
        for target, made in zip(targets, stored, strict=True):
            try:
                await self._collect(target, await self._of_earlier_starts(target, secret_in_use(made)))
            except VanadiumError as error:
                self.site.warn(f"a Secret that an earlier start of {target} left could not be removed: {error}")
            await self._finish_start(target)

    async def update(self, namespace: str, workloads: Sequence[Manifest], identity: Identity | None) -> None:
        """Replace the workloads, one replica after another. Without an identity the one in use is kept, or its absence.

        Raises:
            InputError: one is not there, cannot be changed, or has no identity to replace.
            VanadiumError: the cluster or the cluster agent refused, or a rollout failed; all is as before then.
        """
        server, targets = await find_targets(self.site.client, namespace, workloads)
        for target in targets:
            refuse_update(target, identity)
        operation = secrets.token_hex(16)
        async with undone_on_failure(self.site.warn) as undo:
            stored = [await self._replace(undo, target, identity, server, operation) for target in targets]
            await self._follow(targets, stored)
        for target, made in zip(targets, stored, strict=True):
            try:
                leftovers = await self._secrets.of(
                    target.namespace, target.resource.kind, target.name, keep=secret_in_use(made)
                )
                await self._collect(target, leftovers)
            except VanadiumError as error:
                raise VanadiumError(
                    f"{target} is updated, but its old secret is still good: {error.message}",
                    hint=error.hint or "run the command again",
                ) from error

    async def stop(self, namespace: str, workloads: Sequence[Manifest]) -> None:
        """Delete the workloads, make their keys worthless, and delete their Secrets; or finish a stop that was interrupted.

        Raises:
            InputError: none of them is there.
            VanadiumError: the cluster refused; or the cluster agent cannot be reached, and nothing was changed.
        """
        _, targets = await find_targets(self.site.client, namespace, workloads)
        leftovers = [await self._secrets.of(t.namespace, t.resource.kind, t.name) for t in targets]
        if all(target.live is None for target in targets) and not any(leftovers):
            raise not_there(targets[0])
        if any(leftovers) or any(target.live is not None and secret_in_use(target.live) for target in targets):
            await self.agent.check()
        for target, found in zip(targets, leftovers, strict=True):
            await self._delete(target, found)

    async def _create(
        self, undo: Undo, target: Target, identity: Identity | None, server: ServerVersion, operation: str
    ) -> Manifest:
        if target.live is not None:
            return await self._resume(undo, target, target.live)
        workload, client = target.manifest, self.site.client
        if identity is not None:
            workload = await self._with_new_secret(undo, target, identity, server)
        undo.push(
            f"delete {target}",
            lambda: delete_own(client, target.resource, target.namespace, target.name, operation),
        )
        workload = marked(workload, operation, starting=start_digest(target, identity))
        try:
            return await client.create(target.resource, target.namespace, workload)
        except KubernetesError as error:
            if error.status == CONFLICT and error.reason == "AlreadyExists":
                raise already_running(target) from error
            raise

    async def _resume(self, undo: Undo, target: Target, live: Manifest) -> Manifest:
        """Take over a start that was interrupted when the workload was there already, and its secret with it."""
        self.site.report(f"{target} is there already: finishing the start that was interrupted")
        client, in_use = self.site.client, secret_in_use(live)
        stored = None if in_use is None else await client.find(SECRET, target.namespace, in_use)
        if stored is not None:
            undo.push(f"forget the secret of {target}", lambda: self._secrets.forget(target.namespace, stored))
        undo.push(
            f"delete {target}",
            lambda: delete_own(client, target.resource, target.namespace, target.name, operation_of(live)),
        )
        return live

    async def _finish_start(self, target: Target) -> None:
        client = self.site.client
        try:
            await client.patch(target.resource, target.namespace, target.name, WITHOUT_STARTING)
        except KubernetesError as error:
            self.site.warn(f"{target} is started, and could not be marked so: {error}")

    async def _replace(
        self, undo: Undo, target: Target, identity: Identity | None, server: ServerVersion, operation: str
    ) -> Manifest:
        workload, client, live = target.manifest, self.site.client, target.live
        if live is None:
            raise not_there(target)
        in_use = secret_in_use(live)
        if identity is not None:
            workload = await self._with_new_secret(undo, target, identity, server)
        elif in_use is not None:
            workload = self._injected(workload, in_use, roots_of(target, live), server)
        undo.push(f"roll {target} back", lambda: self._roll_back(target, live, operation))
        return await replace_workload(client, target.resource, target.namespace, live, marked(workload, operation))

    async def _delete(self, target: Target, leftovers: Sequence[Manifest]) -> None:
        client, found = self.site.client, list(leftovers)
        if target.live is not None:
            await client.delete(target.resource, target.namespace, target.name, uid=uid_of(target.live))
            in_use = secret_in_use(target.live)
            if in_use is not None and all(name_of(s) != in_use for s in found):
                stored = await client.find(SECRET, target.namespace, in_use)  # one that lost its annotation
                found += [] if stored is None else [stored]
        for stored in found:
            await self._secrets.forget(target.namespace, stored)

    async def _with_new_secret(self, undo: Undo, target: Target, identity: Identity, server: ServerVersion) -> Manifest:
        self._injected(target.manifest, "", "", server)  # what cannot be injected is refused before anything is made
        secret_name = await self._secrets.make(
            undo, target.namespace, target.resource.kind, target.name, identity.extension
        )
        return self._injected(target.manifest, secret_name, identity.root_blessings, server)

    def _injected(self, manifest: Manifest, secret_name: str, root_blessings: str, server: ServerVersion) -> Manifest:
        settings = self.site.settings
        return inject(
            manifest,
            PodAgent(
                image=settings.pod_agent.image,
                secret_name=secret_name,
                agent_name=settings.cluster_agent.in_cluster_name,
                root_blessings=root_blessings,
                native_sidecar=server.has_native_sidecars,
            ),
        )

    async def _follow(self, targets: Sequence[Target], stored: Sequence[Manifest]) -> None:
        if self.wait is None:
            return
        for target, made in zip(targets, stored, strict=True):
            workload = {**made, "kind": target.resource.kind, "apiVersion": target.resource.api_version}
            await follow_rollout(
                self.site.client, target.namespace, workload, timeout=self.wait, display=self.site.display
            )

    async def _roll_back(self, target: Target, previous: Manifest, operation: str) -> None:
        if await roll_back(self.site.client, target.resource, target.namespace, previous, operation):
            self.site.report(f"{target.resource.kind} {target.name}: rolled back to the revision before")

    async def _of_earlier_starts(self, target: Target, newest: str | None) -> list[Manifest]:
        namespace, kind, name = target.namespace, target.resource.kind, target.name
        if newest is None:
            return await self._secrets.of(namespace, kind, name)
        return await self._secrets.before(namespace, kind, name, newest)

    async def _collect(self, target: Target, found: Sequence[Manifest]) -> None:
        """Remove the application's Secrets that are no longer used, with their keys."""
        in_use = set()
        if found and keeps_old_pods(target.manifest):
            in_use = await self._secrets.in_use_by_pods(target.namespace)
        for stored in found:
            if name_of(stored) in in_use:
                self.site.warn(
                    f"Secret {target.namespace}/{name_of(stored)} is kept, since pods of {target} from before still use "
                    "it; 'gc' removes it when they have ended"
                )
            else:
                await self._secrets.forget(target.namespace, stored)
