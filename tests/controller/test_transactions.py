"""Whatever fails, at whichever step: the state is old or new, the same command run again succeeds, and nothing is left over.

Steps are requests to the API server and calls of the cluster agent, in the order in which a command makes them. The first run
of a command meets a fault at its first step, the next one at its second, and so on, until one gets through without.
"""

import copy
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any

import pytest
from faults import Fault, Faults, faulty_api
from kubernetes_fixtures import stride_of_steps

from vanadium_node.controller.applications import Applications
from vanadium_node.controller.objects import key_of
from vanadium_node.controller.site import Site
from vanadium_node.controller.targets import Identity
from vanadium_node.errors import VanadiumError
from vanadium_node.kube.client import KubeClient, open_client
from vanadium_node.kube.injection import secret_in_use
from vanadium_node.kube.resources import DEPLOYMENT, SECRET, Manifest, name_of

OLD = Identity(extension="old", root_blessings="cm9vdHM")
NEW = Identity(extension="new", root_blessings="cm9vdHM")


@pytest.fixture
async def faults(agent: Any, request: pytest.FixtureRequest) -> Faults:
    """What goes wrong, at the cluster agent and at the API server."""
    planned: Faults = agent.faults
    planned.stride = stride_of_steps(request)
    return planned


@pytest.fixture(params=[f for f in Fault if f not in {Fault.KILL, Fault.KILL_AFTER}], ids=lambda f: f.name)
def fault(request: pytest.FixtureRequest) -> Fault:
    """What goes wrong."""
    found: Fault = request.param
    return found


@pytest.fixture
async def unlucky(site: Site, agent: Any, fault: Fault, faults: Faults) -> AsyncIterator[Applications]:
    """The applications of the site, by a way on which faults happen."""
    patience = 1.0 if fault is Fault.TIMEOUT else 30.0
    async with (
        faulty_api(site.client.access, faults) as access,
        open_client(access, request_seconds=patience) as client,
    ):
        yield Applications(site=replace(site, client=client), agent=agent)


@pytest.fixture
async def lucky(site: Site, agent: Any) -> Applications:
    """The applications of the site, by a way on which none do."""
    return Applications(site=site, agent=agent)


async def live(client: KubeClient) -> Manifest | None:
    return await client.find(DEPLOYMENT, client.namespace, "fortuned")


async def assert_whole(client: KubeClient, agent: Any) -> None:
    """The application is there with its Secret and its key, or nothing is."""
    deployment = await live(client)
    in_use = None if deployment is None else secret_in_use(deployment)
    listing = await client.list(SECRET, client.namespace, labels="app.kubernetes.io/managed-by=vanadium-node")
    found = {name_of(item): key_of(item) for item in listing.items}
    assert set(found) == ({in_use} if in_use else set())
    assert set(agent.known) == set(found.values())


async def attempted(command: Awaitable[None]) -> VanadiumError | None:
    """Run a command and return what went wrong, which must be one of our sentences."""
    try:
        await command
    except VanadiumError as error:
        return error
    return None


async def test_start(
    unlucky: Applications,
    lucky: Applications,
    faults: Faults,
    agent: Any,
    client: KubeClient,
    deployment: dict[str, Any],
    fault: Fault,
) -> None:
    """It is started whole, or not at all; started again it runs."""
    for at in faults.each_step(fault):
        with faults.happening(fault, at):
            error = await attempted(unlucky.start(client.namespace, [deployment], OLD))
        await assert_whole(client, agent)
        if error is not None and await live(client) is None:
            await lucky.start(client.namespace, [deployment], OLD)
        assert await live(client) is not None
        await assert_whole(client, agent)
        await lucky.stop(client.namespace, [deployment])


async def test_update(
    unlucky: Applications,
    lucky: Applications,
    faults: Faults,
    agent: Any,
    client: KubeClient,
    deployment: dict[str, Any],
    fault: Fault,
) -> None:
    """It is the old one with the old secret, or the new one with the new; a failure after the change says that it is done."""
    changed = copy.deepcopy(deployment)
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "example.org/new:1"
    for at in faults.each_step(fault):
        await lucky.start(client.namespace, [deployment], OLD)
        with faults.happening(fault, at):
            error = await attempted(unlucky.update(client.namespace, [changed], NEW))
        stored = await live(client)
        assert stored is not None
        is_new = stored["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/new:1"
        assert (list(agent.known.values())[-1] == "new") is is_new
        if error is None or "is updated, but its old secret is still good" not in error.message:
            assert is_new is (error is None)
            await assert_whole(client, agent)
        assert await attempted(lucky.update(client.namespace, [changed], NEW)) is None
        await assert_whole(client, agent)
        await lucky.stop(client.namespace, [deployment])


async def test_stop(
    unlucky: Applications,
    lucky: Applications,
    faults: Faults,
    agent: Any,
    client: KubeClient,
    deployment: dict[str, Any],
    fault: Fault,
) -> None:
    """It runs on, or the same command run again finishes what was begun."""
    for at in faults.each_step(fault):
        await lucky.start(client.namespace, [deployment], OLD)
        with faults.happening(fault, at):
            error = await attempted(unlucky.stop(client.namespace, [deployment]))
        if error is not None and (await live(client) is not None or agent.known):
            assert await attempted(lucky.stop(client.namespace, [deployment])) is None
        assert await live(client) is None
        listing = await client.list(SECRET, client.namespace, labels="app.kubernetes.io/managed-by=vanadium-node")
        for left in listing.items:  # its key was forgotten, and deleting it failed: the next stop finds it
            assert key_of(left) not in agent.known
            assert await attempted(lucky.stop(client.namespace, [deployment])) is None
        await assert_whole(client, agent)
