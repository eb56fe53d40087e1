"""A first settings file: what the cluster and the caller's principal say, so that little is left to be typed.

A cluster agent that runs already is described as it is; for a new one, the file names a claim that is there, and keeps the agent
off the internet where no cloud would give it an address anyway.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from vanadium_node.controller.objects import CLUSTER_AGENT_DEPLOYMENT, CLUSTER_AGENT_SERVICE
from vanadium_node.controller.settings import Settings
from vanadium_node.errors import InputError, KubernetesError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.resources import CLAIM, DEPLOYMENT, NODE, SERVICE, Manifest, Resource, name_of
from vanadium_node.storage.files import write_private

AGENT_EXTENSION: Final = "cluster-agent"
CLAIM_NAME: Final = "cluster-agent"
"""The PersistentVolumeClaim that the files in configs/kubernetes make."""

GKE_CONTEXT: Final = re.compile(r"gke_(?P<project>[^_]+)_(?P<zone>[^_]+)_(?P<cluster>.+)")
NO_CLOUDS: Final = ("kind://", "k3s://")
FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a cluster says about a cluster agent that is there, or that is to come."""

    namespace: str
    context: str
    deployment: Manifest | None = None
    service: Manifest | None = None
    claims: tuple[str, ...] = ()
    has_cloud: bool = False


async def ask(client: KubeClient) -> Findings:
    """Ask the cluster about the client's namespace; nodes and claims that the caller may not see are taken as not there.

    Raises:
        KubernetesError: the cluster cannot be reached, or refuses even that.
    """
    namespace = client.namespace
    deployment = await client.find(DEPLOYMENT, namespace, CLUSTER_AGENT_DEPLOYMENT)
    nodes = await _seen(client, NODE, None)
    providers = [str((node.get("spec") or {}).get("providerID") or "") for node in nodes]
    return Findings(
        namespace=namespace,
        context=client.access.context,
        deployment=deployment,
        service=None if deployment is None else await client.find(SERVICE, namespace, CLUSTER_AGENT_SERVICE),
        claims=tuple(name_of(claim) for claim in await _seen(client, CLAIM, namespace)),
        has_cloud=any("://" in p and not p.startswith(NO_CLOUDS) for p in providers),
    )


async def _seen(client: KubeClient, resource: Resource, namespace: str | None) -> tuple[Manifest, ...]:
    try:
        return (await client.list(resource, namespace)).items
    except KubernetesError as error:
        if error.status != FORBIDDEN:
            raise
        return ()


def document(found: Findings, *, caller: str, image: str) -> dict[str, Any]:
    """Return the settings of a cluster, for a caller of that name; the image is that of an agent that runs, else the one given."""
    gke = GKE_CONTEXT.fullmatch(found.context)
    live = {} if found.deployment is None else _live(found.deployment)
    agent: dict[str, Any] = {
        "namespace": found.namespace,
        "image": image,
        "cpu": "0.1",
        "memory": "250M",
        "blessing": f"{caller}:{AGENT_EXTENSION}",
        "admin": caller,
        **live,
    }
    if found.deployment is None and CLAIM_NAME in found.claims:
        agent["persistentVolumeClaim"] = CLAIM_NAME
    if found.service is None:
        agent["internalOnly"] = not found.has_cloud
    else:
        spec = found.service["spec"]
        agent["internalOnly"] = spec.get("type") != "LoadBalancer"
        if spec.get("loadBalancerIP"):
            agent["externalIP"] = spec["loadBalancerIP"]
    return {**(gke.groupdict() if gke else {}), "clusterAgent": agent, "podAgent": {"image": agent["image"]}}


def _live(deployment: Manifest) -> dict[str, Any]:
    """Return what the cluster agent that runs says about itself."""
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    requests = (container.get("resources") or {}).get("requests") or {}
    admin = next((e.get("value") for e in container.get("env") or () if e["name"] == "ADMIN"), None)
    data: Mapping[str, Any] = next((volume for volume in pod.get("volumes") or () if volume["name"] == "data"), {})
    found = {
        "image": container.get("image"),
        "cpu": requests.get("cpu"),
        "memory": requests.get("memory"),
        "admin": admin,
        "persistentDisk": (data.get("gcePersistentDisk") or {}).get("pdName"),
        "persistentVolumeClaim": (data.get("persistentVolumeClaim") or {}).get("claimName"),
    }
    return {key: str(value) for key, value in found.items() if value}


def written(path: Path, content: Mapping[str, Any]) -> str:
    """Return the text of a settings file in the format of its ending."""
    match path.suffix:
        case ".yaml" | ".yml":
            return yaml.safe_dump(dict(content), sort_keys=False)
        case ".toml":
            return _toml(content)
        case _:
            return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _toml(content: Mapping[str, Any]) -> str:
    """A JSON text or boolean is one of TOML too."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in content.items() if not isinstance(value, Mapping)]
    for name, section in content.items():
        if isinstance(section, Mapping):
            lines += [*([""] if lines else []), f"[{name}]"]
            lines += [f"{key} = {json.dumps(value)}" for key, value in section.items()]
    return "\n".join(lines) + "\n"


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Check, before anything is asked, that no file would be lost.

    Raises:
        InputError: there is one already.
    """
    if path.exists() and not overwrite:
        raise InputError(f"'{path}' is there already", hint="name another file with --config, or use --force")


def write_first(path: Path, content: Mapping[str, Any], *, overwrite: bool) -> Settings:
    """Write the settings file, and return what it says.

    Raises:
        InputError: there is one already.
        StorageError: it cannot be written.
    """
    settings = Settings.from_document(content, str(path))
    refuse_existing(path, overwrite=overwrite)
    write_private(path.resolve(), written(path, content).encode(), mode=0o644)
    return settings
