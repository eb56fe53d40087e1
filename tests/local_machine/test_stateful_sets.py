"""Stateful sets: numbers, disks, order, revisions."""

from typing import Any

import trio
from machine_bench import Bench, conditions, container, shell

from vanadium_node.local.api.kinds import CONTROLLER_REVISION, PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET
from vanadium_node.local.api.objects import Object


def stateful_set(bench: Bench, *containers: Object, replicas: int = 2, **spec: Any) -> Object:
    """Create a stateful set."""
    template = {
        "metadata": {"labels": {"app": "db"}},
        "spec": {"containers": list(containers) or [container()], "terminationGracePeriodSeconds": 5},
    }
    made = {"replicas": replicas, "selector": {"matchLabels": {"app": "db"}}, "serviceName": "db", "template": template}
    return bench.store.create(STATEFUL_SET, {"metadata": {"name": "db"}, "spec": made | spec})


def use(bench: Bench, image: str) -> None:
    """Give the container another image."""

    def edit(obj: Object) -> None:
        obj["spec"]["template"]["spec"]["containers"][0]["image"] = image

    bench.store.modify(STATEFUL_SET, "default", "db", edit)


async def rolled_out(bench: Bench) -> Object:
    """Wait until all pods are new and ready."""

    def is_done(obj: Object) -> bool:
        status = obj.get("status", {})
        seen = status.get("observedGeneration", 0) >= obj["metadata"]["generation"]
        counts = [status.get(key, 0) for key in ("replicas", "readyReplicas", "updatedReplicas")]
        same = status.get("currentRevision") == status.get("updateRevision")
        return seen and same and counts == [obj["spec"]["replicas"]] * 3

    return await bench.until(is_done, STATEFUL_SET, "db")


def images(bench: Bench) -> dict[str, str]:
    """Pod → image."""
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in bench.pods()}


async def test_pods_come_in_order_with_numbers_and_disks(bench: Bench) -> None:
    """The second waits for the first to be ready; each has a claim, a host name and labels of its own."""
    probe = {"exec": {"command": ["test", "-e", "/data/ready"]}, "periodSeconds": 1}
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    mounts = [{"name": "data", "mountPath": "/data"}]
    app = shell("sleep 0.5; echo $HOSTNAME >/data/ready; exec sleep 1000", readinessProbe=probe, volumeMounts=mounts)
    stateful_set(bench, app, volumeClaimTemplates=[claim])
    await bench.until_any(lambda pod: pod["metadata"]["name"] == "db-0")
    assert [pod["metadata"]["name"] for pod in bench.pods()] == ["db-0"]
    await rolled_out(bench)
    first, second = sorted(bench.pods(), key=lambda pod: str(pod["metadata"]["name"]))
    assert second["metadata"]["name"] == "db-1"
    assert second["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] == "db-1"
    assert second["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    assert (second["spec"]["hostname"], second["spec"]["subdomain"]) == ("db-1", "db")
    ready = next(c for c in first["status"]["conditions"] if c["type"] == "Ready")
    assert ready["lastTransitionTime"] <= second["metadata"]["creationTimestamp"]
    claims = [claim["metadata"]["name"] for claim in bench.store.list(PERSISTENT_VOLUME_CLAIM)]
    assert sorted(claims) == ["data-db-0", "data-db-1"]


async def test_an_update_goes_from_the_last_to_the_first(bench: Bench) -> None:
    """One at a time, and the old revision stays current until all are new."""
    stateful_set(bench, replicas=3)
    before = await rolled_out(bench)
    order: list[str] = []

    async def look() -> None:
        async for event in bench.store.watch(POD):
            name = event.object["metadata"]["name"]
            is_new = event.object["spec"]["containers"][0]["image"] == "image:2"
            if is_new and name not in order:
                order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        use(bench, "image:2")
        after = await rolled_out(bench)
        nursery.cancel_scope.cancel()
    assert order == ["db-2", "db-1", "db-0"]
    assert after["status"]["currentRevision"] != before["status"]["currentRevision"]
    revisions = {r["metadata"]["name"]: r["revision"] for r in bench.store.list(CONTROLLER_REVISION)}
    assert revisions == {before["status"]["currentRevision"]: 1, after["status"]["currentRevision"]: 2}
    use(bench, "image:1")
    back = await rolled_out(bench)
    assert back["status"]["currentRevision"] == before["status"]["currentRevision"]


async def test_a_partition_keeps_the_pods_below_it(bench: Bench) -> None:
    """Also when one of them has to be made again: with the template that it had."""
    stateful_set(bench, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}})
    await rolled_out(bench)
    use(bench, "image:2")
    await bench.until(lambda pod: pod["spec"]["containers"][0]["image"] == "image:2", POD, "db-1")
    await bench.until_ready("db-1")
    old = bench.store.get(POD, "default", "db-0")["metadata"]["uid"]
    bench.store.delete(POD, "default", "db-0")
    await bench.until(lambda pod: pod["metadata"]["uid"] != old, POD, "db-0")
    assert images(bench) == {"db-0": "image:1", "db-1": "image:2"}


async def test_on_delete_changes_what_somebody_deletes(bench: Bench) -> None:
    """Nothing else."""
    stateful_set(bench, updateStrategy={"type": "OnDelete"})
    await bench.until(lambda s: s.get("status", {}).get("readyReplicas") == 2, STATEFUL_SET, "db")
    use(bench, "image:2")
    await bench.until(lambda s: s["status"]["observedGeneration"] == 2, STATEFUL_SET, "db")
    bench.store.delete(POD, "default", "db-0")
    await bench.until(lambda pod: pod["spec"]["containers"][0]["image"] == "image:2", POD, "db-0")
    assert images(bench)["db-1"] == "image:1"


async def test_fewer_pods_go_from_the_end(bench: Bench) -> None:
    """Their claims stay, and are used again by the next ones of the same number."""
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    mounts = [{"name": "data", "mountPath": "/data"}]
    text = "cat /data/log; echo from $HOSTNAME >>/data/log; echo written; exec sleep 1000"
    app = shell(text, volumeMounts=mounts)
    stateful_set(bench, app, replicas=2, volumeClaimTemplates=[claim], podManagementPolicy="Parallel")
    await rolled_out(bench)
    await bench.until_logged("written", name="db-1")
    bench.store.modify(STATEFUL_SET, "default", "db", lambda obj: obj["spec"].update(replicas=1))
    await bench.until_gone("db-1")
    await rolled_out(bench)
    assert [pod["metadata"]["name"] for pod in bench.pods()] == ["db-0"]
    bench.store.modify(STATEFUL_SET, "default", "db", lambda obj: obj["spec"].update(replicas=2))
    assert "from db-1" in await bench.until_logged("from db-1", name="db-1")


async def test_deleting_one_ends_its_pods(bench: Bench) -> None:
    """A broken pod holds nothing up."""
    stateful_set(bench, container(image="registry.invalid/image:2"), replicas=2)
    await bench.until_waiting("ErrImagePull", "db-0")
    assert conditions(bench.store.get(POD, "default", "db-0")).get("Ready") == "False"
    bench.store.delete(STATEFUL_SET, "default", "db")
    await bench.until_gone("db-0")
    assert bench.store.list(CONTROLLER_REVISION) == ()
