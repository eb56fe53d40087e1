"""The files in configs/kubernetes say what the controller does, and give it no more rights than it needs."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from workload_manifests import workloads_of_each_kind

from vanadium_node.controller.administration import Administration
from vanadium_node.controller.app_secrets import AppSecrets
from vanadium_node.controller.applications import Applications
from vanadium_node.controller.objects import cluster_agent_deployment, cluster_agent_service
from vanadium_node.controller.settings import Settings
from vanadium_node.controller.site import Site
from vanadium_node.controller.targets import Identity
from vanadium_node.kube.client import KubeClient, open_client
from vanadium_node.kube.kubeconfig import User
from vanadium_node.kube.resources import Resource

CONFIGS = Path(__file__).parents[2] / "configs" / "kubernetes"
WAIT = timedelta(seconds=120)


def load(name: str) -> Any:
    return yaml.safe_load((CONFIGS / name).read_text())


def test_the_base_is_what_the_controller_makes(settings: Settings) -> None:
    """Names, labels, ports, probes, resources and security are the same, so that either can take over from the other."""
    agent = replace(settings.cluster_agent, persistent_volume_claim="cluster-agent", internal_only=True)
    made: Any = cluster_agent_deployment(agent, root_blessings="r", claimer="c")
    written = load("base/deployment.yaml")
    assert written["metadata"]["name"] == made["metadata"]["name"]
    for part in ("replicas", "strategy", "selector"):
        assert written["spec"][part] == made["spec"][part]
    there, here = written["spec"]["template"], made["spec"]["template"]
    assert there["metadata"] == here["metadata"]
    for part in ("automountServiceAccountToken", "securityContext", "volumes"):
        assert there["spec"][part] == here["spec"][part]
    [one], [two] = there["spec"]["containers"], here["spec"]["containers"]
    assert {e["name"] for e in two["env"]} == {e["name"] for e in one["env"]} | {"ROOT_BLESSINGS", "CLAIMER", "ADMIN"}
    for part in (
        "name",
        "args",
        "ports",
        "volumeMounts",
        "startupProbe",
        "readinessProbe",
        "livenessProbe",
        "resources",
        "securityContext",
    ):
        assert one[part] == two[part]
    service: Any = cluster_agent_service(agent)
    assert load("base/service.yaml")["spec"] == service["spec"]


@pytest.fixture
async def limited(site: Site) -> Any:
    """A client that has the rights of controller/role.yaml in the test's namespace, and no others."""
    client, space = site.client, site.client.namespace
    rbac = "rbac.authorization.k8s.io/v1"
    accounts = Resource(api_version="v1", kind="ServiceAccount", plural="serviceaccounts")
    roles = Resource(api_version=rbac, kind="Role", plural="roles")
    bindings = Resource(api_version=rbac, kind="RoleBinding", plural="rolebindings")
    meta = {"metadata": {"name": "vanadium-controller"}}
    await client.create(accounts, space, {"apiVersion": "v1", "kind": "ServiceAccount", **meta})
    await client.create(roles, space, load("controller/role.yaml"))
    binding = {
        "apiVersion": rbac,
        "kind": "RoleBinding",
        **meta,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "vanadium-controller"},
        "subjects": [{"kind": "ServiceAccount", "name": "vanadium-controller", "namespace": space}],
    }
    await client.create(bindings, space, binding)
    path = accounts.path(space, "vanadium-controller", "token")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    answer = await client.request("POST", path, body=request, doing="ask for a token")
    access = replace(client.access, user=User(token=answer["status"]["token"]))
    async with open_client(access) as restricted:
        yield restricted


@pytest.mark.kubernetes
async def test_the_role_is_enough(
    site: Site, limited: KubeClient, agent: Any, deployment: dict[str, Any], kubelet: None
) -> None:
    """Every command of an application and of the cluster agent works with these rights."""
    space = limited.namespace
    ours = replace(site.settings.cluster_agent, namespace=space)
    restricted = replace(site, client=limited, settings=replace(site.settings, cluster_agent=ours))
    administration = Administration(site=restricted, wait=WAIT)
    await administration.start(root_blessings="r", claimer="c")
    await administration.update()
    applications = Applications(site=restricted, agent=agent, wait=WAIT)
    await applications.start(space, [deployment], Identity(extension="a", root_blessings="r"))
    await applications.update(space, [deployment], Identity(extension="b", root_blessings="r"))
    assert await AppSecrets(site=restricted, agent=agent).unused(space, older_than=timedelta(0)) == []
    await applications.stop(space, [deployment])
    for workload in workloads_of_each_kind((await limited.version()).has_native_sidecars):
        await applications.start(space, [workload], Identity(extension="a", root_blessings="r"))
        await applications.stop(space, [workload])
    await administration.stop()
