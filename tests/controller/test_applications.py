"""Starting, updating and stopping on a real API server: Deployment and secret move together, or not at all."""

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import trio

from vanadium_node.controller.applications import Applications
from vanadium_node.controller.objects import key_of
from vanadium_node.controller.site import Site
from vanadium_node.controller.targets import Identity
from vanadium_node.errors import InputError, KubernetesError, UnreachableError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.injection import is_injected, roots_in_use, secret_in_use
from vanadium_node.kube.resources import DEPLOYMENT, SECRET, Manifest, name_of

FORTUNED = Identity(extension="fortuned", root_blessings="cm9vdHM")
OTHER = Identity(extension="other", root_blessings="b3RoZXI")
WAIT = timedelta(seconds=120)


def with_image(deployment: dict[str, Any], image: str) -> dict[str, Any]:
    """The same Deployment with another image."""
    changed = copy.deepcopy(deployment)
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return changed


async def live(client: KubeClient) -> Manifest | None:
    return await client.find(DEPLOYMENT, client.namespace, "fortuned")


async def our_secrets(client: KubeClient) -> dict[str, str | None]:
    """The Secrets that the controller made: name → key."""
    listing = await client.list(SECRET, client.namespace, labels="app.kubernetes.io/managed-by=vanadium-node")
    return {name_of(item): key_of(item) for item in listing.items}


async def assert_consistent(client: KubeClient, agent: Any, *, running: bool) -> None:
    """The application is there or not, and exactly its Secret and its key are."""
    deployment = await live(client)
    assert (deployment is not None) is running
    in_use = None if deployment is None else secret_in_use(deployment)
    found = await our_secrets(client)
    assert set(found) == ({in_use} if in_use else set())
    assert set(agent.known) == set(found.values())


async def test_start_makes_secret_key_and_deployment(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """The pod agent is a native sidecar where the cluster has them; its Secret holds the key that the cluster agent gave."""
    await Applications(site=site, agent=agent).start(client.namespace, [deployment], FORTUNED)
    stored = await live(client)
    assert stored is not None
    name = secret_in_use(stored)
    assert name is not None
    assert name.startswith("secret-")
    assert len(name) == len("secret-") + 32
    assert list(agent.known.values()) == ["fortuned"]
    assert roots_in_use(stored) == "cm9vdHM"
    pod = stored["spec"]["template"]["spec"]
    is_native = (await client.version()).has_native_sidecars
    [pod_agent] = [c for c in pod["initContainers" if is_native else "containers"] if c["name"] == "pod-agent"]
    agent_name = {"name": "AGENT_NAME", "value": "/(test-root:cluster-agent)@cluster-agent.default:8193"}
    assert agent_name in pod_agent["env"]
    await assert_consistent(client, agent, running=True)


async def test_start_without_blessings_adds_nothing(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """No pod agent, no secret; update and stop keep it so, and a new identity is refused."""
    applications = Applications(site=site, agent=agent)
    await applications.start(client.namespace, [deployment], None)
    await applications.update(client.namespace, [with_image(deployment, "i:2")], None)
    stored = await live(client)
    assert stored is not None
    assert not is_injected(stored)
    with pytest.raises(InputError, match="started with --noblessings and stays so"):
        await applications.update(client.namespace, [deployment], FORTUNED)
    agent.is_away = True
    await applications.stop(client.namespace, [deployment])
    agent.is_away = False
    await assert_consistent(client, agent, running=False)


async def test_a_second_start_is_refused(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """Before anything is made."""
    applications = Applications(site=site, agent=agent)
    await applications.start(client.namespace, [deployment], FORTUNED)
    with pytest.raises(InputError, match="is already running; use 'update'"):
        await applications.start(client.namespace, [deployment], OTHER)
    await assert_consistent(client, agent, running=True)
    assert list(agent.known.values()) == ["fortuned"]


async def test_waiting_follows_the_rollout(
    site: Site, kubelet: None, agent: Any, said: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """With --wait each step is told, and it ends when the replicas are there."""
    with trio.fail_after(120):
        await Applications(site=site, agent=agent, wait=WAIT).start(client.namespace, [deployment], FORTUNED)
    assert said.reports[-1].endswith("desired 1, current 1, updated 1, available 1")


async def test_a_start_that_fails_leaves_nothing(
    site: Site, kubelet: None, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """A rollout that cannot succeed, and an object that the API refuses."""
    applications = Applications(site=site, agent=agent, wait=WAIT)
    with trio.fail_after(120), pytest.raises(KubernetesError, match="has an image that cannot exist"):
        await applications.start(client.namespace, [with_image(deployment, "x:broken")], FORTUNED)
    await assert_consistent(client, agent, running=False)
    deployment["spec"]["selector"] = {"matchLabels": {"some": "thing-else"}}
    with pytest.raises(KubernetesError, match="selector"):
        await applications.start(client.namespace, [deployment], FORTUNED)
    await assert_consistent(client, agent, running=False)


async def test_ctrl_c_while_waiting_leaves_nothing(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """Cancelled in the middle of the rollout, everything is taken back before the command ends."""
    with trio.move_on_after(1.5) as scope:
        await Applications(site=site, agent=agent, wait=WAIT).start(client.namespace, [deployment], FORTUNED)
    assert scope.cancelled_caught
    await assert_consistent(client, agent, running=False)


async def test_ctrl_c_while_the_secret_is_made_leaves_nothing(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """The request for a secret is seen through, so that its key can be forgotten."""
    with trio.CancelScope() as scope:

        async def interrupt(method: str) -> None:
            scope.cancel()

        agent.before_call = interrupt
        await Applications(site=site, agent=agent).start(client.namespace, [deployment], FORTUNED)
    assert scope.cancelled_caught
    await assert_consistent(client, agent, running=False)


async def test_update_keeps_the_secret(site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]) -> None:
    """Without an extension: the same Secret and roots, the new specification, and the replicas somebody chose."""
    applications = Applications(site=site, agent=agent)
    await applications.start(client.namespace, [deployment], FORTUNED)
    before = await live(client)
    assert before is not None
    await client.patch(DEPLOYMENT, client.namespace, "fortuned", {"spec": {"replicas": 3}})
    await applications.update(client.namespace, [with_image(deployment, "i:2")], None)
    after = await live(client)
    assert after is not None
    assert secret_in_use(after) == secret_in_use(before)
    assert roots_in_use(after) == "cm9vdHM"
    assert after["spec"]["template"]["spec"]["containers"][0]["image"] == "i:2"
    assert after["spec"]["replicas"] == 3
    await assert_consistent(client, agent, running=True)


async def test_update_with_an_extension_replaces_the_secret(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """The old key is forgotten and its Secret deleted; the roots are the new caller's."""
    applications = Applications(site=site, agent=agent)
    await applications.start(client.namespace, [deployment], FORTUNED)
    await applications.update(client.namespace, [deployment], OTHER)
    after = await live(client)
    assert after is not None
    assert roots_in_use(after) == "b3RoZXI"
    assert list(agent.known.values()) == ["other"]
    await assert_consistent(client, agent, running=True)


async def test_an_update_that_stalls_is_rolled_back(
    site: Site, kubelet: None, agent: Any, said: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """The old specification is back, the new secret is gone, the old one is still good."""
    applications = Applications(site=site, agent=agent, wait=WAIT)
    await applications.start(client.namespace, [deployment], FORTUNED)
    with trio.fail_after(120), pytest.raises(KubernetesError, match="cannot exist"):
        await applications.update(client.namespace, [with_image(deployment, "x:broken")], OTHER)
    after = await live(client)
    assert after is not None
    assert after["spec"]["template"]["spec"]["containers"][0]["image"] == "gcr.io/my-project/fortuned:1"
    assert list(agent.known.values()) == ["fortuned"]
    assert "rolled back" in said.reports[-1]
    await assert_consistent(client, agent, running=True)
    impatient = replace(applications, wait=timedelta(seconds=0.5))
    with pytest.raises(KubernetesError, match="made no progress"):
        await impatient.update(client.namespace, [with_image(deployment, "x:slow")], None)
    await assert_consistent(client, agent, running=True)


async def test_update_and_stop_of_what_is_not_there(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """One sentence that names it, and how to go on."""
    applications = Applications(site=site, agent=agent)
    with pytest.raises(InputError, match=f"there is no Deployment {client.namespace}/fortuned; 'start' starts it"):
        await applications.update(client.namespace, [deployment], FORTUNED)
    with pytest.raises(InputError, match="there is no Deployment"):
        await applications.stop(client.namespace, [deployment])
    assert agent.known == {}


async def test_stop_removes_all_three(site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]) -> None:
    """Deployment, key and Secret; a second stop is refused."""
    applications = Applications(site=site, agent=agent)
    await applications.start(client.namespace, [deployment], FORTUNED)
    await applications.stop(client.namespace, [deployment])
    await assert_consistent(client, agent, running=False)
    with pytest.raises(InputError, match="there is no Deployment"):
        await applications.stop(client.namespace, [deployment])


async def test_stop_without_the_cluster_agent_changes_nothing(
    site: Site, agent: Any, client: KubeClient, deployment: dict[str, Any]
) -> None:
    """A key that cannot be forgotten keeps its application: otherwise nobody would remember it."""
    applications = Applications(site=site, agent=agent)
    await applications.start(client.namespace, [deployment], FORTUNED)
    agent.is_away = True
    with pytest.raises(UnreachableError):
        await applications.stop(client.namespace, [deployment])
    agent.is_away = False
    await assert_consistent(client, agent, running=True)
