"""What a command is about: workloads as a file has them and as the cluster has them now, and what may not be done to those."""

from collections.abc import Iterable
from dataclasses import dataclass

from vanadium_node.controller.marks import digest_of_start, starting_of
from vanadium_node.errors import InputError
from vanadium_node.kube.client import KubeClient, ServerVersion
from vanadium_node.kube.injection import roots_in_use, secret_in_use
from vanadium_node.kube.resources import Manifest, Resource, name_of
from vanadium_node.kube.workloads import kind_of, resource_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The identity that an application is to have: the extension of the caller's blessings, and the roots it trusts."""

    extension: str
    root_blessings: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A workload on this cluster: where it is to be, as the file has it, and as it is there now, if it is."""

    resource: Resource
    namespace: str
    manifest: Manifest
    live: Manifest | None

    @property
    def name(self) -> str:
        return name_of(self.manifest)

    def __str__(self) -> str:
        return self.resource.title(self.namespace, self.name)


async def find_targets(
    client: KubeClient, namespace: str, workloads: Iterable[Manifest]
) -> tuple[ServerVersion, list[Target]]:
    """Look for the workloads on the cluster, in the API versions that it has.

    Raises:
        KubernetesError: the cluster refused.
    """
    server = await client.version()
    targets = []
    for workload in workloads:
        resource = resource_for(kind_of(workload), server)
        space = str(workload["metadata"].get("namespace") or namespace)
        live = await client.find(resource, space, name_of(workload))
        manifest = {**workload, "apiVersion": resource.api_version}
        targets.append(Target(resource=resource, namespace=space, manifest=manifest, live=live))
    return server, targets


def start_digest(target: Target, identity: Identity | None) -> str:
    """Return what tells this start from others."""
    return digest_of_start(target.manifest, None if identity is None else identity.extension)


def refuse_start(target: Target, identity: Identity | None) -> None:
    """Raise InputError where it is running, unless this very start was interrupted before."""
    begun = None if target.live is None else starting_of(target.live)
    if target.live is None or begun == start_digest(target, identity):
        return
    if begun is not None:
        raise InputError(
            f"{target} is already running, and another start of it has not come to its end",
            hint="wait for that; or, if it was interrupted, 'stop' it and start it again",
        )
    raise already_running(target)


def refuse_update(target: Target, identity: Identity | None) -> None:
    """Raise InputError where it is not there, cannot be changed, or has no identity to replace."""
    if target.live is None:
        raise not_there(target)
    if kind_of(target.manifest).is_fixed:
        raise InputError(
            f"{target} cannot be updated: Kubernetes does not let the pods of a {target.resource.kind} be changed",
            hint="'stop' it, and 'start' it again",
        )
    if identity is not None and secret_in_use(target.live) is None:
        raise InputError(
            f"{target} was started with --noblessings and stays so",
            hint="leave the extension out, or stop it and start it with one",
        )


def roots_of(target: Target, live: Manifest) -> str:
    """Return the roots that the live pods' agent is told; raise InputError where there are none."""
    roots = roots_in_use(live)
    if roots is None:
        raise InputError(
            f"the pod agent of {target} is told no root blessings",
            hint="give an extension, so that it gets a new secret and the roots with it",
        )
    return roots


def already_running(target: Target) -> InputError:
    """Say that it cannot be started twice."""
    return InputError(f"{target} is already running", hint="use 'update' to change it, or 'stop' to end it before")


def not_there(target: Target) -> InputError:
    """Say that there is nothing to change or to stop."""
    return InputError(f"there is no {target}", hint="'start' starts it; '--namespace' names another namespace")
