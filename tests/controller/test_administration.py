"""The cluster agent's Deployment and Service on a real API server."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import trio

from vanadium_node.controller.administration import Administration
from vanadium_node.controller.settings import Settings
from vanadium_node.controller.site import Site
from vanadium_node.errors import InputError, KubernetesError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.injection import roots_in_use
from vanadium_node.kube.resources import DEPLOYMENT, NAMESPACE, SERVICE


def here(site: Site, **changes: Any) -> Site:
    """The site with its cluster agent in the test's namespace."""
    agent = replace(site.settings.cluster_agent, namespace=site.client.namespace, **changes)
    return replace(site, settings=replace(site.settings, cluster_agent=agent))


async def test_start_update_stop(site: Site, client: KubeClient) -> None:
    """Both objects come, the update keeps the roots and the claimer, both go; each command refuses what makes no sense."""
    space = client.namespace
    administration = Administration(site=here(site))
    with pytest.raises(InputError, match="is not running"):
        await administration.update()
    await administration.start(root_blessings="cm9vdHM", claimer="test-root")
    with pytest.raises(InputError, match="already running"):
        await administration.start(root_blessings="x", claimer="y")
    service = await client.get(SERVICE, space, "cluster-agent")
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["spec"]["ports"][0]["port"] == 8193
    newer = Administration(site=here(site, image="example.org/vanadium-node:2"))
    await newer.update()
    live = await client.get(DEPLOYMENT, space, "cluster-agentd")
    pod = live["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "example.org/vanadium-node:2"
    assert roots_in_use(live, "cluster-agent") == "cm9vdHM"
    assert roots_in_use(live, "cluster-agent", "CLAIMER") == "test-root"
    assert live["spec"]["strategy"]["type"] == "Recreate"
    assert pod["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}]
    await newer.stop()
    assert await client.find(DEPLOYMENT, space, "cluster-agentd") is None
    assert await client.find(SERVICE, space, "cluster-agent") is None
    with pytest.raises(InputError, match="is not running"):
        await newer.stop()


async def test_internal_only(site: Site, client: KubeClient, said: Any) -> None:
    """No load balancer; without a disk there is a warning."""
    internal = here(site, internal_only=True, persistent_volume_claim=None)
    await Administration(site=internal).start(root_blessings="r", claimer="c")
    assert (await client.get(SERVICE, client.namespace, "cluster-agent"))["spec"]["type"] == "ClusterIP"
    assert any("its secrets are lost" in warning for warning in said.warnings)


async def test_a_disk_of_gce_and_a_reserved_address(site: Site, client: KubeClient) -> None:
    """As the walkthrough's settings name them."""
    gce = here(site, persistent_volume_claim=None, persistent_disk="disk", external_ip="10.1.2.3")
    await Administration(site=gce).start(root_blessings="r", claimer="c")
    live = await client.get(DEPLOYMENT, client.namespace, "cluster-agentd")
    disk = live["spec"]["template"]["spec"]["volumes"][0]["gcePersistentDisk"]
    assert (disk["pdName"], disk["fsType"]) == ("disk", "ext4")
    service = await client.get(SERVICE, client.namespace, "cluster-agent")
    assert service["spec"]["loadBalancerIP"] == "10.1.2.3"


async def test_a_start_that_stalls_leaves_nothing(site: Site, client: KubeClient) -> None:
    """Nobody runs its pod here: after the timeout both objects are gone, and a second attempt may begin."""
    impatient = Administration(site=here(site), wait=timedelta(seconds=0.3))
    with pytest.raises(KubernetesError, match="made no progress"):
        await impatient.start(root_blessings="r", claimer="c")
    assert await client.find(DEPLOYMENT, client.namespace, "cluster-agentd") is None
    assert await client.find(SERVICE, client.namespace, "cluster-agent") is None


async def test_an_update_that_stalls_is_rolled_back(site: Site, client: KubeClient, kubelet: None) -> None:
    """The image of before is back."""
    await Administration(site=here(site), wait=timedelta(seconds=120)).start(root_blessings="r", claimer="c")
    stalling = Administration(site=here(site, image="x:broken"), wait=timedelta(seconds=120))
    with trio.fail_after(240), pytest.raises(KubernetesError, match="cannot exist"):
        await stalling.update()
    live = await client.get(DEPLOYMENT, client.namespace, "cluster-agentd")
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/vanadium-node:1"


async def test_a_missing_namespace_is_made(site: Site, client: KubeClient, settings: Settings) -> None:
    """The cluster agent may live in a namespace of its own."""
    name = f"{client.namespace}-agent"
    agent = replace(settings.cluster_agent, namespace=name)
    elsewhere = replace(site, settings=replace(settings, cluster_agent=agent))
    await Administration(site=elsewhere).start(root_blessings="r", claimer="c")
    assert await client.find(DEPLOYMENT, name, "cluster-agentd") is not None
    await client.delete(NAMESPACE, None, name)


async def test_a_service_that_an_interrupted_start_left_is_taken_over(site: Site, client: KubeClient) -> None:
    """Killed between the two objects, the same command run again finishes."""
    administration = Administration(site=here(site))
    await administration.start(root_blessings="r", claimer="c")
    await client.delete(DEPLOYMENT, client.namespace, "cluster-agentd")
    await administration.start(root_blessings="r", claimer="c")
    assert await client.find(DEPLOYMENT, client.namespace, "cluster-agentd") is not None
