"""Workloads of every kind, on a real API server and on the embedded one: started, updated, stopped, undone."""

import copy
from datetime import timedelta
from typing import Any

import pytest
import trio
from until import until
from workload_manifests import workload

from vanadium_node.controller.app_secrets import AppSecrets
from vanadium_node.controller.applications import Applications
from vanadium_node.controller.objects import application_of, key_of
from vanadium_node.controller.site import Site
from vanadium_node.controller.targets import Identity
from vanadium_node.errors import InputError, KubernetesError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.injection import secret_in_use
from vanadium_node.kube.resources import POD, SECRET, Manifest, name_of, owner_uid
from vanadium_node.kube.workloads import KINDS, kind_of, resource_for, template_of

FIRST = Identity(extension="one", root_blessings="cm9vdHM")
SECOND = Identity(extension="two", root_blessings="cm9vdHM")
WAIT = timedelta(seconds=120)


async def live(client: KubeClient, manifest: Manifest) -> Manifest | None:
    resource = resource_for(kind_of(manifest), await client.version())
    return await client.find(resource, client.namespace, name_of(manifest))


async def our_secrets(client: KubeClient) -> dict[str, str | None]:
    """The Secrets that the controller made: name → key."""
    listing = await client.list(SECRET, client.namespace, labels="app.kubernetes.io/managed-by=vanadium-node")
    return {name_of(item): key_of(item) for item in listing.items}


def with_image(manifest: dict[str, Any], image: str) -> dict[str, Any]:
    """The same workload with another image."""
    changed = copy.deepcopy(manifest)
    template_of(changed)["spec"]["containers"][0]["image"] = image
    return changed


async def made_for(kind: str, client: KubeClient) -> dict[str, Any]:
    """A workload that can have an identity on this cluster: pods that end need native sidecars."""
    ends = kind in {"Job", "CronJob"} and (await client.version()).has_native_sidecars
    return workload(kind, restart="Never" if ends else "Always")


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_workload_and_its_secret_move_together(site: Site, agent: Any, client: KubeClient, kind: str) -> None:
    """Start, a second start, update with and without an extension, stop, a second stop."""
    manifest = await made_for(kind, client)
    applications, space = Applications(site=site, agent=agent), client.namespace
    if kind in {"Job", "CronJob"} and not (await client.version()).has_native_sidecars:
        template_of(manifest)["spec"]["restartPolicy"] = "Never"
        with pytest.raises(InputError, match="it would keep the pods, which are to end, running for ever"):
            await applications.start(space, [manifest], FIRST)
        assert agent.known == {}
        return
    await applications.start(space, [manifest], FIRST)
    with pytest.raises(InputError, match=f"{kind} {space}/app is already running"):
        await applications.start(space, [manifest], FIRST)
    stored = await live(client, manifest)
    assert stored is not None
    first = secret_in_use(stored)
    assert list(await our_secrets(client)) == [first]
    assert list(agent.known.values()) == ["one"]
    if kind_of(manifest).is_fixed:
        with pytest.raises(InputError, match=r"cannot be updated.*'stop' it, and 'start' it again"):
            await applications.update(space, [manifest], SECOND)
    else:
        await applications.update(space, [with_image(manifest, "example.org/app:2")], None)
        stored = await live(client, manifest)
        assert stored is not None
        assert secret_in_use(stored) == first
        assert template_of(stored)["spec"]["containers"][0]["image"] == "example.org/app:2"
        await applications.update(space, [manifest], SECOND)
        assert list(agent.known.values()) == ["two"]
    assert len(await our_secrets(client)) == 1
    await applications.stop(space, [manifest])

    async def is_gone() -> bool:
        return await live(client, manifest) is None

    await until(is_gone)  # a pod takes its time
    assert await our_secrets(client) == {}
    assert agent.known == {}
    with pytest.raises(InputError, match=f"there is no {kind} {space}/app"):
        await applications.stop(space, [manifest])


async def test_without_blessings_nothing_is_added(site: Site, agent: Any, client: KubeClient) -> None:
    """A Job that is to have no identity runs on any cluster."""
    job = workload("Job", restart="Never")
    applications = Applications(site=site, agent=agent)
    await applications.start(client.namespace, [job], None)
    stored = await live(client, job)
    assert stored is not None
    assert secret_in_use(stored) is None
    await applications.stop(client.namespace, [job])
    assert agent.known == {}


async def test_several_workloads_are_one_change(site: Site, agent: Any, client: KubeClient) -> None:
    """Two of the same name in other kinds have secrets of their own; where the second is refused, the first is taken back."""
    applications, space = Applications(site=site, agent=agent), client.namespace
    both = [workload("Deployment"), workload("StatefulSet")]
    await applications.start(space, both, FIRST)
    listing = await client.list(SECRET, space, labels="app.kubernetes.io/managed-by=vanadium-node")
    assert sorted(map(application_of, listing.items)) == ["StatefulSet/app", "app"]
    assert len(agent.known) == 2
    await applications.stop(space, [both[0]])
    assert len(agent.known) == len(await our_secrets(client)) == 1
    assert await live(client, both[1]) is not None
    await applications.stop(space, both)  # what is left of them
    broken = workload("StatefulSet", selector={"matchLabels": {"some": "thing-else"}})
    with pytest.raises(KubernetesError, match="selector"):
        await applications.start(space, [both[0], broken], FIRST)
    assert (agent.known, await our_secrets(client), await live(client, both[0])) == ({}, {}, None)


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "Pod"])
async def test_waiting_follows_the_rollout(
    site: Site, kubelet: None, agent: Any, said: Any, client: KubeClient, kind: str
) -> None:
    """Each kind by its own counts."""
    with trio.fail_after(120):
        await Applications(site=site, agent=agent, wait=WAIT).start(client.namespace, [workload(kind)], FIRST)
    assert f"{kind} app: generation" in said.reports[-1]
    stored = await live(client, workload(kind))
    assert stored is not None
    if kind == "StatefulSet":
        assert said.reports[-1].endswith("desired 1, current 1, updated 1, available 1")


async def test_a_job_has_got_going_when_its_pods_run(
    site: Site, kubelet: None, agent: Any, said: Any, client: KubeClient
) -> None:
    """Its end may be days away."""
    job = workload("Job", restart="Never", parallelism=2, completions=5)
    with trio.fail_after(120):
        await Applications(site=site, agent=agent, wait=WAIT).start(client.namespace, [job], None)
    assert said.reports[-1] == "Job app: generation 1, desired 2, current 2, updated 2, available 2"


async def test_a_stateful_set_that_stalls_goes_back(site: Site, kubelet: None, agent: Any, client: KubeClient) -> None:
    """Its controller waits for the broken pod for ever; the pod is removed, and the set is as before."""
    applications, manifest = Applications(site=site, agent=agent, wait=WAIT), workload("StatefulSet")
    with trio.fail_after(120):
        await applications.start(client.namespace, [manifest], FIRST)
        with pytest.raises(KubernetesError, match="cannot exist"):
            await applications.update(client.namespace, [with_image(manifest, "x:broken")], SECOND)
        ready, images = 0, list[str]()
        while ready != 1 or images != ["example.org/app:1"]:  # between two pods the status is still of the one before
            await trio.sleep(0.05)
            stored = await live(client, manifest)
            assert stored is not None
            ready = stored["status"].get("readyReplicas", 0)
            pods = (await client.list(POD, client.namespace)).items
            own = [pod for pod in pods if owner_uid(pod) == stored["metadata"]["uid"]]
            images = [pod["spec"]["containers"][0]["image"] for pod in own]
    assert list(agent.known.values()) == ["one"]


async def test_a_secret_that_old_pods_still_use_is_kept(site: Site, agent: Any, said: Any, client: KubeClient) -> None:
    """With OnDelete they change when somebody deletes them; then gc may remove their Secret."""
    manifest = workload("StatefulSet", updateStrategy={"type": "OnDelete"})
    applications, space = Applications(site=site, agent=agent), client.namespace
    await applications.start(space, [manifest], FIRST)
    stored = await live(client, manifest)
    assert stored is not None
    await until(lambda: AppSecrets(site=site, agent=agent).in_use_by_pods(space))
    await applications.update(space, [manifest], SECOND)
    assert f"Secret {space}/{secret_in_use(stored)} is kept" in said.warnings[-1]
    assert len(agent.known) == 2
