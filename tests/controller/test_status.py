"""What `status` says: on a real API server and on the embedded one, and for each state that a killed command leaves."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from stand_ins import ControllerProcess

from vanadium_node.cli import status_text
from vanadium_node.controller.agent_health import AgentHealth, Health, health_of
from vanadium_node.controller.app_secrets import AppSecrets
from vanadium_node.controller.applications import Applications
from vanadium_node.controller.objects import secret
from vanadium_node.controller.observing import Observation, Question, keep_observing, observe
from vanadium_node.controller.site import Site
from vanadium_node.controller.status import Application, Finding, State
from vanadium_node.controller.targets import Identity
from vanadium_node.errors import (
    CallError,
    ConfigurationError,
    ErrorCode,
    InputError,
    NotTrustedError,
    VanadiumError,
)
from vanadium_node.kube.client import KubeClient
from vanadium_node.kube.injection import CONTAINER
from vanadium_node.kube.resources import DEPLOYMENT, SECRET
from vanadium_node.secret_store import fresh_secret

ME = Identity(extension="app", root_blessings="r")
SECONDS = 60


async def seen(site: Site, agent: Any, application: str | None = None) -> Observation:
    return await observe(site, agent, Question(namespace=site.client.namespace, application=application))


async def the_one(site: Site, agent: Any) -> Application:
    [application] = (await seen(site, agent)).applications
    return application


@pytest.fixture
async def started(site: Site, agent: Any, deployment: dict[str, Any]) -> dict[str, Any]:
    """An application with an identity; nobody waits for its pods."""
    await Applications(site=site, agent=agent).start(site.client.namespace, [deployment], ME)
    return deployment


async def test_an_application(site: Site, agent: Any, started: Any, client: KubeClient) -> None:
    """Replicas, what the cluster agent tells of its secret, and nothing of what is not the controller's."""
    other = {**started, "metadata": {"name": "other"}}
    await client.create(DEPLOYMENT, client.namespace, other)
    found = await seen(site, agent)
    [application] = found.applications
    assert (application.title, application.has_identity, application.images) == (
        "Deployment/fortuned",
        True,
        ("gcr.io/my-project/fortuned:1",),
    )
    assert application.known is not None
    assert application.known.names == ("test-root:app",)
    assert application.secret_created is not None
    assert application.state in {State.ROLLING_OUT, State.RUNNING, State.FAILING}
    assert (found.agent.health, len(found.agent.secrets or {})) == (Health.SERVING, 1)


async def test_its_replicas(site: Site, agent: Any, deployment: dict[str, Any], kubelet: None) -> None:
    """Once they run."""
    applications = Applications(site=site, agent=agent, wait=timedelta(seconds=SECONDS))
    await applications.start(site.client.namespace, [deployment], ME)
    application = await the_one(site, agent)
    [replica] = application.replicas
    assert application.state is State.RUNNING
    assert replica.is_new
    assert replica.state.word == "Running"
    assert not application.findings


async def test_without_an_identity(site: Site, agent: Any, deployment: dict[str, Any]) -> None:
    """What was started with --noblessings is an application too."""
    await Applications(site=site, agent=agent).start(site.client.namespace, [deployment], None)
    application = await the_one(site, agent)
    assert (application.has_identity, application.secret, application.known) == (False, None, None)


async def test_one_of_several(site: Site, agent: Any, started: Any) -> None:
    """By its name, or its kind and name; one that is not there is named."""
    other = {**started, "metadata": {"name": "other"}}
    await Applications(site=site, agent=agent).start(site.client.namespace, [other], None)
    for name in ("other", "Deployment/other", "deployment/other", "deployments/other", "deploy/other"):
        [application] = (await seen(site, agent, name)).applications
        assert application.name == "other"
    for name in ("nope", "Job/other"):
        with pytest.raises(InputError, match=f"there is no application '{name}' in namespace"):
            await seen(site, agent, name)


async def test_a_start_that_was_killed(site: Site, agent: Any, client: KubeClient) -> None:
    """The Secret without a workload is an application that is left over."""
    key = fresh_secret()
    await agent.new_secret("app", key)
    await client.create(SECRET, client.namespace, secret("secret-1", "StatefulSet/db", key))
    application = await the_one(site, agent)
    assert (application.title, application.state, application.secret) == ("StatefulSet/db", State.LEFT_OVER, "secret-1")
    [finding] = application.findings
    assert finding.text.startswith("nothing uses Secret secret-1, and its key is still good")
    assert "gc" in finding.next_step


async def test_an_update_that_was_killed(site: Site, agent: Any, started: Any, client: KubeClient) -> None:
    """The second Secret is found, whichever of the two is in use."""
    key = fresh_secret()
    await agent.new_secret("app", key)
    await client.create(SECRET, client.namespace, secret("secret-2", "fortuned", key))
    application = await the_one(site, agent)
    assert any("nothing uses Secret secret-2" in finding.text for finding in application.findings)
    assert len(await AppSecrets(site=site, agent=agent).unused(client.namespace, older_than=timedelta(0))) == 1


async def test_a_secret_that_is_gone(site: Site, agent: Any, started: Any, client: KubeClient) -> None:
    """From the cluster, or from the cluster agent's disk: new replicas will not start."""
    before = await the_one(site, agent)
    assert not [f for f in before.findings if "secret" in f.text.lower()]
    agent.known.clear()
    [finding] = [f for f in (await the_one(site, agent)).findings if "secret" in f.text]
    assert finding.text.startswith("the cluster agent does not know its secret")
    await client.delete(SECRET, client.namespace, str(before.secret))
    [finding] = [f for f in (await the_one(site, agent)).findings if "Secret" in f.text]
    assert finding.text == f"its Secret {before.secret} is not there: new replicas cannot start"
    assert "EXTENSION" in finding.next_step


async def test_a_pod_agent_that_was_taken_out(site: Site, agent: Any, started: Any, client: KubeClient) -> None:
    """By a hand or a webhook: the mark is there and the container is not."""
    live = await client.get(DEPLOYMENT, client.namespace, "fortuned")
    pod = live["spec"]["template"]["spec"]
    kept = {key: [c for c in pod.get(key, ()) if c["name"] != CONTAINER] for key in ("containers", "initContainers")}
    template = {**live["spec"]["template"], "spec": {**pod, **kept}}
    patch = {"spec": {"template": {"spec": template["spec"]}}}
    await client.patch(DEPLOYMENT, client.namespace, "fortuned", patch)
    texts = [finding.text for finding in (await the_one(site, agent)).findings]
    assert "it is marked as having a pod agent, and somebody took that out" in texts
    with trio.fail_after(SECONDS):
        while not any(text.startswith("pod fortuned-") and "has none" in text for text in texts):
            await trio.sleep(0.1)
            texts = [finding.text for finding in (await the_one(site, agent)).findings]


async def test_an_agent_that_is_away(site: Site, agent: Any, started: Any) -> None:
    """The applications are shown all the same, without what only it knows."""
    agent.is_away = True
    found = await seen(site, agent)
    assert found.agent.health is Health.UNREACHABLE
    assert found.applications[0].known is None
    assert not [f for f in found.applications[0].findings if "cluster agent" in f.text]


@pytest.mark.parametrize(
    ("error", "health"),
    [
        (CallError(ErrorCode.NO_ACCESS, "no"), Health.SILENT),
        (CallError(ErrorCode.UNKNOWN_METHOD, "no"), Health.SILENT),
        (NotTrustedError("no"), Health.NOT_TRUSTED),
        (InputError("no"), Health.ABSENT),
        (ConfigurationError("no principal"), Health.UNKNOWN),
    ],
)
async def test_the_health_of_an_agent(agent: Any, error: VanadiumError, health: Health) -> None:
    """What stands in the way is part of the answer."""

    async def refuse(_: str) -> None:
        raise error

    agent.before_call = refuse
    found = await health_of(agent, "a:b")
    assert (found.health, found.problem) == (health, error.message)


async def test_an_agent_that_never_answers(agent: Any, autojump_clock: trio.testing.MockClock) -> None:
    """Is unreachable after a while."""

    async def sleep(_: str) -> None:
        await trio.sleep_forever()

    agent.before_call = sleep
    found = await health_of(agent, "a:b")
    assert (found.health, found.problem) == (Health.UNREACHABLE, "the cluster agent did not answer within 15 s")


async def test_watching(site: Site, agent: Any, deployment: dict[str, Any], client: KubeClient) -> None:
    """Each change is seen, until the application is gone that was asked for."""
    stages: list[tuple[str, ...]] = []
    question = Question(namespace=client.namespace)
    applications = Applications(site=site, agent=agent)

    def show(found: Observation) -> None:
        stages.append(tuple(f"{a.title} {a.progress.desired if a.progress else 0}" for a in found.applications))

    async def until(stage: tuple[str, ...]) -> None:
        while not stages or stages[-1] != stage:  # noqa: ASYNC110 - what is waited for happens in other processes
            await trio.sleep(0.05)

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_observing, site, agent, question, show)
            await until(())
            await applications.start(client.namespace, [deployment], None)
            await until(("Deployment/fortuned 1",))
            await client.patch(DEPLOYMENT, client.namespace, "fortuned", {"spec": {"replicas": 2}})
            await until(("Deployment/fortuned 2",))
            await applications.stop(client.namespace, [deployment])
            await until(())
            nursery.cancel_scope.cancel()
        with pytest.raises(InputError, match="there is no application 'fortuned'"):
            await keep_observing(site, agent, replace(question, application="fortuned"), show)


NOW = datetime(2026, 11, 23, 17, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (61, "1m1s"), (3600, "1h"), (90061, "1d1h"), (86405, "1d")],
)
def test_ages(seconds: int, text: str) -> None:
    """The two largest units."""
    assert status_text.age(timedelta(seconds=seconds)) == text


def test_as_text() -> None:
    """Aligned columns, then what to look at; without headers for scripts."""
    finding = Finding(text="its Secret is not there", next_step="run 'update'")
    found = [
        Application(namespace="shop", kind="Job", name="load", state=State.FINISHED, findings=(finding,)),
        Application(
            namespace="shop", kind="Deployment", name="c", state=State.RUNNING, secret_created=NOW - timedelta(3)
        ),
    ]
    assert list(status_text.overview(found, NOW)) == [
        "APPLICATION    REPLICAS   NAMES   EXPIRES   SECRET AGE   STATE",
        "Job/load       -          -       -         -            finished",
        "Deployment/c   -          -       -         3d           running",
        "! Job/load: its Secret is not there; run 'update'",
    ]
    assert next(iter(status_text.overview(found, NOW, namespaces=True, headers=False))).startswith("shop   Job/load   ")
    agent = AgentHealth(name="a:b", health=Health.ABSENT, problem="there is none", next_step="start it")
    assert status_text.agent_line(agent) == "Cluster agent a:b: not running: there is none; start it"
    assert json.dumps(status_text.document(agent, found))


async def test_as_a_user(cli: ControllerProcess, started: Any) -> None:
    """Without credentials and without a cluster agent there is still much to see; exit status 1 only for what is not there."""
    shown = await cli("status")
    assert shown.returncode == 0
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("Cluster agent test-root:cluster-agent: ")
    assert lines[1].split() == ["APPLICATION", "REPLICAS", "NAMES", "EXPIRES", "SECRET", "AGE", "STATE"]
    assert lines[2].startswith("Deployment/fortuned   ")
    assert (await cli("--no-headers", "status")).stdout.startswith("Deployment/fortuned")
    as_json = json.loads((await cli("status", "fortuned", "-o", "json")).stdout)
    assert as_json["applications"][0]["secret"].startswith("secret-")
    assert "gcr.io/my-project/fortuned:1" in (await cli("status", "-o", "wide")).stdout
    refused = await cli("status", "nope")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("vanadium-node: there is no application 'nope'")


async def test_watching_as_a_user(cli: ControllerProcess, started: Any, client: KubeClient) -> None:
    """Piped, each change is some lines; Ctrl-C ends it with exit status 130 and one sentence."""
    async with cli.running("--no-headers", "status", "--watch") as process:
        with trio.fail_after(SECONDS):
            assert (await process.line()).startswith("Deployment/fortuned")
            await client.patch(DEPLOYMENT, client.namespace, "fortuned", {"spec": {"replicas": 3}})
            while "/3" not in await process.line():
                pass
            assert await process.interrupted() == (130, "vanadium-node: interrupted\n")
