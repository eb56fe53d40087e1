"""`kill -9` at any step: what is there is old or new and found again, and the same command run again leaves all whole.

The command is a process of its own. Its requests to the API server, and its calls of a real cluster agent, are counted; before
one of them is done, or after it is done and before the answer, the process is killed. Then the same command runs again.
"""

import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults import Fault, Faults, faulty_api
from kubernetes_fixtures import stride_of_steps
from stand_ins import ControllerProcess
from watched_agent import watched_agent

from vanadium_node.controller.applications import Applications
from vanadium_node.controller.identity import own_blessings, root_blessings
from vanadium_node.controller.objects import key_of
from vanadium_node.controller.remote_agent import RemoteClusterAgent
from vanadium_node.controller.site import Site
from vanadium_node.controller.targets import Identity
from vanadium_node.errors import InputError
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.injection import secret_in_use
from vanadium_node.kube.manifest import read_application
from vanadium_node.kube.resources import DEPLOYMENT, SECRET, Manifest, name_of
from vanadium_node.secret_store import key_of_secret
from vanadium_node.security.keys import PrivateKey
from vanadium_node.security.principal import Principal
from vanadium_node.storage.credentials import CredentialsDirectory

KILLED = -9


@dataclass
class Scene:
    """A namespace, a cluster agent, the command line through what kills it, and the same commands without."""

    client: KubeClient
    cli: ControllerProcess
    faults: Faults
    agent: RemoteClusterAgent
    safe: Applications
    identity: Callable[[str], Identity]
    file: Path

    @property
    def manifests(self) -> list[Manifest]:
        return [workload.manifest for workload in read_application(str(self.file)).workloads]

    async def killed(self, *arguments: str) -> bool:
        """Run a command that is to be killed; tell whether it was."""
        async with self.cli.running(*arguments) as run:
            self.faults.kill = run.process.kill
            status = await run.process.wait()
        is_reached = len(self.faults.steps) >= self.faults.at
        assert status == (KILLED if is_reached else 0), (status, arguments, self.faults.steps)
        return status == KILLED

    async def live(self) -> Manifest | None:
        return await self.client.find(DEPLOYMENT, self.client.namespace, "fortuned")

    async def runs(self, image: str) -> bool:
        live = await self.live()
        assert live is not None
        return bool(live["spec"]["template"]["spec"]["containers"][0]["image"] == image)

    async def assert_found_again(self) -> None:
        """What is in use is good; each key that is good is in a Secret, where `gc` and the next command find it."""
        live, good = await self.live(), set(await self.agent.secrets())
        listing = await self.client.list(
            SECRET, self.client.namespace, labels="app.kubernetes.io/managed-by=vanadium-node"
        )
        held = {name_of(s): key_of_secret(key_of(s) or "") for s in listing.items}
        assert good <= set(held.values())
        if live is not None:
            in_use = secret_in_use(live)
            assert in_use in held
            assert held[in_use] in good

    async def assert_whole(self, *, is_there: bool) -> None:
        """The application is there with its Secret and its key and nothing else; or nothing is."""
        await self.assert_found_again()
        assert (await self.live() is not None) is is_there
        listing = await self.client.list(
            SECRET, self.client.namespace, labels="app.kubernetes.io/managed-by=vanadium-node"
        )
        assert len(listing.items) == len(await self.agent.secrets()) == (1 if is_there else 0)


@pytest.fixture(params=[Fault.KILL, Fault.KILL_AFTER], ids=lambda f: f.name)
def fault(request: pytest.FixtureRequest) -> Fault:
    """When it is killed."""
    found: Fault = request.param
    return found


@pytest.fixture
async def scene(
    site: Site,
    client: KubeClient,
    cli: ControllerProcess,
    deployment: dict[str, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Scene]:
    """All of it, with `fortuned.json` to start."""
    faults = Faults(stride=stride_of_steps(request))
    root = await CredentialsDirectory(tmp_path / "root").create(PrivateKey.generate(), "test-root")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Principal]:
        yield root

    (tmp_path / "fortuned.json").write_text(json.dumps(deployment))
    async with watched_agent(root, tmp_path, faults) as address, faulty_api(client.access, faults) as access:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(as_kubeconfig(access.server)))
        options = ("--kubeconfig", str(kubeconfig), "-n", client.namespace, "--credentials", str(tmp_path / "root"))
        agent = RemoteClusterAgent(site=site, open_principal=opened, address=address)
        yield Scene(
            client=client,
            cli=replace(cli, options=(*options, "--cluster-agent-address", address)),
            faults=faults,
            agent=agent,
            safe=Applications(site=site, agent=agent),
            identity=lambda name: Identity(extension=name, root_blessings=root_blessings(own_blessings(root))),
            file=tmp_path / "fortuned.json",
        )


def as_kubeconfig(server: str) -> dict[str, Any]:
    """A kubeconfig for a server that asks for no login."""
    context = {"name": "it", "context": {"cluster": "it", "user": "it"}}
    users, clusters = [{"name": "it", "user": {}}], [{"name": "it", "cluster": {"server": server}}]
    kind = {"apiVersion": "v1", "kind": "Config", "current-context": "it"}
    return {**kind, "clusters": clusters, "users": users, "contexts": [context]}


async def refused(command: Awaitable[None]) -> str:
    """Run a command; return why it was refused, `""` if it was not."""
    try:
        await command
    except InputError as error:
        return error.message
    return ""


async def test_start(scene: Scene, fault: Fault) -> None:
    """Whatever was there when it was killed, started again it is whole; only one that had come to its end is refused."""
    was_killed, space = True, scene.client.namespace
    for at in scene.faults.each_step(fault):
        with scene.faults.happening(fault, at):
            was_killed = await scene.killed("start", "-f", str(scene.file), "app")
        await scene.assert_found_again()
        if was_killed:
            is_last = fault is Fault.KILL_AFTER and scene.faults.steps[-1].startswith("PATCH")
            why = await refused(scene.safe.start(space, scene.manifests, scene.identity("app")))
            assert ("is already running" in why) if is_last else not why
        await scene.assert_whole(is_there=True)
        await scene.safe.stop(space, scene.manifests)
        await scene.assert_whole(is_there=False)
    assert not was_killed


async def test_update(scene: Scene, fault: Fault) -> None:
    """It is the old one or the new one; updated again it is the new one, with the new secret alone."""
    was_killed, space, old = True, scene.client.namespace, scene.manifests
    changed = copy.deepcopy(old)
    changed[0]["spec"]["template"]["spec"]["containers"][0]["image"] = "example.org/new:1"
    for at in scene.faults.each_step(fault):
        await scene.safe.start(space, old, scene.identity("app"))
        scene.file.write_text(json.dumps(changed[0]))
        with scene.faults.happening(fault, at):
            was_killed = await scene.killed("update", "-f", str(scene.file), "new")
        await scene.assert_found_again()
        if was_killed:
            await scene.safe.update(space, scene.manifests, scene.identity("new"))
        assert await scene.runs("example.org/new:1")
        await scene.assert_whole(is_there=True)
        await scene.safe.stop(space, old)
    assert not was_killed


async def test_stop(scene: Scene, fault: Fault) -> None:
    """It runs on, or stopping it again finishes what was begun; only where nothing was left to do there is nothing to stop."""
    was_killed, space = True, scene.client.namespace
    for at in scene.faults.each_step(fault):
        await scene.safe.start(space, scene.manifests, scene.identity("app"))
        with scene.faults.happening(fault, at):
            was_killed = await scene.killed("stop", "-f", str(scene.file))
        await scene.assert_found_again()
        if was_killed:
            is_last = fault is Fault.KILL_AFTER and "/secrets/" in scene.faults.steps[-1]
            why = await refused(scene.safe.stop(space, scene.manifests))
            assert ("there is no" in why) if is_last and scene.faults.steps[-1].startswith("DELETE") else not why
        await scene.assert_whole(is_there=False)
    assert not was_killed


async def test_another_start_meanwhile(scene: Scene) -> None:
    """What one start began another does not finish, unless it asks for the same."""
    space = scene.client.namespace
    scene.faults.stride = 1
    for at in scene.faults.each_step(Fault.KILL_AFTER):
        with scene.faults.happening(Fault.KILL_AFTER, at):
            await scene.killed("start", "-f", str(scene.file), "app")
        if await scene.live() is not None:
            break
    why = await refused(scene.safe.start(space, scene.manifests, scene.identity("another")))
    assert "another start of it has not come to its end" in why
    await scene.safe.start(space, scene.manifests, scene.identity("app"))
    assert "is already running" in await refused(scene.safe.start(space, scene.manifests, scene.identity("app")))
    await scene.assert_whole(is_there=True)
