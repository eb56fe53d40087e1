"""`vanadium-node local`: the embedded cluster as a daemon of this machine, and the two questions a script asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from vanadium_node.cli.output import emit, emit_json, note, run_async
from vanadium_node.errors import InputError, KubernetesError, UnreachableError

if TYPE_CHECKING:
    from vanadium_node.kube.client import KubeClient
    from vanadium_node.kube.resources import Manifest
    from vanadium_node.local.directory import State
    from vanadium_node.local.running import RunningCluster

ADDRESS_SECONDS: Final = 30.0
"""How long a service may take to get an address."""


@click.group()
def command() -> None:
    """Run the embedded cluster: a Kubernetes API for this machine.

    Its pods are ordinary processes under your own account: it isolates nothing, and is for trying out, developing and
    testing. Its objects live in memory and are gone when it ends; so are its pods and their disks. Its files are in
    $VANADIUM_LOCAL_DIR, else in $XDG_STATE_HOME/vanadium-node/local.
    """


@command.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the API on 127.0.0.1 (default: any free one).")
@click.option("--foreground", is_flag=True, help="Stay in the foreground, until Ctrl-C.")
def up(port: int | None, foreground: bool) -> None:
    """Start the embedded cluster, and say how to use it.

    All objects live in memory: what is not kept in files of yours is gone after 'local down'.
    """
    if foreground:
        _run_here(port)
    else:
        _start(port)


@run_async
async def _start(port: int | None) -> None:
    from vanadium_node.local.cluster import AlreadyUpError, default_directory, ensure_up

    directory = default_directory()
    if not await ensure_up(directory, port=port):
        raise AlreadyUpError(directory)
    emit(f"The embedded cluster is up, with its files in {directory}.")
    _say_how_to_go_on(directory)


def _run_here(port: int | None) -> None:
    """Run the cluster in this process; it ends well on the signals that end a command."""
    import trio

    from vanadium_node.cli.output import single_error
    from vanadium_node.local.cluster import default_directory
    from vanadium_node.local.daemon import serve

    def ready(cluster: RunningCluster) -> None:
        emit(f"The embedded cluster is up at https://127.0.0.1:{cluster.port}; Ctrl-C ends it.")
        _say_how_to_go_on(cluster.directory)

    async def main() -> None:
        await serve(default_directory(), port=port, ready=ready)

    with single_error():
        trio.run(main)


def _say_how_to_go_on(directory: Path) -> None:
    from vanadium_node.local.cluster import kubeconfig_path

    emit("To use it:")
    emit(f"  export KUBECONFIG={kubeconfig_path(directory)}")
    emit("  kubectl get pods")
    emit("To end it:")
    emit("  vanadium-node local down")


@command.command()
@run_async
async def down() -> None:
    """End the embedded cluster and all its pods, and remove everything it made."""
    from vanadium_node.local.cluster import default_directory, down

    directory = default_directory()
    ended = await down(directory)
    if not ended.was_running:
        emit(f"No embedded cluster was running in {directory}.")
        return
    emit(f"The embedded cluster in {directory} is down.")
    if ended.was_killed:
        note("It did not end in time and was killed.")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@run_async
async def status(as_json: bool) -> int:
    """Say whether the embedded cluster runs, where, and what runs in it. The exit status is 1 when it does not."""
    from vanadium_node.local.cluster import default_directory, kubeconfig_path, running_state

    directory = default_directory()
    state = running_state(directory)
    if state is None:
        if as_json:
            emit_json({"running": False, "directory": str(directory)})
        else:
            emit(f"No embedded cluster runs in {directory}; 'vanadium-node local up' starts one.")
        return 1
    pods = await _pods(directory)
    if as_json:
        emit_json(_described(directory, state) | {"pods": pods})
        return 0
    emit(f"The embedded cluster in {directory} runs since {state.since} as process {state.pid}.")
    emit(f"API         https://127.0.0.1:{state.port}")
    emit(f"kubeconfig  {kubeconfig_path(directory)}")
    emit(f"pods        {len(pods)}")
    width = max((len(f"{p['namespace']}/{p['name']}") for p in pods), default=0)
    for pod in pods:
        emit(f"  {pod['namespace']}/{pod['name']}".ljust(width + 4) + pod["phase"])
    return 0


def _described(directory: Path, state: State) -> dict[str, object]:
    from vanadium_node.local.cluster import kubeconfig_path

    return {
        "running": True,
        "directory": str(directory),
        "pid": state.pid,
        "since": state.since,
        "server": f"https://127.0.0.1:{state.port}",
        "kubeconfig": str(kubeconfig_path(directory)),
    }


async def _pods(directory: Path) -> list[dict[str, str]]:
    from vanadium_node.kube.resources import POD

    async with _client(directory) as client:
        found = (await client.list(POD, None)).items
    return [
        {
            "namespace": str(pod["metadata"]["namespace"]),
            "name": str(pod["metadata"]["name"]),
            "phase": str((pod.get("status") or {}).get("phase", "Pending")),
        }
        for pod in found
    ]


@command.command()
@click.argument("file", type=click.Path(path_type=str))
@click.option(
    "-n", "--namespace", default="default", show_default=True, help="Where objects go that name no namespace."
)
@run_async
async def apply(file: str, namespace: str) -> None:
    """Make or change the objects in FILE (JSON or YAML, '-' for standard input), for machines without kubectl."""
    from vanadium_node.kube.manifest import read_manifests
    from vanadium_node.local.cluster import default_directory

    manifests = read_manifests(file)
    async with _client(default_directory()) as client:
        for manifest in manifests:
            emit(await _applied(client, manifest, namespace))


async def _applied(client: KubeClient, manifest: Manifest, namespace: str) -> str:
    """Apply one object, and return the line that says what became of it, in kubectl's words."""
    from vanadium_node.kube.resources import Resource, name_of, resource_version_of
    from vanadium_node.local.api.kinds import by_kind

    kind, name = str(manifest.get("kind")), name_of(manifest)
    found = by_kind(str(manifest.get("apiVersion")), kind)
    if found is None or not name:
        what = f"the kind {kind} of {manifest.get('apiVersion')}" if name else "an object without metadata.name"
        raise InputError(
            f"cannot apply {what}: the embedded cluster does not know it",
            hint="'kubectl api-resources' lists what it knows",
        )
    resource = Resource(api_version=found.api_version, kind=kind, plural=found.plural, namespaced=found.namespaced)
    where = str((manifest.get("metadata") or {}).get("namespace") or namespace)
    before = await client.find(resource, where, name)
    after = await client.request(
        "PATCH",
        resource.path(where, name),
        query={"fieldManager": "vanadium-node-local", "force": "true", "fieldValidation": "Strict"},
        body=manifest,
        content_type="application/apply-patch+yaml",
        doing=f"apply {resource.title(where, name)}",
    )
    is_same = before is not None and resource_version_of(before) == resource_version_of(after)
    group = f".{found.group}" if found.group else ""
    return f"{found.singular}{group}/{name} {'created' if before is None else 'unchanged' if is_same else 'configured'}"


@command.command()
@click.argument("service")
@click.option("-n", "--namespace", default="default", show_default=True, help="The service's namespace.")
@run_async
async def address(service: str, namespace: str) -> None:
    """Print the address of a SERVICE of type LoadBalancer, once it has one."""
    import trio

    from vanadium_node.kube.resources import SERVICE
    from vanadium_node.local.cluster import default_directory

    async with _client(default_directory()) as client:
        with trio.move_on_after(ADDRESS_SECONDS):
            while True:
                found = await client.get(SERVICE, namespace, service)
                if (found.get("spec") or {}).get("type") != "LoadBalancer":
                    raise InputError(
                        f"Service {namespace}/{service} has no address outside the cluster",
                        hint="its type must be LoadBalancer",
                    )
                ingress = ((found.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
                if ingress:
                    emit(str(ingress[0]["ip"]))
                    return
                await trio.sleep(0.1)
    raise KubernetesError(
        f"Service {namespace}/{service} has got no address within {ADDRESS_SECONDS:.0f} s",
        hint="'kubectl get events' may tell why",
    )


@asynccontextmanager
async def _client(directory: Path) -> AsyncIterator[KubeClient]:
    """Give a client of the embedded cluster.

    Raises:
        UnreachableError: none runs.
    """
    from vanadium_node.kube.client import open_client
    from vanadium_node.kube.kubeconfig import ClusterAccess
    from vanadium_node.local.cluster import kubeconfig_path, running_state

    if running_state(directory) is None:
        raise UnreachableError(f"no embedded cluster runs in '{directory}'", hint="'vanadium-node local up' starts one")
    async with open_client(ClusterAccess.from_files([kubeconfig_path(directory)])) as client:
        yield client
