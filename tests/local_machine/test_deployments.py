"""Deployments: rolling updates, histories, deadlines and what else `kubectl rollout` relies on."""

from pathlib import Path
from typing import Any

import pytest
import trio
from machine_bench import Bench, condition_of, conditions, container, running_bench, shell, state
from trio.testing import MockClock

from vanadium_node.local.api.kinds import DEPLOYMENT, NAMESPACE, POD, REPLICA_SET
from vanadium_node.local.api.objects import Object
from vanadium_node.local.machine import pods, replica_sets
from vanadium_node.local.machine.deployments import Deployments

REVISION = "deployment.kubernetes.io/revision"


def use(bench: Bench, image: str) -> None:
    """Give the deployment's container another image."""

    def edit(obj: Object) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    bench.store.modify(DEPLOYMENT, "default", "web", edit)


def change(bench: Bench, **spec: Any) -> None:
    """Change fields of the deployment's spec."""
    bench.store.modify(DEPLOYMENT, "default", "web", lambda obj: obj["spec"].update(spec))


def images(bench: Bench) -> list[str]:
    """Return the images of the pods that are to stay."""
    return sorted(pod["spec"]["containers"][0]["image"] for pod in bench.pods())


async def test_a_deployment_makes_a_replica_set_that_makes_pods(bench: Bench) -> None:
    """Names, labels, owners, revision, status and conditions are those of a real controller."""
    bench.deployment(replicas=2)
    deployment = await bench.until_rolled_out()
    (rs,) = bench.replica_sets()
    label = rs["metadata"]["labels"]["pod-template-hash"]
    assert rs["metadata"]["name"] == f"web-{label}"
    assert rs["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": label}
    assert deployment["metadata"]["annotations"][REVISION] == rs["metadata"]["annotations"][REVISION] == "1"
    for pod in bench.pods():
        assert pod["metadata"]["name"].startswith(f"web-{label}-")
        assert pod["metadata"]["labels"] == {"app": "web", "pod-template-hash": label}
        assert pod["metadata"]["ownerReferences"][0]["uid"] == rs["metadata"]["uid"]
    assert deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
    assert conditions(deployment) == {"Available": "True", "Progressing": "True"}
    assert condition_of(deployment, "Progressing")["reason"] == "NewReplicaSetAvailable"
    assert bench.reasons("web") == ["ScalingReplicaSet"]


async def test_a_rolling_update_keeps_within_its_bounds(bench: Bench) -> None:
    """Never more pods than the surge allows, never fewer available than promised."""
    bench.deployment(replicas=4, strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}})
    await bench.until_rolled_out()
    use(bench, "image:2")
    seen: list[tuple[int, int]] = []

    async def look() -> None:
        async for _ in bench.store.watch(POD):
            pods = bench.pods()
            seen.append((len(pods), sum(conditions(pod).get("Ready") == "True" for pod in pods)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await bench.until_rolled_out()
        nursery.cancel_scope.cancel()
    assert max(count for count, _ in seen) <= 5
    assert min(ready for _, ready in seen) >= 3
    assert images(bench) == ["image:2"] * 4
    assert [rs["spec"]["replicas"] for rs in bench.replica_sets()] == [0, 4]


async def test_going_back_uses_the_old_replica_set(bench: Bench) -> None:
    """The template of an old revision has its replica set again, as the newest revision."""
    bench.deployment(replicas=1)
    await bench.until_rolled_out()
    (first,) = bench.replica_sets()
    use(bench, "image:2")
    await bench.until_rolled_out()
    use(bench, "image:1")
    deployment = await bench.until_rolled_out()
    newest = bench.replica_sets()[-1]
    assert len(bench.replica_sets()) == 2
    assert newest["metadata"]["uid"] == first["metadata"]["uid"]
    assert newest["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
    assert deployment["metadata"]["annotations"][REVISION] == newest["metadata"]["annotations"][REVISION] == "3"


async def test_old_replica_sets_are_forgotten(bench: Bench) -> None:
    """`revisionHistoryLimit` old ones are kept."""
    bench.deployment(replicas=1, revisionHistoryLimit=1)
    for image in ("image:1", "image:2", "image:3"):
        use(bench, image)
        await bench.until_rolled_out()
    with trio.fail_after(5):
        while len(bench.replica_sets()) != 2:  # noqa: ASYNC110 - the clean-up follows the last status
            await trio.sleep(0.01)
    assert [rs["metadata"]["annotations"][REVISION] for rs in bench.replica_sets()] == ["2", "3"]


async def test_recreate_ends_the_old_pods_first(bench: Bench) -> None:
    """With this strategy two revisions never run together."""
    bench.deployment(replicas=2, strategy={"type": "Recreate"})
    await bench.until_rolled_out()
    use(bench, "image:2")
    together: list[bool] = []

    async def look() -> None:
        async for _ in bench.store.watch(POD):
            found = {pod["spec"]["containers"][0]["image"] for pod in bench.store.list(POD)}
            together.append(len(found) > 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await bench.until_rolled_out()
        nursery.cancel_scope.cancel()
    assert together
    assert not any(together)
    assert images(bench) == ["image:2"] * 2


async def test_scaling(bench: Bench) -> None:
    """Up, down and to nothing."""
    bench.deployment(replicas=1)
    await bench.until_rolled_out()
    for replicas in (3, 2, 0, 1):
        change(bench, replicas=replicas)
        await bench.until_rolled_out()
        assert len(bench.pods()) == replicas
    assert len(bench.replica_sets()) == 1


async def test_a_paused_deployment_waits(bench: Bench) -> None:
    """A new template is not rolled out while paused; scaling goes on; resuming rolls it out."""
    bench.deployment(replicas=1)
    await bench.until_rolled_out()
    change(bench, paused=True)
    use(bench, "image:2")
    change(bench, replicas=2)
    deployment = await bench.until(
        lambda d: (
            d["status"].get("availableReplicas") == 2
            and d["status"]["observedGeneration"] == d["metadata"]["generation"]
        ),
        DEPLOYMENT,
        "web",
    )
    assert condition_of(deployment, "Progressing")["reason"] == "DeploymentPaused"
    assert images(bench) == ["image:1"] * 2
    change(bench, paused=False)
    await bench.until_rolled_out()
    assert images(bench) == ["image:2"] * 2


async def test_a_rollout_that_does_not_get_on_misses_its_deadline(clock: MockClock, bench: Bench) -> None:
    """The condition Progressing becomes false, the old pods stay, and a better template still goes through."""
    bench.deployment(replicas=1, progressDeadlineSeconds=60)
    await bench.until_rolled_out()
    use(bench, "registry.invalid/image:2")
    await bench.until(lambda d: condition_of(d, "Progressing").get("reason") == "ReplicaSetUpdated", DEPLOYMENT, "web")
    clock.jump(61)
    deployment = await bench.until(lambda d: conditions(d).get("Progressing") == "False", DEPLOYMENT, "web")
    new = bench.replica_sets()[-1]["metadata"]["name"]
    reason = condition_of(deployment, "Progressing")
    assert reason["reason"] == "ProgressDeadlineExceeded"
    assert reason["message"] == f'ReplicaSet "{new}" has timed out progressing.'
    assert conditions(deployment)["Available"] == "True"
    use(bench, "image:3")
    deployment = await bench.until_rolled_out()
    assert conditions(deployment)["Progressing"] == "True"


async def test_pods_that_must_be_ready_for_a_while(clock: MockClock, bench: Bench) -> None:
    """With `minReadySeconds`, ready is not yet available."""
    bench.deployment(replicas=1, minReadySeconds=30)
    deployment = await bench.until(lambda d: d.get("status", {}).get("readyReplicas") == 1, DEPLOYMENT, "web")
    assert "availableReplicas" not in deployment["status"]
    assert conditions(deployment)["Available"] == "False"
    clock.jump(31)
    await bench.until_rolled_out()


async def test_a_deleted_pod_is_replaced(bench: Bench) -> None:
    """The number of pods is kept."""
    bench.deployment(replicas=1)
    await bench.until_rolled_out()
    (pod,) = bench.pods()
    bench.store.delete(POD, "default", pod["metadata"]["name"])
    await bench.until_gone(pod["metadata"]["name"])
    await bench.until_rolled_out()
    assert bench.pods()[0]["metadata"]["uid"] != pod["metadata"]["uid"]


async def test_deleting_a_deployment_ends_its_pods(bench: Bench) -> None:
    """Everything that it owned goes with it."""
    bench.deployment(replicas=2)
    await bench.until_rolled_out()
    names = [pod["metadata"]["name"] for pod in bench.pods()]
    bench.store.delete(DEPLOYMENT, "default", "web")
    for name in names:
        await bench.until_gone(name)
    assert bench.store.list(REPLICA_SET) == ()


async def test_orphans_are_adopted(bench: Bench) -> None:
    """Pods and replica sets left by a deployment are taken over by the next one that selects them."""
    bench.deployment(replicas=1)
    await bench.until_rolled_out()
    (pod,), (rs,) = bench.pods(), bench.replica_sets()
    bench.store.delete(DEPLOYMENT, "default", "web", propagation="Orphan")
    assert bench.store.find(REPLICA_SET, "default", rs["metadata"]["name"]) is not None
    bench.deployment(replicas=1)
    await bench.until_rolled_out()
    assert [p["metadata"]["uid"] for p in bench.pods()] == [pod["metadata"]["uid"]]
    assert len(bench.replica_sets()) == 1


async def test_a_namespace_ends_with_its_pods(bench: Bench) -> None:
    """Deleting a namespace ends what runs in it, gracefully."""
    bench.store.create(NAMESPACE, {"metadata": {"name": "test"}})
    spec = {"containers": [container()], "terminationGracePeriodSeconds": 5}
    bench.store.create(POD, {"metadata": {"name": "pod", "namespace": "test"}, "spec": spec})
    await bench.until(lambda pod: conditions(pod).get("Ready") == "True", namespace="test")
    bench.store.delete(NAMESPACE, None, "test")
    with trio.fail_after(10):
        while bench.store.find(NAMESPACE, None, "test") is not None:  # noqa: ASYNC110 - both ends are looked at
            await trio.sleep(0.01)
    assert bench.store.list(POD) == ()


@pytest.mark.parametrize("image", ["registry.invalid/image:9"])
async def test_a_broken_update_leaves_the_old_pods_in_service(bench: Bench, image: str) -> None:
    """With the default bounds nothing old goes before something new is available."""
    bench.deployment(replicas=2)
    await bench.until_rolled_out()
    use(bench, image)
    await bench.until(lambda d: d["status"].get("updatedReplicas") == 1, DEPLOYMENT, "web")
    await trio.sleep(0.2)
    assert images(bench) == ["image:1", "image:1", image]


async def test_recreate_promises_all_its_pods(bench: Bench) -> None:
    """Such a deployment is available only when every pod is."""
    bench.deployment(container(readinessProbe={"exec": {"command": ["false"]}}), strategy={"type": "Recreate"})
    deployment = await bench.until(lambda d: "Available" in conditions(d), DEPLOYMENT, "web")
    assert conditions(deployment)["Available"] == "False"


async def test_a_deadline_passes_while_old_pods_end(
    clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deployment says so, although it has no new replica set yet, and is not looked at over and over."""
    turns: list[str] = []
    reconcile = Deployments.reconcile

    def counted(self: Deployments, namespace: str, name: str) -> float | None:
        turns.append(name)
        return reconcile(self, namespace, name)

    monkeypatch.setattr(Deployments, "reconcile", counted)
    async with running_bench(tmp_path / "m") as bench:
        never: dict[str, Any] = {"readinessProbe": {"exec": {"command": ["false"]}}}
        stubborn = shell("trap '' TERM; echo up; while :; do sleep 0.1; done", **never)
        bench.deployment(stubborn, replicas=1, strategy={"type": "Recreate"}, progressDeadlineSeconds=3)
        (pod,) = [await bench.until_any(lambda p: "running" in state(p))]
        await bench.until_logged("up", name=pod["metadata"]["name"])
        use(bench, "image:2")
        await bench.until(lambda d: d["status"]["observedGeneration"] == 2, DEPLOYMENT, "web")
        clock.jump(4)
        deployment = await bench.until(lambda d: conditions(d).get("Progressing") == "False", DEPLOYMENT, "web")
        assert condition_of(deployment, "Progressing")["message"] == 'Deployment "web" has timed out progressing.'
        before = len(turns)
        await trio.sleep(0.3)
        assert len(turns) - before < 10


async def test_pods_that_are_refused(clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is an event and a condition of both owners, until pods are accepted again."""
    template = pods.from_template
    monkeypatch.setattr(replica_sets, "from_template", lambda owner: {**template(owner), "spec": {"containers": []}})
    bench.deployment(replicas=1)
    deployment = await bench.until(lambda d: conditions(d).get("ReplicaFailure") == "True", DEPLOYMENT, "web")
    assert condition_of(deployment, "ReplicaFailure")["reason"] == "FailedCreate"
    (rs,) = bench.replica_sets()
    assert "Error creating:" in bench.messages("FailedCreate", rs["metadata"]["name"])[0]
    monkeypatch.setattr(replica_sets, "from_template", template)
    clock.jump(5)
    deployment = await bench.until(lambda d: "ReplicaFailure" not in conditions(d), DEPLOYMENT, "web")
    await bench.until_rolled_out()
